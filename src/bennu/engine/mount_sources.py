"""What the runtime is to mount where it is not a path of this host as it stands: part of a volume, or an image.

Each such source is mounted at a place of ours, only until the runtime has made the container, which then holds it by
its own mount. A part of a volume is opened by the kernel beneath the volume's root (`bennu.volumes.subpath`), so that
nobody who can write to the volume leads us out of it, at whatever instant.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from bennu.beneath import entry_of
from bennu.engine.context import EngineContext
from bennu.kernel.libc import unmount
from bennu.model import MountPoint
from bennu.pace import in_thread
from bennu.volumes.subpath import mount_beneath

PLACES: Final = "sources"


@contextlib.asynccontextmanager
async def mount_sources(services: EngineContext, key: str, points: Sequence[MountPoint]) -> AsyncIterator[list[Path]]:
    """Give the path of each mount point's source, good for the block. `key`: the name of one user of them.

    The volumes are mounted already: a plugin may have its own at another place each time. What an earlier user of
    that name left is cleared first. Raises: NotFound, InvalidParameter for a part that is not there or leads out;
    BennuError.
    """
    if not any(map(_needs_place, points)):
        yield [_base_of(services, point) for point in points]
        return
    folder = entry_of(services.exec_root / PLACES, key)
    try:
        await asyncio.to_thread(_clear, folder)
        yield [await _source_of(services, point, folder / str(number)) for number, point in enumerate(points)]
    finally:
        await asyncio.shield(asyncio.to_thread(_clear, folder))


def clear_sources(exec_root: Path) -> None:
    """Unmount what a former daemon had mounted for the runtime when it died. Blocks for a moment."""
    root = exec_root / PLACES
    for folder in root.iterdir() if root.exists() else ():
        _clear(folder)


def subpath_of(point: MountPoint) -> str:
    """Answer the part of a volume or an image that is asked for; "": all of it."""
    spec = point.spec
    options = (spec.volume_options or spec.image_options) if spec else None
    return options.subpath if options is not None else ""


def _base_of(services: EngineContext, point: MountPoint) -> Path:
    is_plugins = point.type == "volume" and point.driver != "local"
    return Path(services.volumes.find(point.name).mountpoint if is_plugins else point.source)


def _needs_place(point: MountPoint) -> bool:
    return point.type == "image" or bool(subpath_of(point))


async def _source_of(services: EngineContext, point: MountPoint, place: Path) -> Path:
    if not _needs_place(point):
        return _base_of(services, point)
    base, subpath = _base_of(services, point), subpath_of(point)
    if point.type == "image":
        base = place.with_suffix(".image") if subpath else place
        await services.images.mount_read_only(services.images.by_id(point.source), base)
    if subpath:
        await in_thread(lambda: mount_beneath(base, subpath, place))
    return place


def _clear(folder: Path) -> None:
    """Unmount and remove the places of one user. Never deletes what is in a mount."""
    if not folder.exists():
        return
    for place in sorted(folder.iterdir()):
        with contextlib.suppress(OSError):  # it is no mount
            unmount(place)
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()
    folder.rmdir()
