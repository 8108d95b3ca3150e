"""What a request of the classic endpoint lends to its build: a context that comes as a tar, and logins."""

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bennu.beneath import clean
from bennu.build.dockerfile.parse import ParsedDockerfile
from bennu.build.graph import GraphNode, LocalSource
from bennu.build.request import CONTEXT, ContextTree
from bennu.confined.client import HELPER, OUR_FAULT, Failure, Folder
from bennu.errors import InvalidParameter
from bennu.images.dockerignore import is_ignored
from bennu.images.layers import Layers, unpacking
from bennu.images.pulling import Step
from bennu.images.reference import HUB
from bennu.images.registry.logins import HUB_KEY, Auth
from bennu.kernel.libc import open_beneath

MAX_FILE: Final = 4 << 20
IGNORE_FILE: Final = ".dockerignore"


class ClassicInputs:
    """Made for one request; `work` is a folder of the caller's, which goes with the build."""

    def __init__(
        self,
        layers: Layers,
        context: AsyncIterable[bytes],
        logins: Mapping[str, Auth],
        work: Path,
        hear_plan: Callable[[ParsedDockerfile, GraphNode], None],
        hear_pull: Callable[[Step], None],
    ) -> None:
        self._layers = layers
        self._context = context
        self._logins = logins
        self._folder = work / "context"
        self._unpacking = asyncio.Lock()
        self._is_there = False
        self._hear_plan = hear_plan
        self._hear_pull = hear_pull

    async def _unpack(self) -> None:
        async with self._unpacking:
            if not self._is_there:
                await asyncio.to_thread(self._folder.mkdir)
                draft = await self._layers.receive(self._context)
                try:
                    with await asyncio.to_thread(draft.path.open, "rb") as source, unpacking():
                        tree = Folder(self._folder, writable=True)
                        async with HELPER.begin("unpack_tree", tree, input=source.fileno()) as session:
                            await session.result()
                finally:
                    draft.path.unlink(missing_ok=True)
                self._is_there = True

    async def read_files(self, context: str, names: Sequence[str]) -> Mapping[str, bytes]:
        """Read files of the context. What it is to leave out, its client has left out already."""
        await self._unpack()
        found: dict[str, bytes] = {}
        for name in names:
            if name.endswith(IGNORE_FILE):
                continue
            text = await _read(self._folder, name)
            if text is None:
                raise InvalidParameter(f"Cannot locate specified Dockerfile: {name}")
            if not text:
                raise InvalidParameter(f"the Dockerfile ({name}) cannot be empty")
            found[name] = text
            await self._leave_out(name)
        return found

    async def _leave_out(self, dockerfile: str) -> None:
        """Remove the ignore file and the Dockerfile where the former names them: clients send both all the same."""
        ignore = await _read(self._folder, IGNORE_FILE)
        if ignore is not None:
            text = ignore.decode(errors="replace")
            named = [one for one in (IGNORE_FILE, clean(dockerfile)[1:]) if is_ignored(text, one)]
            await asyncio.to_thread(_unlink_beneath, self._folder, named)

    async def tree(self, source: LocalSource) -> ContextTree:
        if source.context != CONTEXT:
            raise InvalidParameter(f"there is no context named {source.context}")
        await self._unpack()
        return ContextTree(self._folder)

    async def secret(self, id: str) -> bytes | None:
        return None

    @contextlib.asynccontextmanager
    async def ssh(self, id: str) -> AsyncIterator[Path | None]:
        yield None

    async def credentials(self, domain: str) -> Auth:
        keys = (HUB_KEY, HUB) if domain == HUB else (domain,)
        return next((self._logins[key] for key in keys if key in self._logins), Auth())

    def tell_plan(self, dockerfile: ParsedDockerfile, last: GraphNode) -> None:
        self._hear_plan(dockerfile, last)

    def tell_pull(self, step: Step) -> None:
        self._hear_pull(step)


async def _read(folder: Path, name: str) -> bytes | None:
    """Read a file of a context; links lead nowhere outside of it. None: there is none. Raises: InvalidParameter."""
    try:
        read = await HELPER.ask("read", Folder(folder), path=f"/{name}", limit=MAX_FILE)
    except Failure as failure:
        if failure.kind in OUR_FAULT:
            raise
        return None
    if read["longer"]:
        raise InvalidParameter(f"the file {name} is too large")
    text: str = read["text"]
    return text.encode()


def _unlink_beneath(folder: Path, paths: Sequence[str]) -> None:
    """Remove files of a context, whose links lead nowhere outside of it. Blocking."""
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            head, name = posixpath.split(path)
            with contextlib.suppress(OSError):  # what cannot be reached is not of the context
                place = open_beneath(root, head or ".")
                try:
                    os.unlink(name, dir_fd=place)
                finally:
                    os.close(place)
    finally:
        os.close(root)
