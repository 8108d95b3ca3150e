"""`docker diff`: what a container has written over its image, read off the overlay's writable layer."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

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


def read_changes(upper: Path, lowers: Sequence[Path]) -> list[tuple[str, int]]:
    """Paths and kinds (0 modified, 1 added, 2 deleted) in order of the paths. Blocks.

    Args:
        upper: the writable layer; a character device 0/0 in it hides what is below.
        lowers: the image's layers, topmost first.
    """
    if not upper.is_dir():
        return []
    return sorted(_walk(upper, "", lowers))


def _walk(upper: Path, folder: str, lowers: Sequence[Path]) -> Iterator[tuple[str, int]]:
    for entry in os.scandir(upper / folder):
        path = f"{folder}/{entry.name}".lstrip("/")
        found = entry.stat(follow_symlinks=False)
        if _is_whiteout(found):
            yield f"/{path}", DELETED
            continue
        inside = list(_walk(upper, path, lowers)) if stat.S_ISDIR(found.st_mode) else []
        below = _find_below(path, lowers)
        if inside or not _is_furnished(path, found, below):
            yield f"/{path}", MODIFIED if below else ADDED
        yield from inside


def _is_furnished(path: str, found: os.stat_result, below: os.stat_result | None) -> bool:
    """Whether the engine put it there, or brought the image's own folder up to put something into it."""
    if path in FURNITURE:
        return stat.S_ISDIR(found.st_mode) or found.st_size == 0
    holds = any(name.startswith(f"{path}/") for name in FURNITURE)
    return holds and (below is None or _owned(found) == _owned(below))


def _owned(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mode, found.st_uid, found.st_gid


def _find_below(path: str, lowers: Sequence[Path]) -> os.stat_result | None:
    """What the image has there: the topmost layer that says anything of the path decides."""
    for lower in lowers:
        try:
            found = (lower / path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return None if _is_whiteout(found) else found
    return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
