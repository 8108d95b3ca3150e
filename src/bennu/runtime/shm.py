"""Mounts a /dev/shm on the host, so that other containers can be given the same one (IPC mode `shareable`).

Apart from `runtime.py`, its only user, and from `mounts.py`, which is pure.
"""

import contextlib
import os
from pathlib import Path

from bennu.errors import BennuError
from bennu.kernel.libc import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, unmount
from bennu.runtime.mounts import DEFAULT_SHM_BYTES


def mount_shm(folder: Path, size_bytes: int) -> None:
    """Mount it at `folder`, which is made; one that is there already stays. `size_bytes` 0: the default.

    Raises: BennuError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_mount():
        return
    options = f"mode=1777,size={size_bytes or DEFAULT_SHM_BYTES}"
    try:
        mount("shm", folder, "tmpfs", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC, options=options)
    except OSError as error:
        raise BennuError(f"mounting shm tmpfs: {os.strerror(error.errno or 0).lower()}") from error


def unmount_shm(folder: Path) -> None:
    """Unmount it and remove the folder; whoever still uses it keeps it. Idempotent."""
    if folder.is_mount():
        with contextlib.suppress(OSError):
            unmount(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
