"""What a client lends to its build by its session. Implements `BuildInputs`."""

import asyncio
import contextlib
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bennu.build.dockerfile.parse import ParsedDockerfile
from bennu.build.graph import GraphNode, LocalSource, digests
from bennu.build.request import CONTEXT, DOCKERFILE, ContextTree
from bennu.build.usage import LOCAL, UsageRecord
from bennu.build.vertices import Progress, VertexStatus
from bennu.build.wire.agents import forward_agent
from bennu.build.wire.contexts import Contexts, unpack_upload
from bennu.build.wire.diffcopy import SmallFiles, options, receive
from bennu.build.wire.session import ClientSession, Sessions
from bennu.confined.client import HELPER, OUR_FAULT, Failure, Folder, measure_tree
from bennu.errors import Conflict, InvalidParameter
from bennu.images.pulling import Step
from bennu.images.reference import Reference
from bennu.images.registry.logins import Auth, login_for

MAX_SMALL_FILE: Final = 4 << 20
SHOW_EVERY_NS: Final = 100_000_000
UPLOADS: Final = "http://buildkit-session/"  # what clients call a context that they send as a tar
USUAL_NAME: Final = "Dockerfile"


@dataclass(slots=True)
class SessionInputs:
    """The things of one build.

    session_id: "" if there is none. elsewhere: which session has a folder, where it is not that. work: a folder of the
    build's own. stack: closed when the build ends. bring: makes `context` in the folder it is given, where the context
    comes as a tar. logins: those that came another way than by the session.
    """

    sessions: Sessions
    contexts: Contexts
    session_id: str
    progress: Progress
    work: Path
    stack: contextlib.AsyncExitStack
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    bring: Callable[[Path], Awaitable[None]] | None = None
    logins: Mapping[str, Auth] = field(default_factory=dict)
    dockerfile: tuple[str, bytes] = ("", b"")  # the one that was read last
    _unpacking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _read: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    _agents: int = 0

    async def _session(self, name: str = "") -> ClientSession:
        return await self.sessions.find(self.elsewhere.get(name) or self.session_id)

    # --- files --------------------------------------------------------------------------------------------------

    async def read_files(self, context: str, names: Sequence[str]) -> Mapping[str, bytes]:
        """Read small files of a context; those of a Dockerfile are fetched together, as BuildKit does."""
        if self.bring and context in (CONTEXT, DOCKERFILE):
            return await self._read_upload(names)
        missing = [name for name in names if (context, name) not in self._read]
        if missing:
            asked = [*missing, *(more for name in missing if context == DOCKERFILE for more in beside(name))]
            files = SmallFiles(asked, MAX_SMALL_FILE)
            await receive(await self._session(context), options(context, follow=asked), files)
            found = files.found()
            self._read |= {(context, name): found.get(name) for name in asked}
            for name in missing:
                if posixpath.basename(name) == USUAL_NAME and name not in found:
                    self._read[context, name] = found.get(_lower(name))
        answer = {name: data for name in names if (data := self._read[context, name]) is not None}
        self._note(context, answer)
        return answer

    def _note(self, context: str, found: Mapping[str, bytes]) -> None:
        for name, data in found.items():
            if context == DOCKERFILE and not name.endswith(".dockerignore"):
                self.dockerfile = (name, data)

    async def _read_upload(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read files of a context that came as a tar: nothing in it is left out by an ignore file."""
        tree = await self._unpacked()
        found: dict[str, bytes] = {}
        for name in (name for name in names if not name.endswith(".dockerignore")):
            try:
                read = await HELPER.ask("read", Folder(tree), path=f"/{name}", limit=MAX_SMALL_FILE)
            except Failure as failure:
                if failure.kind in OUR_FAULT:
                    raise
                continue
            if read["longer"]:
                raise InvalidParameter(f"the file {name} is too large")
            found[name] = read["text"].encode()
        self._note(DOCKERFILE, found)
        return found

    async def _unpacked(self) -> Path:
        async with self._unpacking:
            tree = self.work / "context"
            if not tree.exists():
                assert self.bring is not None
                await self.bring(self.work)
            return tree

    async def pull_upload(self, path: str, work: Path) -> None:
        """Have the client's session bring a tar, as `work/context`. Raises: BennuError; SessionGone."""
        await unpack_upload(await self._session(CONTEXT), path, work)

    async def tree(self, source: LocalSource) -> ContextTree:
        if self.bring and source.context in (CONTEXT, DOCKERFILE):
            return ContextTree(await self._unpacked())
        session = await self._session(source.context)
        what = options(source.context, include=source.include, exclude=source.exclude, follow=source.follow)
        shown = Transferring(self.progress, digests(source)[source], f"transferring {source.context}:")
        lent = self.contexts.lend(session, source.context, what, shown.hear)
        tree = await self.stack.enter_async_context(lent)
        shown.end()
        return tree

    # --- secrets ------------------------------------------------------------------------------------------------

    async def secret(self, id: str) -> bytes | None:
        return await (await self._session()).secret(id) if self.session_id else None

    @contextlib.asynccontextmanager
    async def ssh(self, id: str) -> AsyncIterator[Path | None]:
        session = await self._session() if self.session_id else None
        if session is None or not await session.has_agent(id):
            yield None
            return
        self._agents += 1
        async with forward_agent(session, id, self.work, f"agent-{self._agents}") as socket:
            yield socket

    async def credentials(self, domain: str) -> Auth:
        if not self.session_id:
            return login_for(Reference(domain, ""), self.logins)
        username, secret = await (await self._session()).credentials(domain)
        return Auth(identitytoken=secret) if secret and not username else Auth(username=username, password=secret)

    def tell_plan(self, dockerfile: ParsedDockerfile, last: GraphNode) -> None:
        pass

    def tell_pull(self, step: Step) -> None:
        pass


class ContextShelf:
    """The contexts that are kept, as the build cache counts and prunes them."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    async def usage(self) -> Sequence[UsageRecord]:
        return [
            UsageRecord(
                id=kept.key,
                description="local source for context",
                kind=LOCAL,
                size=await measure_tree(kept.folder),
                created_ns=kept.used_ns,
                used_ns=kept.used_ns,
                in_use=kept.busy,
                mutable=True,
            )
            for kept in self._contexts.kept()
        ]

    async def remove(self, id: str) -> None:
        if not await self._contexts.drop(id):
            raise Conflict(f"the context {id} is in use")


def beside(name: str) -> list[str]:
    """List what is read together with a Dockerfile: its own ignore file, and its name in lower case."""
    if name.endswith(".dockerignore"):
        return []
    return [f"{name}.dockerignore", *([_lower(name)] if posixpath.basename(name) == USUAL_NAME else [])]


def _lower(name: str) -> str:
    return posixpath.join(posixpath.dirname(name), posixpath.basename(name).lower())


class Transferring:
    """Tells how much of a context has come, now and then."""

    def __init__(self, progress: Progress, vertex: str, name: str) -> None:
        self._progress = progress
        self._vertex = vertex
        self._name = name
        self._begun_ns = self._told_ns = time.time_ns()
        self._size = 0

    def hear(self, size: int) -> None:
        self._size += size
        if time.time_ns() - self._told_ns >= SHOW_EVERY_NS:
            self._tell(None)

    def end(self) -> None:
        self._tell(time.time_ns())

    def _tell(self, done_ns: int | None) -> None:
        self._told_ns = now = time.time_ns()
        told = VertexStatus(self._name, self._vertex, self._name, self._size, 0, now, self._begun_ns, done_ns)
        self._progress.status(told)
