"""Files in and out of a container (`docker cp`, `docker export`, `docker diff`), through the confined helper."""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bennu.beneath import clean
from bennu.confined.client import HELPER, QUICK_S, Failure, Folder, Process, Session
from bennu.engine.container import Container
from bennu.engine.context import EngineContext
from bennu.engine.launch import make_bind_sources
from bennu.engine.mount_sources import mount_sources
from bennu.engine.record import Record
from bennu.errors import InvalidParameter, NotFound, Unavailable
from bennu.model import MountPoint
from bennu.pace import in_thread
from bennu.runtime import NotAlive

CHUNK: Final = 256 * 1024
READ_ONLY: Final = "container rootfs is marked read-only"


@dataclass(frozen=True, slots=True)
class PathStat:
    """The answer to `docker cp`'s first question on a path; `mode` in Go's notation, `link_target` as seen inside."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str


@contextlib.asynccontextmanager
async def _begun(
    services: EngineContext,
    container: Container,
    task: str,
    *,
    writable: bool = False,
    stored: bool = False,
    **more: Any,
) -> AsyncIterator[Session]:
    """Begin a task on the container's root as its processes see it, or as they would if it ran.

    With `stored`, the task sees the root filesystem alone, without the mounts over it. The container's lock is held
    only until the task has begun, because its duration depends on the client and on the contents of the files.
    """
    async with contextlib.AsyncExitStack() as ends:
        pidfd = -1 if stored else _open_process(services, container)
        if pidfd >= 0:
            ends.callback(os.close, pidfd)
            yield await ends.enter_async_context(HELPER.begin(task, Process(pidfd, writable), **more))
            return
        async with container.lock:
            copy = f"copy {secrets.token_hex(8)}"
            ends.push_async_callback(_unmount_unused, services, container, copy)
            record, container.is_new = container.record, False
            image = services.images.by_id(record.image_id)
            rootfs = await services.images.mount(image, services.folder(container.id))
            root = Folder(rootfs, writable and not record.host_config.readonly_rootfs)
            points = [] if stored else await _mount_volumes(services, record, copy)
            async with mount_sources(services, copy, points) as sources:
                mounts = [
                    Folder(source, writable and point.rw, point.destination)
                    for point, source in zip(points, sources, strict=True)
                ]
                session = await ends.enter_async_context(HELPER.begin(task, root, *mounts, **more))
        yield session


async def _mount_volumes(services: EngineContext, record: Record, copy: str) -> list[MountPoint]:
    """Mount a stopped container's volumes for this copy, and list them with its other mounts, parents first.

    Raises: BennuError, OSError.
    """
    points = [point for point in record.mounts if point.type != "tmpfs"]
    for point in points:
        if point.type == "volume":
            await services.volumes.mount(point.name, copy)
    if any(point.type == "bind" for point in points):
        await in_thread(partial(make_bind_sources, record))
    return sorted(points, key=lambda point: point.destination.rstrip("/").count("/"))


def _open_process(services: EngineContext, container: Container) -> int:
    """Open a pidfd of the container's process; -1 if it does not run or has just ended."""
    try:
        return services.runtime.bundles.open_process(container.id) if container.record.pid else -1
    except NotAlive:
        return -1


async def _unmount_unused(services: EngineContext, container: Container, copy: str) -> None:
    async with container.lock:
        if container.record.sandbox is None and not container.record.running:
            await services.images.unmount(services.folder(container.id))
    for point in container.record.mounts:
        if point.type == "volume":
            await services.volumes.unmount_unused(point.name, copy)


def _inside(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def is_below(path: str, folder: str) -> bool:
    return f"{clean(path)}/".startswith(f"{folder.rstrip('/')}/")


@contextlib.contextmanager
def _told_as_docker(container: Container, path: str, called: str) -> Iterator[None]:
    """Tell what goes wrong in dockerd's words; `called`: the container as the client named it."""
    try:
        yield
    except Failure as failure:
        if failure.kind == "missing":
            raise NotFound(
                f"Could not find the file {path} in container {called or container.record.name}"
            ) from failure
        if failure.errno == errno.EROFS:
            in_volume = any(is_below(path, point.destination) for point in container.record.mounts)
            raise InvalidParameter("mounted volume is marked read-only" if in_volume else READ_ONLY) from failure
        if failure.kind in ("not-a-folder", "invalid"):
            raise InvalidParameter(str(failure)) from failure
        raise
    except TimeoutError as error:
        raise Unavailable("the files of the container do not answer") from error
    except ProcessLookupError as error:
        raise NotAlive(f"container {container.record.name} has just ended") from error


async def stat_path(services: EngineContext, container: Container, path: str, called: str = "") -> PathStat:
    """Describe a path inside the container. Raises: NotFound."""
    with _told_as_docker(container, path, called):
        async with _begun(services, container, "stat", path=_inside(path)) as session, asyncio.timeout(QUICK_S):
            return PathStat(**await session.answer())


async def read_archive(
    services: EngineContext, container: Container, path: str, called: str = ""
) -> AsyncIterator[bytes]:
    """Stream a tar of the path, in pieces. Raises: NotFound before the first piece, BennuError when it breaks off."""
    with _told_as_docker(container, path, called):
        async with _begun(services, container, "pack", output=True, path=_inside(path)) as session:
            async for piece in _pieces(session):
                yield piece


async def export_rootfs(services: EngineContext, container: Container) -> AsyncIterator[bytes]:
    """Stream a tar of the root filesystem, without volumes and other mounts. Raises: BennuError when it breaks off."""
    async with _begun(services, container, "pack_root", stored=True, output=True) as session:
        async for piece in _pieces(session):
            yield piece


async def _pieces(session: Session) -> AsyncIterator[bytes]:
    assert session.output is not None
    while piece := await session.output.read(CHUNK):
        yield piece
    await session.result()


async def write_archive(
    services: EngineContext,
    container: Container,
    path: str,
    pieces: AsyncIterator[bytes],
    *,
    same_kind: bool = False,
    called: str = "",
) -> None:
    """Unpack a tar into a folder of the container.

    With `same_kind`, no folder is replaced by a file, nor the reverse. A mount that is read-only for a running
    container is read-only here as well. Raises: NotFound, InvalidParameter (no folder, a broken tar, read-only),
    BennuError.
    """
    with _told_as_docker(container, path, called):
        into = _inside(path)
        task = _begun(services, container, "unpack", writable=True, input=True, path=into, same_kind=same_kind)
        async with task as session:
            await session.feed(pieces)


async def find_changes(services: EngineContext, container: Container) -> list[tuple[str, int]]:
    """List the changes for `docker diff`: paths and kinds (0 modified, 1 added, 2 deleted), sorted by path."""
    images = services.images
    lowers = images.lowers(images.by_id(container.record.image_id))
    upper = services.folder(container.id) / "diff"
    if not upper.is_dir():
        return []
    trees = Folder(upper), Folder(images.layers.root)
    found = await HELPER.ask("changes", *trees, enter=False, limit_s=None, lowers=lowers)
    return [(path, kind) for path, kind in found]
