"""Where everything of a container is found again: its bundle, its processes. The base of `Runtime`.

Nothing is remembered between calls that is not on disk in the container's bundle, so a daemon that was just started
knows as much as the one that created the container.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from bennu.beneath import entry_of
from bennu.runtime.bundle import Bundle, BundleFacts, read_pid
from bennu.runtime.cgroups import Cgroups, is_in_group
from bennu.runtime.crun import OciRuntime, find_runtime
from bennu.runtime.failures import NotAlive
from bennu.runtime.hostfacts import HostFacts, read_host_facts
from bennu.runtime.oom import MemoryWatch
from bennu.runtime.pidfd import cmdline_of, held, is_alive

BUNDLES: Final = "c"
ID_DIGITS: Final = 24  # of a container's id in its bundle's name


class Places:
    """All of one engine's containers; `exec_root` is its alone."""

    def __init__(self, exec_root: Path, *, oci: str = "crun") -> None:
        """Raises: BennuError if no OCI runtime is installed."""
        self._bundles = exec_root / BUNDLES
        self._exits = exec_root / "exits"
        self._shms = exec_root / "shm"
        self._oci = OciRuntime(find_runtime(oci), exec_root / "oci")
        self.cgroups = Cgroups()
        self.memory_watch = MemoryWatch(self.cgroups)
        for folder in (self._bundles, self._exits, self._oci.root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def oci_name(self) -> str:
        """crun or runc: which one is used."""
        return "crun" if self._oci.is_crun else "runc"

    @cached_property
    def host(self) -> HostFacts:
        """What this host can give; read at the first use."""
        return read_host_facts(self.cgroups)

    def _bundle(self, container_id: str) -> Bundle:
        return Bundle(entry_of(self._bundles, container_id[:ID_DIGITS]), entry_of(self._exits, container_id))

    def _facts(self, container_id: str) -> tuple[Bundle, BundleFacts]:
        place = self._bundle(container_id)
        facts = place.read_facts()
        if facts is None:
            raise NotAlive(f"container {container_id} is not running")
        return place, facts

    def open_process(self, container_id: str) -> int:
        """A pidfd of the container's first process, certain to be it; the caller closes it. Raises: NotAlive."""
        return self._open_process(*self._facts(container_id))

    def _open_process(self, place: Bundle, facts: BundleFacts) -> int:
        """A pidfd of the container's first process, certain to be it. Raises: NotAlive."""
        pid = read_pid(place.pid_file)
        if pid:
            ours = held(pid, lambda pid: is_in_group(pid, facts.cgroup))
            with contextlib.suppress(ProcessLookupError), ours as pidfd:
                return os.dup(pidfd)
        raise NotAlive(f"container {facts.id} is not running")

    def _conmon_pid(self, container_id: str) -> int:
        """0: it is gone. Another process with its number is not taken for it."""
        pid = read_pid(self._bundle(container_id).conmon_pid_file)
        return pid if pid and conmon_mark(container_id) in cmdline_of(pid) else 0

    @contextlib.contextmanager
    def _held_conmon(self, container_id: str) -> Iterator[int]:
        """A pidfd of its conmon, certain to be it; -1: it is gone."""
        with contextlib.ExitStack() as stack:
            pid, pidfd = self._conmon_pid(container_id), -1
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    pidfd = stack.enter_context(held(pid, lambda pid: conmon_mark(container_id) in cmdline_of(pid)))
            yield pidfd

    async def kill_all(self, group: str) -> None:
        """Kill until nobody is left: what forks meanwhile is met in the next round."""
        for _ in range(400):
            if not self.cgroups.pids(group):
                return
            self.cgroups.kill(group, signal.SIGKILL)
            await asyncio.sleep(0.005)


def conmon_mark(container_id: str) -> str:
    """The word of its command line that tells a container's conmon."""
    return f"--cid={container_id}"


def living_pid(place: Bundle, facts: BundleFacts | None) -> int:
    """Of the container's first process; 0: it does not live."""
    pid = read_pid(place.pid_file)
    return pid if facts is not None and pid and is_in_group(pid, facts.cgroup) and is_alive(pid) else 0


def find_living(exec_root: Path) -> dict[str, int]:
    """The pids of all containers that live, by id; for who has no `Runtime` (yet)."""
    folder = exec_root / BUNDLES
    places = [Bundle(path, path) for path in folder.iterdir()] if folder.exists() else []
    found = [(facts.id, living_pid(place, facts)) for place in places if (facts := place.read_facts()) is not None]
    return {container_id: pid for container_id, pid in found if pid}
