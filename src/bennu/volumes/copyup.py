"""Filling a new volume with what the image has at its place."""

import os
import shutil
import stat
from pathlib import Path, PurePosixPath


def copy_up(rootfs: Path, target: str, volume: Path) -> None:
    """Copy the folder `target` of `rootfs` into the empty `volume`, with owners, modes, times, links and xattrs.

    A path of the image that leads through a symbolic link is not followed: nothing outside of `rootfs` is read.
    Raises: OSError.
    """
    source = rootfs
    for part in PurePosixPath(target).parts[1:]:
        source = source / part
        if source.is_symlink():
            return
    if not source.is_dir():
        return
    _copy_folder(source, volume, {})


def _copy_folder(source: Path, target: Path, linked: dict[tuple[int, int], Path]) -> None:
    for entry in os.scandir(source):
        found = entry.stat(follow_symlinks=False)
        copy = target / entry.name
        known = linked.get((found.st_dev, found.st_ino))
        if known is not None and not entry.is_dir(follow_symlinks=False):
            copy.hardlink_to(known)
            continue
        _copy_entry(Path(entry.path), copy, found, linked)
        if found.st_nlink > 1:
            linked[found.st_dev, found.st_ino] = copy
    shutil.copystat(source, target)
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)


def _copy_entry(source: Path, copy: Path, found: os.stat_result, linked: dict[tuple[int, int], Path]) -> None:
    if stat.S_ISDIR(found.st_mode):
        copy.mkdir()
        _copy_folder(source, copy, linked)
        return
    if stat.S_ISLNK(found.st_mode):
        copy.symlink_to(source.readlink())
    elif stat.S_ISREG(found.st_mode):
        shutil.copyfile(source, copy, follow_symlinks=False)
    else:
        os.mknod(copy, found.st_mode, found.st_rdev)
    os.chown(copy, found.st_uid, found.st_gid, follow_symlinks=False)
    shutil.copystat(source, copy, follow_symlinks=False)
