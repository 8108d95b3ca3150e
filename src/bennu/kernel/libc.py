"""Calls of libc that Python has no name for. Each raises OSError with the errno that the kernel gave."""

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND = 0x1, 0x2, 0x4, 0x8, 0x1000
MNT_DETACH: Final = 2
PROC: Final = 0x9FA0  # magic numbers of file systems
CGROUP_KINDS: Final = frozenset({0x27E0EB, 0x63677270})  # of both versions
_SYS_OPENAT2: Final = 437  # these numbers are the same on all architectures
_SYS_PIDFD_GETFD: Final = 438
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x2, 0x8
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_STATFS_BYTES: Final = 256  # more than the structure has on any machine
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(source: str, target: Path, kind: str, *, flags: int = 0, options: str = "") -> None:
    """Mount a file system of a kind at `target` (mount(2)). Raises: OSError."""
    words = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _checked(_libc.mount(*words), str(target))


def unmount(target: Path) -> None:
    """Take the mount out of the tree at once; whoever uses it keeps it (umount2(2), MNT_DETACH). Raises: OSError."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), str(target))


def open_beneath(folder: int, path: str) -> int:
    """Open what `path` means below a folder, as a place (O_PATH); the caller closes it (openat2(2)).

    Links are followed, but none leads out of the folder, whoever changes them meanwhile. Raises: OSError; EXDEV: it
    would have led out; EAGAIN: something was renamed meanwhile, and another try may succeed.
    """
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    return _checked(_libc.syscall(_SYS_OPENAT2, folder, os.fsencode(path), how, len(how)), path)


def exchange(one: Path, other: Path) -> None:
    """Let two entries of one file system change places at once (renameat2(2), RENAME_EXCHANGE). Raises: OSError."""
    words = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    _checked(_libc.renameat2(*words), str(one))


def sync_filesystem(folder: Path) -> None:
    """Write all of the file system that a folder is on to its disk (syncfs(2)). Blocking. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _checked(_libc.syncfs(descriptor), str(folder))
    finally:
        os.close(descriptor)


def kind_of_filesystem(path: Path) -> int:
    """Ask which kind of file system `path` lies in (statfs(2)): its magic number; 0 if nobody can tell."""
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.statfs(os.fsencode(path), answer) != 0:
        return 0
    # The first field, a word on nearly all machines; all numbers fit into half of one.
    return ctypes.c_ulong.from_buffer(answer).value & 0xFFFFFFFF


def copy_descriptor(pidfd: int, descriptor: int) -> int:
    """Copy a descriptor of another process into this one (pidfd_getfd(2)); the caller closes the copy.

    Raises: OSError if the kernel refuses (it asks for the right to trace the process); ProcessLookupError.
    """
    return _checked(_libc.syscall(_SYS_PIDFD_GETFD, pidfd, descriptor, 0), "pidfd_getfd")


def inotify_init(flags: int) -> int:
    """Make an inotify instance; the caller closes it. Raises: OSError when the user may have no more."""
    return _checked(_libc.inotify_init1(flags), "inotify_init1")


def inotify_add(instance: int, path: Path, events: int) -> int:
    """Watch `path`; the number of the watch. Raises: OSError."""
    return _checked(_libc.inotify_add_watch(instance, os.fsencode(path), ctypes.c_uint32(events)), str(path))


def inotify_remove(instance: int, watch: int) -> None:
    """End a watch. One that is gone already is no error."""
    _libc.inotify_rm_watch(instance, watch)
