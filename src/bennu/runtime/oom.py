"""Hearing of a control group's memory trouble as it happens, and who shall be the first to go.

Version 1 tells through an eventfd that is registered in the group, and once more when the group is removed. Version 2
changes `memory.events`, which inotify watches; that tells nothing of a removal, so `cgroup.events` is watched beside
it, where the kernel says that the last process has gone.
"""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bennu.runtime.cgroups import Cgroups
from bennu.runtime.waiting import wait_readable

_IN_MODIFY: Final = 0x2
_IN_NONBLOCK: Final = 0o4000
_IN_CLOEXEC: Final = 0o2000000
_EFD_FLAGS: Final = _IN_NONBLOCK | _IN_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


async def watch_oom_kills(cgroups: Cgroups, group: str) -> AsyncIterator[int]:
    """The number of processes killed for memory, each time it has grown, until the group is gone or empty.

    Close the iterator (or cancel its reader) to let go of it.
    """
    try:
        descriptors = await asyncio.to_thread(_subscribe, cgroups, group)
    except OSError:
        return
    try:
        seen = 0
        while True:
            killed = cgroups.oom_kills(group)
            if killed > seen:
                seen = killed
                yield killed
            if not _is_alive(cgroups, group):
                return
            await wait_readable(descriptors[0])
            os.read(descriptors[0], 4096)
            if not cgroups.unified:
                await _be_counted(cgroups, group, seen)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _is_alive(cgroups: Cgroups, group: str) -> bool:
    if not cgroups.unified:
        return bool(cgroups.folders(group))
    try:
        return cgroups.is_populated(group)
    except OSError:
        return False


async def _be_counted(cgroups: Cgroups, group: str, seen: int) -> None:
    """Version 1 tells of the trouble a moment before it counts the victim; on a busy host the moment is long."""
    pause_s = 0.01
    while pause_s < 2 and cgroups.oom_kills(group) == seen and cgroups.folders(group):
        await asyncio.sleep(pause_s)
        pause_s *= 2


def _subscribe(cgroups: Cgroups, group: str) -> list[int]:
    """Descriptors to be closed in the end; the first becomes readable when something has happened."""
    if cgroups.unified:
        folder = cgroups.folder("memory", group)
        return [_watch_files(folder / "memory.events", folder / "cgroup.events")]
    return _register_eventfd(cgroups.folder("memory", group))


def _watch_files(*paths: Path) -> int:
    descriptor: int = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    for path in paths:
        if _libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY) < 0:
            error = ctypes.get_errno()
            os.close(descriptor)
            raise OSError(error, os.strerror(error), str(path))
    return descriptor


def _register_eventfd(folder: Path) -> list[int]:
    control = os.open(folder / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    events = os.eventfd(0, _EFD_FLAGS)
    try:
        (folder / "cgroup.event_control").write_text(f"{events} {control}")
    except BaseException:
        os.close(events)
        os.close(control)
        raise
    return [events, control]


def set_oom_score(pid: int, score: int) -> None:
    """A further process would else have the daemon's own score. No error if it has ended."""
    with contextlib.suppress(OSError):
        path = Path(f"/proc/{pid}/oom_score_adj")
        if int(path.read_text()) != score:
            path.write_text(str(score))
