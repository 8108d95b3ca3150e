"""Being told by the kernel that something in a folder has changed, or that a file is written to (inotify)."""

import asyncio
import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import Final, Self

IN_MODIFY: Final = 0x2
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_ONESHOT: Final = 0x80000000
EVENT: Final = struct.Struct("iIII")  # watch, what, cookie, length of the name that follows
POLL_EVERY_S: Final = 0.1
_libc: Final = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Enter it, then `wait_changed`. Where the kernel gives no more watches, it looks at the clock instead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        self._descriptor = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor >= 0:
            added = _libc.inotify_add_watch(
                self._descriptor, os.fsencode(self._folder), IN_MODIFY | IN_MOVED_TO | IN_CREATE
            )
            if added < 0:
                os.close(self._descriptor)
                self._descriptor = -1
            else:
                asyncio.get_running_loop().add_reader(self._descriptor, self._drain)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    async def wait_changed(self) -> None:
        """Return when something changed since the last return (or since entering). Cancel-safe."""
        if self._descriptor < 0:
            await asyncio.sleep(POLL_EVERY_S)
            return
        await self._changed.wait()
        self._changed.clear()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass
        self._changed.set()


class Writes:
    """Waiting for the next write to each of many files, with one descriptor as long as anybody waits."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._waiting: dict[int, asyncio.Event] = {}

    async def wait_written(self, path: Path, size: int) -> None:
        """Return when the file is, or may be, no longer of this size. One waits for a file at a time. Cancel-safe."""
        if not self._waiting:
            self._open()
        flags = ctypes.c_uint32(IN_MODIFY | IN_ONESHOT)
        watch = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), flags)
        if watch < 0:  # the kernel gives no more, or there is no file
            self._close_unused()
            await asyncio.sleep(POLL_EVERY_S)
            return
        written = self._waiting[watch] = asyncio.Event()
        try:
            if path.stat().st_size == size:  # else it was written before anybody watched
                await written.wait()
        except FileNotFoundError:
            return
        finally:
            if self._waiting.pop(watch, None) is not None:
                _libc.inotify_rm_watch(self._descriptor, watch)
            self._close_unused()

    def _open(self) -> None:
        self._descriptor = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor >= 0:
            asyncio.get_running_loop().add_reader(self._descriptor, self._hear)

    def _close_unused(self) -> None:
        if self._descriptor >= 0 and not self._waiting:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _hear(self) -> None:
        """A watch ends with its first event, or with its file."""
        with contextlib.suppress(BlockingIOError):
            for watch, _, _, _ in EVENT.iter_unpack(os.read(self._descriptor, 4096 * EVENT.size)):
                if written := self._waiting.pop(watch, None):
                    written.set()
