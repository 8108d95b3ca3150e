"""Reads containers: whether they live, what they use, how they ended. Changes nothing; only `wait_end` cleans up."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from bennu.descriptors import reserve
from bennu.kernel.descriptor_io import wait_readable
from bennu.runtime.bundle import Bundle, BundleFacts, Bundles, living_pid, open_process
from bennu.runtime.cgroups import Cgroups
from bennu.runtime.failures import NotAlive
from bennu.runtime.oom import MemoryWatch
from bennu.runtime.records import ExitRecord, Recovered
from bennu.runtime.stats import Stats, read_stats


class ContainerObserver:
    """Reads containers, by their ids."""

    def __init__(self, bundles: Bundles, cgroups: Cgroups) -> None:
        self._bundles = bundles
        self._cgroups = cgroups
        self._memory = MemoryWatch(cgroups)

    async def wait_end(self, container_id: str) -> None:
        """Return when the container has ended and its end is on record. Cancel-safe.

        Of a container that shares other PID namespaces, what its first process left behind is killed.
        """
        with reserve():
            bundle, facts = self._bundles.find(container_id)
        if facts.shared_pids:
            await self._wait_process(bundle, facts)
            with reserve():
                await self._cgroups.kill_all(facts.cgroup)
        with contextlib.ExitStack() as held:
            with reserve():
                conmon = held.enter_context(self._bundles.held_conmon(container_id))
            if conmon >= 0:
                await wait_readable(conmon)

    async def _wait_process(self, bundle: Bundle, facts: BundleFacts) -> None:
        """Return when the container's first process has ended."""
        try:
            with reserve():
                pidfd = open_process(bundle, facts)
        except NotAlive:
            return
        try:
            await wait_readable(pidfd)
        finally:
            os.close(pidfd)

    def read_exit(self, container_id: str) -> ExitRecord | None:
        """Read how the container ended. None: no end is on record (it lives, or its conmon was killed)."""
        bundle = self._bundles.of(container_id)
        try:
            text = bundle.exit_file.read_text()
            ended_ns = bundle.exit_file.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        try:
            code: int | None = int(text)
        except ValueError:
            code = None
        # conmon writes -1, or 0 if the process was not its child, when it could not learn the status.
        if code is not None and (code < 0 or (code == 0 and bundle.orphan_marker.exists())):
            code = None
        return ExitRecord(code, ended_ns)

    def recover(self, container_id: str) -> Recovered:
        """Read what there is of a container, for a daemon that did not create it itself."""
        bundle = self._bundles.of(container_id)
        facts = bundle.read_facts()
        return Recovered(
            self._bundles.conmon_pid(container_id), living_pid(bundle, facts), self.read_exit(container_id)
        )

    def oom_kills(self, container_id: str) -> int:
        """Count its processes that the kernel killed for memory, until `delete`; also after its end."""
        facts = self._bundles.of(container_id).read_facts()
        return self._cgroups.oom_kills(facts.cgroup) if facts else 0

    def memory_marks(self, container_id: str) -> tuple[int, int]:
        """Answer its memory limit and peak in bytes, until `delete`; see `Cgroups.memory_marks`."""
        facts = self._bundles.of(container_id).read_facts()
        return self._cgroups.memory_marks(facts.cgroup) if facts else (0, 0)

    def watch_oom(self, container_id: str) -> AsyncGenerator[int, None]:
        """Yield that count each time it grows, until the container is deleted. Close it."""
        facts = self._bundles.of(container_id).read_facts()
        return self._memory.oom_kills(facts.cgroup if facts else "/nowhere")

    async def stats(self, container_id: str) -> Stats:
        """Read what it uses now. Raises: NotAlive."""
        _, facts = self._bundles.find(container_id)
        return await asyncio.to_thread(read_stats, self._cgroups, facts.cgroup)

    async def describe_stuck(self, container_id: str) -> str:
        """Say why it does not die, as far as the kernel tells: who is left, in what state, waiting where."""
        return await asyncio.to_thread(lambda: "; ".join(map(_describe_process, self.pids(container_id)[:5])))

    def pids(self, container_id: str) -> list[int]:
        """List the host pids of all its processes. Empty if it does not live."""
        facts = self._bundles.of(container_id).read_facts()
        return self._cgroups.pids(facts.cgroup) if facts else []


def _describe_process(pid: int) -> str:
    proc = Path(f"/proc/{pid}")
    try:
        name, rest = (proc / "stat").read_text().rsplit(")", 1)
        where = (proc / "wchan").read_text()
    except OSError:
        return f"process {pid} is gone"
    return f"process {pid} ({name.partition('(')[2]}) is in state {rest.split()[0]} in {where or 'the kernel'}"
