"""What is done to a root before a build's command runs in it, and afterwards.

A runtime makes a folder or file for every mount; what it made is not the command's and does not stay in the layer.
"""

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import Any

from bennu.confined.tasks import read_accounts
from bennu.confined.tree import place_of


def prepare_run(working_dir: str, targets: Sequence[str], tmpfs: Sequence[str]) -> dict[str, Any]:
    """Look at the root that a command is to run in.

    Answers `accounts` (see `read_accounts`); `working_dir`: where it is, links followed, or "" if it is there; `stubs`:
    the paths that have to be made for the mounts at `targets`, each before those above it; `above`: those of them that
    no mount is at; `kernel`: of the places of the kernel's file systems those that are missing; `modes`: of the folders
    that each of `tmpfs` covers, where there is one. Raises: OSError.
    """
    stubs: dict[str, None] = {}
    places = set()
    for target in targets:
        with contextlib.suppress(OSError):
            path = place_of(target)
            places.add(path)
            while path != "/" and not os.path.lexists(path):
                stubs[path] = None
                path = os.path.dirname(path)
    place = place_of(working_dir)
    return {
        "accounts": read_accounts(),
        "working_dir": "" if os.path.exists(place) else place,
        "stubs": sorted(stubs, key=lambda path: -path.count("/")),
        "above": [path for path in stubs if path not in places],
        "kernel": [path for path in ("/proc", "/dev", "/sys") if not os.path.lexists(path)],
        "modes": {target: mode for target in tmpfs if (mode := _mode_of(target)) is not None},
    }


def _mode_of(target: str) -> int | None:
    try:
        seen = os.lstat(place_of(target))
    except OSError:
        return None
    return stat.S_IMODE(seen.st_mode) if stat.S_ISDIR(seen.st_mode) else None


def make_folders(folders: Sequence[tuple[str, int, int]]) -> None:
    """Make folders and those above them, 0755; what is made belongs to the user and group given. Raises: OSError."""
    for path, uid, gid in folders:
        done = ""
        for part in [part for part in path.split("/") if part]:
            done += f"/{part}"
            try:
                os.mkdir(done, 0o700)
            except FileExistsError:
                continue
            os.chown(done, uid, gid)
            os.chmod(done, 0o755)


def clear_stubs(stubs: Sequence[str]) -> None:
    """Remove those of the layer's paths that are empty; the folders they are in keep their times.

    No link is followed: where one has taken the place of a folder, nothing is removed.
    """
    for path in stubs:
        above, name = os.path.split(path)
        with contextlib.suppress(OSError):
            folder = _open_folder(above)
            try:
                _clear_stub(folder, name)
            finally:
                os.close(folder)


def _open_folder(path: str) -> int:
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for part in [part for part in path.split("/") if part]:
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _clear_stub(folder: int, name: str) -> None:
    seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
    times = os.fstat(folder)
    if stat.S_ISDIR(seen.st_mode):
        os.rmdir(name, dir_fd=folder)  # only an empty one
    elif seen.st_size == 0 and not stat.S_ISCHR(seen.st_mode):  # a device may be the mark of what was removed
        os.unlink(name, dir_fd=folder)
    else:
        return
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
