"""Tells of kills for want of memory in a control group as they happen, and sets who is killed first.

Version 1 tells through an eventfd that is registered in the group, and once more when the group is removed. Version 2
changes `memory.events`, which inotify watches; that tells nothing of a removal, so `cgroup.events` is watched beside
it, where the kernel says that the last process has gone.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from bennu.kernel.descriptor_io import wait_readable
from bennu.kernel.inotify import FileChanges
from bennu.runtime.cgroups import Cgroups


class MemoryWatch:
    """Watches any number of control groups."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._files = FileChanges()

    async def oom_kills(self, group: str) -> AsyncGenerator[int, None]:
        """Yield the number of processes killed for memory each time it has grown, until the group is gone or empty.

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
        """Wait until the victim is counted: version 1 tells of the kill a moment earlier, longer on a busy host."""
        pause_s = 0.01
        while pause_s < 2 and self._cgroups.oom_kills(group) == before and self._cgroups.folders(group):
            await asyncio.sleep(pause_s)
            pause_s *= 2


def _register_eventfd(folder: Path) -> int:
    """Open an eventfd that the kernel writes to; it tells as long as it is open."""
    events = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        with (folder / "memory.oom_control").open() as control:
            (folder / "cgroup.event_control").write_text(f"{events} {control.fileno()}")
    except BaseException:
        os.close(events)
        raise
    return events


def set_oom_score(pid: int, score: int) -> None:
    """Set a process's oom_score_adj, which it else inherits from the daemon. No error if it has ended."""
    with contextlib.suppress(OSError):
        path = Path(f"/proc/{pid}/oom_score_adj")
        if int(path.read_text()) != score:
            path.write_text(str(score))
