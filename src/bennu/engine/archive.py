"""Files in and out of a container (`docker cp`, `docker export`): tar streams through a process that has entered it."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.engine.chroot_tar import NOT_A_DIRECTORY, NOT_FOUND
from bennu.engine.container import Container
from bennu.engine.services import Services
from bennu.errors import BennuError, Forbidden, InvalidParameter, NotFound
from bennu.process import started

CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class PathStat:
    """What `docker cp` asks about a path first; `mode` in Go's notation, `link_target` as seen inside."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str


@contextlib.asynccontextmanager
async def _entered(services: Services, container: Container) -> AsyncIterator[Path]:
    """The container's root as its processes see it, or its root filesystem while it does not run."""
    if container.record.pid:
        yield Path(f"/proc/{container.record.pid}/root")
        return
    async with mounted(services, container) as rootfs:
        yield rootfs


@contextlib.asynccontextmanager
async def mounted(services: Services, container: Container) -> AsyncIterator[Path]:
    """Its root filesystem without what is mounted over it; unmounted again unless the container runs."""
    record = container.record
    image = services.images.by_id(record.image_id)
    async with container.lock:
        folder = services.folder(record.id)
        rootfs = await services.images.mount(image, folder)
        try:
            yield rootfs
        finally:
            if container.record.sandbox is None and not container.record.running:
                await services.images.unmount(folder)


def _helper(root: Path, verb: str, path: str) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """The helper process; killed and reaped when the block is left, however it is left."""
    argv: list[str | Path] = [sys.executable, "-m", "bennu.engine.chroot_tar", root, verb, path]
    return started(argv, stdin=asyncio.subprocess.PIPE if verb == "put" else None)


def _inside(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


async def _check(process: asyncio.subprocess.Process, container: Container, path: str) -> None:
    assert process.stderr
    reason = (await process.stderr.read()).decode(errors="replace").strip()
    match await process.wait():
        case 0:
            return
        case code if code == NOT_FOUND:
            raise NotFound(f"Could not find the file {path} in container {container.record.name}")
        case code if code == NOT_A_DIRECTORY:
            raise InvalidParameter("extraction point is not a directory")
        case _:
            raise BennuError(reason or "the archive could not be processed")


async def stat_path(services: Services, container: Container, path: str) -> PathStat:
    """Raises: NotFound."""
    async with _entered(services, container) as root, _helper(root, "stat", _inside(path)) as process:
        assert process.stdout
        text = await process.stdout.read()
        await _check(process, container, path)
    facts = json.loads(text)
    return PathStat(facts["name"], facts["size"], facts["mode"], facts["mtime_ns"], facts["linkTarget"])


async def read_archive(services: Services, container: Container, path: str) -> AsyncIterator[bytes]:
    """A tar of the path, in pieces. Raises: NotFound before the first piece, BennuError when it breaks off."""
    async with _entered(services, container) as root, _helper(root, "get", _inside(path)) as process:
        assert process.stdout
        while piece := await process.stdout.read(CHUNK):
            yield piece
        await _check(process, container, path)


async def export_rootfs(services: Services, container: Container) -> AsyncIterator[bytes]:
    """A tar of the root filesystem, without volumes and other mounts. Raises: BennuError when it breaks off."""
    async with mounted(services, container) as root, _helper(root, "export", "/") as process:
        assert process.stdout
        while piece := await process.stdout.read(CHUNK):
            yield piece
        await _check(process, container, "/")


async def write_archive(services: Services, container: Container, path: str, pieces: AsyncIterator[bytes]) -> None:
    """Unpack a tar at a folder of the container.

    Raises: NotFound, InvalidParameter (no folder), Forbidden (read-only), BennuError (a broken tar).
    """
    if container.record.host_config.readonly_rootfs:
        raise Forbidden("container rootfs is marked read-only")
    async with _entered(services, container) as root, _helper(root, "put", _inside(path)) as process:
        assert process.stdin
        with contextlib.suppress(ConnectionError):
            async for piece in pieces:
                process.stdin.write(piece)
                await process.stdin.drain()
            process.stdin.close()
        await _check(process, container, path)
