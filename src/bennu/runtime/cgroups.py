"""Reads and changes control groups of both versions: members, usage, limits, freezing, removal.

A container's group has one path; under version 1 it exists once in every hierarchy. `hybrid` hosts count as version 1.
Plain reads and writes of kernel files: quick, so not async but where processes are waited for.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from bennu.beneath import beneath, entry_of
from bennu.errors import BennuError
from bennu.kernel.libc import CGROUP_KINDS, kind_of_filesystem
from bennu.kernel.pidfd import open_pidfd

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
OPEN_AT_ONCE: Final = 16  # processes that are signalled together


class Cgroups:
    """The hierarchies of this host, found when first asked for."""

    def __init__(self, root: Path = CGROUP_ROOT) -> None:
        self.root = root

    @cached_property
    def unified(self) -> bool:
        """Whether the host has version 2 alone."""
        return (self.root / "cgroup.controllers").exists()

    @cached_property
    def hierarchies(self) -> dict[str, Path]:
        """Mount points by controller (or `systemd`, `unified`); under version 2 just `unified`."""
        if self.unified:
            return {"unified": self.root}
        found: dict[str, Path] = {}
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind, options, *_ = line.split()
            if kind == "cgroup2":
                found.setdefault("unified", Path(where))
            elif kind == "cgroup":
                for word in options.split(","):
                    if word.startswith("name="):
                        found.setdefault(word.removeprefix("name="), Path(where))
                    elif word in _CONTROLLERS:
                        found.setdefault(word, Path(where))
        return found

    @cached_property
    def _mounts(self) -> list[Path]:
        """The mount points, each once, for two names can stand for one hierarchy."""
        return list(dict.fromkeys(self.hierarchies.values()))

    def folder(self, controller: str, group: str) -> Path:
        """Answer the folder of `group` with `controller`'s files. Raises: FileNotFoundError if the host lacks it."""
        mount = self.hierarchies.get("unified" if self.unified else controller)
        if mount is None:
            raise FileNotFoundError(f"cgroup controller {controller} is not mounted")
        return beneath(mount, group)

    def folders(self, group: str) -> list[Path]:
        """List all folders of `group` that exist, one a hierarchy."""
        return [folder for mount in self._mounts if (folder := beneath(mount, group)).is_dir()]

    def _proven(self, group: str) -> list[Path]:
        """List those that the kernel says are control groups; anything else is not ours to touch."""
        return [folder for folder in self.folders(group) if kind_of_filesystem(folder) in CGROUP_KINDS]

    def pids(self, group: str) -> list[int]:
        """List the host pids of everything in the group and below, ascending. Empty if it is gone."""
        return sorted(_pids_in(self.folders(group)))

    def kill(self, group: str, signum: int) -> None:
        """Send a signal to everything in the group and below."""
        folders = self._proven(group)
        if signum == signal.SIGKILL and self.unified and folders:
            with contextlib.suppress(OSError):
                (folders[0] / "cgroup.kill").write_text("1")
                return
        pids = sorted(_pids_in(folders))
        for first in range(0, len(pids), OPEN_AT_ONCE):
            _signal_members(folders, pids[first : first + OPEN_AT_ONCE], signum)

    async def kill_all(self, group: str) -> None:
        """Kill everything in the group, again until nobody is left: what forks meanwhile is met in the next round.

        Gives up after 2 s, silently: what does not die then waits in the kernel.
        """
        for _ in range(400):
            if not self.pids(group):
                return
            self.kill(group, signal.SIGKILL)
            await asyncio.sleep(0.005)

    async def clear(self, group: str) -> None:
        """Kill everything in the group and remove it. Idempotent. Raises: BennuError if something lives on for 2 s."""
        for _ in range(200):
            if self.remove(group):
                return
            self.kill(group, signal.SIGKILL)
            await asyncio.sleep(0.01)
        raise BennuError(f"control group {group} cannot be removed: {self.pids(group)} live in it")

    def remove(self, group: str) -> bool:
        """Remove the group with all below. False: something still lives in it."""
        done = True
        for folder in self._proven(group):
            for path, _, _ in os.walk(folder, topdown=False):
                try:
                    Path(path).rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    done = False
        return done

    def make_child(self, group: str, name: str) -> None:
        """Make a group below one that exists, in each hierarchy. Idempotent. Raises: FileNotFoundError."""
        # The first hierarchy comes last: where a group is there, as `is_populated` sees it, it is everywhere.
        for folder in reversed([beneath(mount, group) for mount in self._mounts]):
            if folder.is_dir():
                child = entry_of(folder, name)
                child.mkdir(exist_ok=True)
                if (child / "cpuset.cpus").exists() and not self.unified:
                    _inherit_cpuset(child)
        self.is_populated(f"{group}/{name}")

    def is_populated(self, group: str) -> bool:
        """Tell whether a process is in it, or (version 2) below it; quick. Raises: FileNotFoundError if it is gone."""
        folder = beneath(self._mounts[0], group)
        if self.unified:
            return "populated 1" in (folder / "cgroup.events").read_text()
        return (folder / "cgroup.procs").read_text() != ""

    def remove_idle_children(self, group: str) -> bool:
        """Remove the groups directly below; their users make them anew. False: one is in use."""
        children = [child for folder in self.folders(group) for child in folder.iterdir() if child.is_dir()]
        for child in children:
            with contextlib.suppress(OSError):
                child.rmdir()
        return not any(child.exists() for child in children)

    def freeze(self, group: str, *, frozen: bool) -> None:
        """Ask the kernel to freeze or thaw the group; version 1 may take a while. Raises: OSError."""
        if self.unified:
            (self.folder("unified", group) / "cgroup.freeze").write_text("1" if frozen else "0")
        else:
            (self.folder("freezer", group) / "freezer.state").write_text("FROZEN" if frozen else "THAWED")

    def is_frozen(self, group: str) -> bool:
        try:
            if self.unified:
                return "frozen 1" in (self.folder("unified", group) / "cgroup.events").read_text()
            return (self.folder("freezer", group) / "freezer.state").read_text().strip() == "FROZEN"
        except OSError:
            return False

    def is_asked_to_freeze(self, group: str) -> bool:
        """Tell whether it is frozen, or the kernel is about to freeze it."""
        with contextlib.suppress(OSError):
            if self.unified:
                return (self.folder("unified", group) / "cgroup.freeze").read_text().strip() == "1"
            return (self.folder("freezer", group) / "freezer.self_freezing").read_text().strip() == "1"
        return False

    def lift(self, group: str, kinds: Sequence[str]) -> None:
        """Remove the limits of these kinds: memory, cpu, pids. Raises: OSError."""
        for kind in kinds:
            for name, value in _NO_LIMIT[self.unified][kind]:
                with contextlib.suppress(FileNotFoundError):  # without swap accounting there is no swap limit
                    (self.folder(kind, group) / name).write_text(value)

    def oom_kills(self, group: str) -> int:
        """Count the processes that the kernel killed for memory, below it too; 0 also if the group is gone."""
        if self.unified:
            counted = [self.folder("unified", group) / "memory.events"]
        else:  # a group counts its own only
            counted = [Path(path) / "memory.oom_control" for path, _, _ in os.walk(self.folder("memory", group))]
        kills = 0
        for path in counted:
            with contextlib.suppress(OSError):
                kills += _field(path, "oom_kill")
        return kills

    def memory_marks(self, group: str) -> tuple[int, int]:
        """Answer the memory limit and the peak usage in bytes; a limit of 0: there is none, or it is unknown."""
        names = (
            ("memory.max", "memory.peak")
            if self.unified
            else (
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            )
        )
        marks = []
        for name in names:
            value = 0
            with contextlib.suppress(OSError, ValueError):  # v2 says "max" for no limit; old kernels have no peak
                value = int((self.folder("memory", group) / name).read_text())
            marks.append(value if value < 1 << 60 else 0)
        return marks[0], marks[1]

    def enter(self, group: str, pid: int) -> None:
        """Move a process there, in those hierarchies in which this process is not at the top already.

        A process at the top is in nobody's way; moving one costs a kernel grace period.
        """
        for controllers, _path in own_groups():
            mount = self.hierarchies.get("unified" if self.unified or not controllers else controllers[0])
            if mount is None:
                continue
            folder = beneath(mount, group)
            folder.mkdir(parents=True, exist_ok=True)
            if controllers == ("cpuset",):
                _inherit_cpuset(folder)
            (folder / "cgroup.procs").write_text(str(pid))


