"""Hearing of a control group's memory trouble as it happens, and who shall be the first to go.

Version 1 tells through an eventfd that is registered in the group, and once more when the group is removed. Version 2
changes `memory.events`, which inotify watches; that tells nothing of a removal, so `cgroup.events` is watched beside
it, where the kernel says that the last process has gone.
"""

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bennu.runtime.cgroups import Cgroups
from bennu.runtime.pidfd import wait_readable

_IN_MODIFY: Final = 0x2
_IN_NONBLOCK: Final = 0o4000
_IN_CLOEXEC: Final = 0o2000000
_EFD_FLAGS: Final = _IN_NONBLOCK | _IN_CLOEXEC
_HEARD: Final = struct.Struct("iIII")  # watch, what, cookie, length of the name that follows
_libc = ctypes.CDLL(None, use_errno=True)


class MemoryWatch:
    """For any number of groups."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._files = _FileWatch()

    async def oom_kills(self, group: str) -> AsyncGenerator[int, None]:
        """The number of processes killed for memory, each time it has grown, until the group is gone or empty.

        Close it to let go of the group.
        """
        listen = self._listen_unified if self._cgroups.unified else self._listen_by_eventfd
        with contextlib.suppress(OSError):
            async with contextlib.aclosing(listen(group)) as heard:
                seen = 0
                async for _ in heard:
                    killed = self._cgroups.oom_kills(group)
                    grew, seen = killed > seen, killed
                    if grew:
                        yield killed

    async def _listen_unified(self, group: str) -> AsyncGenerator[None, None]:
        folder = self._cgroups.folder("memory", group)
        with self._files.watched(folder / "memory.events", folder / "cgroup.events") as changed:
            while True:
                changed.clear()
                yield
                if not self._cgroups.is_populated(group):
                    return
                await changed.wait()

    async def _listen_by_eventfd(self, group: str) -> AsyncGenerator[None, None]:
        # Not in a thread: that takes longer, and a cancellation meanwhile would leave the descriptor open.
        events = _register_eventfd(self._cgroups.folder("memory", group))
        try:
            while self._cgroups.folders(group):
                before = self._cgroups.oom_kills(group)
                yield
                await wait_readable(events)
                os.read(events, 8)
                await self._be_counted(group, before)
        finally:
            os.close(events)

    async def _be_counted(self, group: str, before: int) -> None:
        """Version 1 tells of the trouble a moment before it counts the victim; on a busy host the moment is long."""
        pause_s = 0.01
        while pause_s < 2 and self._cgroups.oom_kills(group) == before and self._cgroups.folders(group):
            await asyncio.sleep(pause_s)
            pause_s *= 2


class _FileWatch:
    """Files of any number by one inotify instance: of those a user may have few."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._watches: dict[int, asyncio.Event] = {}

    @contextmanager
    def watched(self, *paths: Path) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of these changes; a file has one watcher. Raises: OSError."""
        changed, mine = asyncio.Event(), []
        try:
            for path in paths:
                mine.append(self._add(path))
                self._watches[mine[-1]] = changed
            yield changed
        finally:
            for watch in mine:
                self._watches.pop(watch, None)
                _libc.inotify_rm_watch(self._descriptor, watch)
            if not self._watches and self._descriptor >= 0:
                asyncio.get_running_loop().remove_reader(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = -1

    def _add(self, path: Path) -> int:
        if self._descriptor < 0:
            self._descriptor = _checked(_libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC), "inotify_init1")
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_MODIFY), str(path))

    def _read(self) -> None:
        heard, at = os.read(self._descriptor, 65536), 0
        while at < len(heard):
            watch, _what, _cookie, length = _HEARD.unpack_from(heard, at)
            at += _HEARD.size + length
            if (changed := self._watches.get(watch)) is not None:
                changed.set()


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result


def _register_eventfd(folder: Path) -> int:
    """It tells as long as it is open."""
    events = os.eventfd(0, _EFD_FLAGS)
    try:
        with (folder / "memory.oom_control").open() as control:
            (folder / "cgroup.event_control").write_text(f"{events} {control.fileno()}")
    except BaseException:
        os.close(events)
        raise
    return events


def set_oom_score(pid: int, score: int) -> None:
    """A further process would else have the daemon's own score. No error if it has ended."""
    with contextlib.suppress(OSError):
        path = Path(f"/proc/{pid}/oom_score_adj")
        if int(path.read_text()) != score:
            path.write_text(str(score))
