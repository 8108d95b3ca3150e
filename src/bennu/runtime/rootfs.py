"""Files inside a container's root filesystem, reached without ever leaving it.

A container may plant links that point anywhere; on the host they must mean what they mean inside. So paths are walked
one component at a time, and a link starts over from the container's own root.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bennu.errors import BennuError

MAX_LINKS: Final = 40  # the kernel's
MAX_FILE_BYTES: Final = 4 << 20


@contextmanager
def open_inside(root: Path, path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of `path` as seen from inside `root`. Raises: OSError (FileNotFoundError, NotADirectoryError…).

    A device is never opened, for that alone may do something to the host: it counts as missing.
    """
    place = _resolve(root, path)
    try:
        mode = os.fstat(place).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        # Through /proc: what was walked to is what is opened, whatever has been renamed since.
        descriptor = os.open(f"/proc/self/fd/{place}", flags | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_inside(root: Path, path: str) -> str:
    """A small text file. Raises: OSError; what is no regular file counts as missing."""
    with open_inside(root, path) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        pieces = []
        left = MAX_FILE_BYTES
        while left > 0 and (piece := os.read(descriptor, min(left, 1 << 16))):
            pieces.append(piece)
            left -= len(piece)
    return b"".join(pieces).decode(errors="replace")


def _resolve(root: Path, path: str) -> int:
    """An O_PATH descriptor of what `path` means inside `root`; the caller closes it."""
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack = [base]  # the directories from the root to here
    pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    try:
        while pending:
            part = pending.pop()
            if part == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            found = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                stack.append(found)
                continue
            try:
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink("", dir_fd=found)
            finally:
                os.close(found)
            if target.startswith("/"):
                while len(stack) > 1:
                    os.close(stack.pop())
            pending += [word for word in reversed(target.split("/")) if word not in ("", ".")]
        return os.dup(stack[-1])
    finally:
        for descriptor in stack:
            os.close(descriptor)


def make_working_dir(root: Path, path: str) -> None:
    """Create a working directory (root:root, 0755) and those above it, if missing.

    Raises: BennuError in dockerd's words if something else is in the way.
    """
    done = ""
    for part in [part for part in path.split("/") if part not in ("", ".")]:
        try:
            with open_inside(root, done or "/", os.O_PATH | os.O_DIRECTORY) as parent:
                done += "/" + part
                try:
                    os.mkdir(part, 0o755, dir_fd=parent)
                except FileExistsError:
                    continue
        except NotADirectoryError:
            raise BennuError(f"Cannot mkdir: {done} is not a directory") from None
        except OSError as error:
            raise BennuError(f"mkdir {done}: {(error.strerror or '').lower()}") from error
    with _as_mkdir_error(path), open_inside(root, path, os.O_PATH | os.O_DIRECTORY):
        pass


@contextmanager
def _as_mkdir_error(path: str) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError:
        raise BennuError(f"Cannot mkdir: {path} is not a directory") from None
    except OSError as error:
        raise BennuError(f"mkdir {path}: {(error.strerror or '').lower()}") from error
