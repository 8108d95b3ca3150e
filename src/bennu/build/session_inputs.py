"""What a client lends to its build by its session. Implements `BuildInputs`."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bennu.build.dockerfile.parse import ParsedDockerfile
from bennu.build.graph import GraphNode, LocalSource
from bennu.build.request import ContextTree
from bennu.build.wire.contexts import Contexts
from bennu.build.wire.diffcopy import SmallFiles, options, receive
from bennu.build.wire.session import ClientSession, Sessions
from bennu.errors import NotImplementedHere
from bennu.images.pulling import Step
from bennu.images.registry.logins import Auth

MAX_SMALL_FILE: Final = 4 << 20
SHOW_EVERY_NS: Final = 100_000_000
UPLOAD_HOST: Final = "buildkit-session"


class SessionInputs:
    """The things of one build. They are the caller's until `stack` is closed."""

    def __init__(
        self,
        sessions: Sessions,
        contexts: Contexts,
        session_id: str,
        elsewhere: Mapping[str, str],
        stack: contextlib.AsyncExitStack,
    ) -> None:
        """Make the inputs. `elsewhere`: which session has a folder, where it is not `session_id`."""
        self._sessions = sessions
        self._contexts = contexts
        self._session_id = session_id
        self._elsewhere = elsewhere
        self._stack = stack

    async def _session(self, name: str = "") -> ClientSession:
        return await self._sessions.find(self._elsewhere.get(name) or self._session_id)

    async def read_files(self, context: str, names: Sequence[str]) -> Mapping[str, bytes]:
        session = await self._session(context)
        files = SmallFiles(names, MAX_SMALL_FILE)
        await receive(session, options(context, follow=names), files)
        return files.found()

    async def tree(self, source: LocalSource, heard: Callable[[int], None] = lambda size: None) -> ContextTree:
        session = await self._session(source.context)
        what = options(source.context, include=source.include, exclude=source.exclude, follow=source.follow)
        lent = self._contexts.lend(session, source.context, what, heard)
        return ContextTree(await self._stack.enter_async_context(lent))

    async def secret(self, id: str) -> bytes | None:
        return await (await self._session()).secret(id)

    @contextlib.asynccontextmanager
    async def ssh(self, id: str) -> AsyncIterator[Path | None]:
        session = await self._session()
        if not await session.has_agent(id):
            yield None
            return
        raise NotImplementedHere("forwarding an SSH agent is not implemented")

    async def credentials(self, domain: str) -> Auth:
        username, secret = await (await self._session()).credentials(domain)
        return Auth(username=username, password=secret)

    def tell_plan(self, dockerfile: ParsedDockerfile, last: GraphNode) -> None:
        pass

    def tell_pull(self, step: Step) -> None:
        pass
