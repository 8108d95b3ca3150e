"""Waits on the event loop until the kernel tells that files have changed (inotify(7)).

One instance serves any number of watches, for a user may have few; it is open only while somebody waits.
"""

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from bennu.kernel.libc import inotify_add, inotify_init, inotify_remove

IN_MODIFY: Final = 0x2
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_ONESHOT: Final = 0x80000000
EVENT: Final = struct.Struct("iIII")  # watch, what, cookie, length of the name that follows
POLL_EVERY_S: Final = 0.1
READ_BYTES: Final = 65536


class _Instance:
    """An inotify instance that the event loop reads; `heard` is called with the number of each watch that has news."""

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._heard = heard
        self._descriptor = -1

    def add(self, path: Path, events: int) -> int:
        """Watch `path`, opening the instance if need be; the number of the watch. Raises: OSError."""
        if self._descriptor < 0:
            self._descriptor = inotify_init(os.O_CLOEXEC | os.O_NONBLOCK)
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return inotify_add(self._descriptor, path, events)

    def remove(self, watch: int) -> None:
        inotify_remove(self._descriptor, watch)

    def close(self) -> None:
        """End all watches. Idempotent; the next `add` opens it anew."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        try:
            events = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(events):
            watch, _what, _cookie, length = EVENT.unpack_from(events, at)
            at += EVENT.size + length
            self._heard(watch)


class FolderWatch:
    """Enter it, then `wait_changed`. Where the kernel gives no more watches, it looks at the clock instead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._instance = _Instance(self._hear)
        self._is_watched = False
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        try:
            self._instance.add(self._folder, IN_MODIFY | IN_MOVED_TO | IN_CREATE)
            self._is_watched = True
        except OSError:
            self._instance.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._instance.close()
        self._is_watched = False

    async def wait_changed(self) -> None:
        """Return when something changed since the last return (or since entering). Cancel-safe."""
        if not self._is_watched:
            await asyncio.sleep(POLL_EVERY_S)
            return
        await self._changed.wait()
        self._changed.clear()

    def _hear(self, _watch: int) -> None:
        self._changed.set()


class FileChanges:
    """Tells of every change of many files, for as long as they are watched."""

    def __init__(self) -> None:
        self._instance = _Instance(self._hear)
        self._watches: dict[int, asyncio.Event] = {}

    @contextlib.contextmanager
    def watched(self, *paths: Path) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever one of these changes; a file has one watcher. Raises: OSError."""
        changed, mine = asyncio.Event(), []
        try:
            for path in paths:
                mine.append(self._instance.add(path, IN_MODIFY))
                self._watches[mine[-1]] = changed
            yield changed
        finally:
            for watch in mine:
                self._watches.pop(watch, None)
                self._instance.remove(watch)
            if not self._watches:
                self._instance.close()

    def _hear(self, watch: int) -> None:
        if changed := self._watches.get(watch):
            changed.set()
