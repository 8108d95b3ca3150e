"""Mounts a part of a volume at a place of ours, without ever leaving the volume.

Who uses a volume may make links in it and change them at any time. So the kernel opens the part beneath the volume's
root in one call, and what was opened is what is mounted: no path is looked up a second time.
"""

import errno
import os
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from bennu.errors import BennuError, InvalidParameter, NotFound
from bennu.kernel.libc import MS_BIND, mount, open_beneath

TRIES: Final = 100  # while somebody keeps renaming folders in the volume


def mount_beneath(base: Path, subpath: str, place: Path) -> None:
    """Mount what `subpath` is below `base` at `place`, which is made as what it is: a folder or a file. Blocks.

    Raises: NotFound, InvalidParameter with dockerd's words; BennuError.
    """
    root = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = _open(root, base, subpath)
    finally:
        os.close(root)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if S_ISDIR(os.fstat(found).st_mode):
            place.mkdir(mode=0o700)
        else:
            place.touch(mode=0o600)
        mount(f"/proc/self/fd/{found}", place, "none", flags=MS_BIND)
    except OSError as error:
        raise BennuError(f"failed to mount {base}/{subpath}: {os.strerror(error.errno or 0).lower()}") from error
    finally:
        os.close(found)


def _open(root: int, base: Path, subpath: str) -> int:
    for _ in range(TRIES):
        try:
            return open_beneath(root, subpath)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise InvalidParameter(
                    f"path concatenation escapes the base directory, base: {base}, subpath: {subpath}"
                ) from error
            if error.errno != errno.EAGAIN:
                what = os.strerror(error.errno or 0).lower()
                raise NotFound(f"cannot access path {base}/{subpath}: lstat {base}/{subpath}: {what}") from error
    raise BennuError(f"cannot access path {base}/{subpath}: its folders are being renamed")
