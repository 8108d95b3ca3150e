"""What a container has changed: for `docker diff`, and for the layer of `docker commit`.

The writable layer is /0, in which a character device 0/0 hides what is below; the image's layers are below /1.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.confined.tree import printable, walk

UPPER: Final = "/0"
MODIFIED: Final = 0
ADDED: Final = 1
DELETED: Final = 2
# What is laid over or put into each root at its start is no change of the container's: dockerd has it in a layer below.
FURNITURE: Final = frozenset(
    (
        ".dockerenv",
        "etc/hostname",
        "etc/hosts",
        "etc/resolv.conf",
        "dev",
        "dev/console",
        "dev/pts",
        "dev/shm",
        "proc",
        "sys",
    )
)


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One entry of the writable layer. `place` reaches it until the next is asked for."""

    path: str
    place: str
    found: os.stat_result
    kind: int


def find_changes(lowers: Sequence[str]) -> list[tuple[str, int]]:
    """List for `docker diff` paths and kinds (0 modified, 1 added, 2 deleted) in order of the paths."""
    return sorted((printable(f"/{change.path}"), change.kind) for change in changes(lowers))


def changes(lowers: Sequence[str]) -> Iterator[LayerChange]:
    """Iterate over what was changed, a folder before its contents. `lowers`: of the image, topmost first."""
    below = [f"/1/{lower}" for lower in lowers]
    furnished: list[LayerChange] = []  # folders that only count if something in them does
    for path, place, found in walk(UPPER):
        while furnished and not path.startswith(f"{furnished[-1].path}/"):
            furnished.pop()
        change = LayerChange(path, place, found, DELETED)
        if not is_whiteout(found):
            seen_below = _find_below(path, below)
            change = LayerChange(path, place, found, MODIFIED if seen_below else ADDED)
            if _is_furnished(path, found, seen_below):
                if stat.S_ISDIR(found.st_mode):
                    furnished.append(LayerChange(path, f"{UPPER}/{path}", found, change.kind))
                continue
        yield from furnished
        furnished = []
        yield change


def _is_furnished(path: str, found: os.stat_result, below: os.stat_result | None) -> bool:
    """Tell whether the engine put it there, or copied the image's own folder up to put something into it."""
    if path in FURNITURE:
        return stat.S_ISDIR(found.st_mode) or found.st_size == 0
    holds = any(name.startswith(f"{path}/") for name in FURNITURE)
    return holds and (below is None or _owned(found) == _owned(below))


def _owned(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mode, found.st_uid, found.st_gid


def _find_below(path: str, lowers: Sequence[str]) -> os.stat_result | None:
    """Look up what the image has there: the topmost layer that says anything of the path decides."""
    for lower in lowers:
        try:
            found = os.lstat(f"{lower}/{path}")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                continue
            raise
        return None if is_whiteout(found) else found
    return None


def is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