# By version 2 or not; in the order in which the kernel takes them.
_NO_LIMIT: Final = {
    True: {
        "memory": (("memory.max", "max"), ("memory.swap.max", "max")),
        "cpu": (("cpu.max", "max"),),
        "pids": (("pids.max", "max"),),
    },
    False: {
        "memory": (("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1")),
        "cpu": (("cpu.cfs_quota_us", "-1"),),
        "pids": (("pids.max", "max"),),
    },
}
_CONTROLLERS: Final = {
    *("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc"),
    *("net_cls", "net_prio", "perf_event", "pids", "rdma"),
}


def own_groups() -> list[tuple[tuple[str, ...], str]]:
    """List controllers and path of each group that this process is in, except where it is at the top."""
    groups = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if path != "/":
            names = tuple(name.removeprefix("name=") for name in controllers.split(",") if name)
            groups.append((names, path))
    return groups


def is_in_group(pid: int, group: str) -> bool:
    """Tell whether a process is in a control group or below it. Raises: OSError when it cannot be known."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(path == group or path.startswith(group + "/") for path in (line.split(":", 2)[2] for line in lines))


def _signal_members(folders: Sequence[Path], pids: Iterable[int], signum: int) -> None:
    """Signal those of the processes that are members now: a number may have gone to another since it was read.

    A pidfd keeps meaning the same process, so whoever is held and then seen as a member is the one that is signalled.
    """
    held = {}
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                held[pid] = open_pidfd(pid)
        members = _pids_in(folders)
        for pid, pidfd in held.items():
            if pid in members:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signum)
    finally:
        for pidfd in held.values():
            os.close(pidfd)


def _pids_in(folders: Iterable[Path]) -> set[int]:
    """Read the members of one group, whose processes are in each of its hierarchies."""
    for folder in folders:
        if pids := set(_pids_below(folder)):
            return pids
    return set()


def _pids_below(folder: Path) -> Iterator[int]:
    for path, _, files in os.walk(folder):
        if "cgroup.procs" in files:
            # Threaded groups refuse the read; the group above lists their processes.
            with contextlib.suppress(OSError):
                yield from map(int, (Path(path) / "cgroup.procs").read_text().split())


def _field(path: Path, name: str) -> int:
    """Read the number behind `name` in a file of `name number` lines; 0 if it is not there."""
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _inherit_cpuset(folder: Path) -> None:
    """Fill an empty cpuset of version 1 from the group above: nothing can enter an empty one."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            if not (folder.parent / name).read_text().strip():
                _inherit_cpuset(folder.parent)
            (folder / name).write_text((folder.parent / name).read_text())
