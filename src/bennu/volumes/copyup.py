"""Filling a new volume with what the image has at its place."""

import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import Final

FILLING: Final = ".filling"  # beside the volume's data: what is not yet all there
MAX_LINKS: Final = 40  # the kernel's limit


def copy_up(rootfs: Path, target: str, volume: Path) -> None:
    """Copy the folder `target` of `rootfs` into `volume`, if that is empty, with owners, modes, times, links, xattrs.

    All or nothing: the copy is made beside the volume and then takes its place (a volume that is a mount point is
    filled directly). Links are followed inside `rootfs` only, so nothing else is read. Nobody writes to `rootfs`
    meanwhile. Raises: OSError.
    """
    source = find_inside(rootfs, target)
    if source is None or not stat.S_ISDIR(source.lstat().st_mode) or any(volume.iterdir()):
        return
    if volume.stat().st_dev != volume.parent.stat().st_dev or os.path.ismount(volume):
        copy_folder(source, volume)
        return
    filling = volume.with_name(FILLING)
    shutil.rmtree(filling, ignore_errors=True)
    try:
        filling.mkdir()
        copy_folder(source, filling)
        filling.rename(volume)  # takes the place of an empty folder in one step
    finally:
        shutil.rmtree(filling, ignore_errors=True)


def find_inside(rootfs: Path, target: str) -> Path | None:
    """Where `target` leads for somebody whose root is `rootfs`; None if nowhere."""
    place: list[str] = []
    ahead = list(reversed(PurePosixPath("/", target).parts[1:]))
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            place = place[:-1]
            continue
        path = rootfs.joinpath(*place, part)
        if not path.is_symlink():
            if not path.exists():
                return None
            place.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        leads = PurePosixPath(path.readlink())
        if leads.is_absolute():
            place = []
        ahead += reversed([step for step in leads.parts if step != "/"])
    return rootfs.joinpath(*place)


def copy_folder(source: Path, target: Path) -> None:
    """Copy what is in `source` into the folder `target`, and the looks of `source` itself. Raises: OSError."""
    linked: dict[tuple[int, int], Path] = {}
    folders = [(source, target)]
    for folder, copy in folders:  # grows while we walk
        for entry in os.scandir(folder):
            _copy_entry(Path(entry.path), copy / entry.name, linked, folders)
    for folder, copy in reversed(folders):  # a folder's times change while it is filled
        _copy_looks(folder, copy, folder.stat())


def _copy_entry(
    source: Path, copy: Path, linked: dict[tuple[int, int], Path], folders: list[tuple[Path, Path]]
) -> None:
    found = source.lstat()
    if stat.S_ISDIR(found.st_mode):
        copy.mkdir(mode=0o700)
        folders.append((source, copy))
        return
    twin = linked.setdefault((found.st_dev, found.st_ino), copy)
    if twin != copy:
        copy.hardlink_to(twin)
        return
    if stat.S_ISLNK(found.st_mode):
        copy.symlink_to(source.readlink())
    elif stat.S_ISREG(found.st_mode):
        shutil.copyfile(source, copy, follow_symlinks=False)
    else:
        os.mknod(copy, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev)
    _copy_looks(source, copy, found)


def _copy_looks(source: Path, copy: Path, found: os.stat_result) -> None:
    # The owner first: changing it takes set-user-id bits and file capabilities away.
    os.chown(copy, found.st_uid, found.st_gid, follow_symlinks=False)
    shutil.copystat(source, copy, follow_symlinks=False)
