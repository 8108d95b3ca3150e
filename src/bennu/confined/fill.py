"""Filling a new volume with what the image has at its place: the image's root is /0, the volume /1.

Whoever uses the volume may put links in the way. They lead nowhere but into the volume or the image, and the image
cannot be written to.
"""

import contextlib
import os
import shutil
import stat
from typing import Any, Final

from bennu.confined.tree import open_file, resolve, walk

VOLUME: Final = "/1"
UNFINISHED: Final = f"{VOLUME}/.bennu-filling"  # each entry is made under this name, and linked when it is whole


def fill(target: str, *, again: bool) -> bool:
    """Copy what is in the image's folder `target` into the volume; answers whether there was such a folder.

    With owners, modes, times, links and extended attributes, and the looks of the folder itself. Links are followed
    inside the image only. The volume's folder stays the one it is, for it may be in use. A volume that holds anything
    is left alone; `again`: a former attempt was cut short, what is missing is added. A failure leaves the volume as it
    was. Raises: OSError.
    """
    source = resolve("/0", target)
    if source is None or not stat.S_ISDIR(os.lstat(os.path.join("/0", source)).st_mode):
        return False
    with contextlib.suppress(FileNotFoundError):
        os.unlink(UNFINISHED)
    if os.listdir(VOLUME) and not again:
        return False
    copier = Copier(os.path.join("/0", source))
    try:
        copier.copy()
    except BaseException:
        copier.undo()
        raise
    return True


class Copier:
    def __init__(self, source: str) -> None:
        self._source = source
        self._linked: dict[tuple[int, int], str] = {}
        self._made: list[tuple[str, os.stat_result]] = []

    def copy(self) -> None:
        for name, entry, found in walk(self._source):
            with contextlib.suppress(FileExistsError, NotADirectoryError):  # somebody else's is there, and stays
                self._copy_entry(entry, os.path.join(VOLUME, name), found)
                self._made.append((name, found))
        for name, found in reversed(self._made):  # a folder's times change while it is filled
            if stat.S_ISDIR(found.st_mode):
                self._dress_folder(name, found)
        self._dress_folder("", os.lstat(self._source))

    def _dress_folder(self, name: str, found: os.stat_result) -> None:
        folder = os.open(os.path.join(VOLUME, name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            dress(os.path.join(self._source, name), folder, found)
        finally:
            os.close(folder)

    def undo(self) -> None:
        for name, found in reversed(self._made):
            remove = os.rmdir if stat.S_ISDIR(found.st_mode) else os.unlink
            with contextlib.suppress(OSError):
                remove(os.path.join(VOLUME, name))
        with contextlib.suppress(OSError):
            os.unlink(UNFINISHED)

    def _copy_entry(self, source: str, copy: str, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(copy, 0o700)
            return
        twin = self._linked.get((found.st_dev, found.st_ino))
        if twin is not None:
            os.link(twin, copy, follow_symlinks=False)
            return
        create(source, found)
        try:
            os.link(UNFINISHED, copy, follow_symlinks=False)
        finally:
            os.unlink(UNFINISHED)
        self._linked[found.st_dev, found.st_ino] = copy


def create(source: str, found: os.stat_result) -> None:
    """Make UNFINISHED the same as `source`."""
    if stat.S_ISREG(found.st_mode):
        made = os.open(UNFINISHED, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(made, "wb") as copy, open(open_file(source), "rb") as file:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            dress(source, made, found)
        return
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), UNFINISHED)
    else:
        os.mknod(UNFINISHED, found.st_mode, found.st_rdev)
    dress(source, UNFINISHED, found)


def dress(source: str, copy: str | int, found: os.stat_result) -> None:
    """Set owner, mode, extended attributes, times, in this order: a change of owner takes set-user-id bits away.

    A file or folder is given by its descriptor: its name may be somebody else's link by now.
    """
    at: Any = {} if isinstance(copy, int) else {"follow_symlinks": False}
    os.chown(copy, found.st_uid, found.st_gid, **at)
    if isinstance(copy, int):
        os.chmod(copy, stat.S_IMODE(found.st_mode))
    for attribute in os.listxattr(source, follow_symlinks=False):
        if not attribute.startswith(("trusted.overlay.", "user.overlay.")):
            with contextlib.suppress(OSError):  # a file system without them: the file is still the file
                os.setxattr(copy, attribute, os.getxattr(source, attribute, follow_symlinks=False), **at)
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns), **at)
