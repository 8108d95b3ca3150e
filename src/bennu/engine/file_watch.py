"""Being told by the kernel that something in a folder has changed (inotify)."""

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final, Self

IN_MODIFY: Final = 0x2
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
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
