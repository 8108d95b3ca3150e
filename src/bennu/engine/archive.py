"""Files in and out of a container (`docker cp`, `docker export`, `docker diff`), through the confined helper."""

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.beneath import clean
from bennu.confined.client import HELPER, Failure, Folder, Process, Session, Tree
from bennu.engine.container import Container
from bennu.engine.services import Services
from bennu.errors import InvalidParameter, NotFound
from bennu.runtime import NotAlive

CHUNK: Final = 256 * 1024
READ_ONLY: Final = "container rootfs is marked read-only"


@dataclass(frozen=True, slots=True)
class PathStat:
    """What `docker cp` asks about a path first; `mode` in Go's notation, `link_target` as seen inside."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str


@contextlib.asynccontextmanager
async def _entered(services: Services, container: Container, *, writable: bool = False) -> AsyncIterator[Tree]:
    """The container's root as its processes see it, or its root filesystem while it does not run."""
    try:
        pidfd = services.runtime.open_process(container.id) if container.record.pid else -1
    except NotAlive:
        pidfd = -1  # it has just ended
    if pidfd >= 0:
        try:
            yield Process(pidfd, writable)
        finally:
            os.close(pidfd)
        return
    async with mounted(services, container) as rootfs:
        yield Folder(rootfs, writable)


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


def _inside(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def is_below(path: str, folder: str) -> bool:
    return f"{clean(path)}/".startswith(f"{folder.rstrip('/')}/")


@contextlib.contextmanager
def _told_as_docker(container: Container, path: str) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        if failure.kind == "missing":
            raise NotFound(f"Could not find the file {path} in container {container.record.name}") from failure
        if failure.errno == errno.EROFS:
            in_volume = any(is_below(path, point.destination) for point in container.record.mounts)
            raise InvalidParameter("mounted volume is marked read-only" if in_volume else READ_ONLY) from failure
        if failure.kind in ("not-a-folder", "invalid"):
            raise InvalidParameter(str(failure)) from failure
        raise
    except ProcessLookupError as error:
        raise NotAlive(f"container {container.record.name} has just ended") from error


async def stat_path(services: Services, container: Container, path: str) -> PathStat:
    """Raises: NotFound."""
    with _told_as_docker(container, path):
        async with _entered(services, container) as tree:
            return PathStat(**await HELPER.ask("stat", tree, path=_inside(path)))


async def read_archive(services: Services, container: Container, path: str) -> AsyncIterator[bytes]:
    """A tar of the path, in pieces. Raises: NotFound before the first piece, BennuError when it breaks off."""
    with _told_as_docker(container, path):
        async with (
            _entered(services, container) as tree,
            HELPER.begin("pack", tree, output=True, path=_inside(path)) as session,
        ):
            async for piece in _pieces(session):
                yield piece


async def export_rootfs(services: Services, container: Container) -> AsyncIterator[bytes]:
    """A tar of the root filesystem, without volumes and other mounts. Raises: BennuError when it breaks off."""
    async with (
        mounted(services, container) as rootfs,
        HELPER.begin("pack_root", Folder(rootfs), output=True) as session,
    ):
        async for piece in _pieces(session):
            yield piece


async def _pieces(session: Session) -> AsyncIterator[bytes]:
    assert session.output is not None
    while piece := await session.output.read(CHUNK):
        yield piece
    await session.result()


async def write_archive(
    services: Services, container: Container, path: str, pieces: AsyncIterator[bytes], *, same_kind: bool = False
) -> None:
    """Unpack a tar at a folder of the container; `same_kind`: no folder is replaced by a file, nor the reverse.

    What a container that runs cannot write to is read-only here as well, by its own mounts.
    Raises: NotFound, InvalidParameter (no folder, a broken tar, read-only), BennuError.
    """
    with _told_as_docker(container, path):
        async with _entered(services, container, writable=True) as tree:
            if isinstance(tree, Folder) and container.record.host_config.readonly_rootfs:
                raise InvalidParameter(READ_ONLY)
            task = HELPER.begin("unpack", tree, input=True, path=_inside(path), same_kind=same_kind)
            async with task as session:
                await session.feed(pieces)


async def find_changes(services: Services, container: Container) -> list[tuple[str, int]]:
    """`docker diff`: paths and kinds (0 modified, 1 added, 2 deleted) in order of the paths."""
    layers = services.images.layers
    image = services.images.by_id(container.record.image_id)
    lowers = [layers.lower_of(diff_id) for diff_id in reversed(image.diff_ids)]
    upper = services.folder(container.id) / "diff"
    if not upper.is_dir():
        return []
    trees = Folder(upper), Folder(layers.root)
    found = await HELPER.ask("changes", *trees, enter=False, limit_s=None, lowers=lowers)
    return [(path, kind) for path, kind in found]
