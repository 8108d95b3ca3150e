"""Files that are whole or not there."""

import itertools
import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and sync it; its name is on the disk once `sync_folder` was called for its folder."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file: after the death of any process it is the old or the new one, whole. Mode 0600.

    There is no sync: after a power failure it may be either, or empty.
    """
    draft = path.with_name(path.name + ".draft")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(data)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def set_aside(path: Path, folder: Path) -> Path:
    """Move what nobody knows any more out of the way, on the same file system; where it is now."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = folder / path.name
    for number in itertools.count(1):
        if not os.path.lexists(place):
            break
        place = folder / f"{path.name}.{number}"
    path.rename(place)
    return place
