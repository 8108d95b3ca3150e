"""A /dev/shm that lies on the host, so that other containers can be given the same one (IPC mode `shareable`)."""

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

from bennu.errors import BennuError
from bennu.runtime.mounts import DEFAULT_SHM_BYTES

_FLAGS: Final = 0x2 | 0x4 | 0x8  # nosuid, nodev, noexec
_DETACH: Final = 2
_libc = ctypes.CDLL(None, use_errno=True)


def mount_shm(folder: Path, size_bytes: int) -> None:
    """Mount it at `folder`, which is made. One that is there already stays. Raises: BennuError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_mount():
        return
    data = f"mode=1777,size={size_bytes or DEFAULT_SHM_BYTES}".encode()
    if _libc.mount(b"shm", os.fsencode(folder), b"tmpfs", _FLAGS, data) != 0:
        raise BennuError(f"mounting shm tmpfs: {os.strerror(ctypes.get_errno()).lower()}")


def unmount_shm(folder: Path) -> None:
    """Idempotent; who still uses it keeps it."""
    if folder.is_mount():
        _libc.umount2(os.fsencode(folder), _DETACH)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
