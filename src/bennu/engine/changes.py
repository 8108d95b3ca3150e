"""`docker diff`: what a container has written over its image, read off the overlay's writable layer."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

MODIFIED: Final = 0
ADDED: Final = 1
DELETED: Final = 2


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
        if _is_whiteout(entry.stat(follow_symlinks=False)):
            yield f"/{path}", DELETED
            continue
        yield f"/{path}", MODIFIED if _is_below(path, lowers) else ADDED
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(upper, path, lowers)


def _is_below(path: str, lowers: Sequence[Path]) -> bool:
    """Whether the image has it: the topmost layer that says anything of the path decides."""
    for lower in lowers:
        try:
            found = (lower / path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return not _is_whiteout(found)
    return False


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
