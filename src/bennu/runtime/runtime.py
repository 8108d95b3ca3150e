"""The processes of this host's containers: created, started, signalled, watched, attached to, deleted. No policy.

Nothing here is remembered between calls that is not on disk in the container's bundle, so a daemon that was just
started knows as much as the one that created the container.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.beneath import entry_of
from bennu.errors import BennuError
from bennu.model import HostConfig
from bennu.runtime.bundle import Bundle, BundleFacts, read_pid
from bennu.runtime.cgroups import is_in_group
from bennu.runtime.conmon import ConmonRequest, run_conmon
from bennu.runtime.failures import NotAlive, create_failure
from bennu.runtime.pidfd import find_by_argument, finish, kill_by_argument, parent_of, wait_gone, wait_readable
from bennu.runtime.places import conmon_mark
from bennu.runtime.proc_mounts import check_mounted
from bennu.runtime.records import BundleRequest, Created
from bennu.runtime.resources import build_resources, lifted_limits
from bennu.runtime.seccomp_cache import SeccompCache
from bennu.runtime.shm import mount_shm, unmount_shm
from bennu.runtime.stdin import make_stdin
from bennu.runtime.streams import Streams
from bennu.runtime.watching import Watching

CONMON_GROUP: Final = "/bennu/conmon"
FREEZE_LIMIT_MS: Final = 1000
FREE_LIMIT_MS: Final = 1000
SETTLE_LIMIT_S: Final = 10


class Runtime(Watching, Streams):
    """All of one engine's containers; `exec_root` is its alone."""

    def __init__(self, exec_root: Path, *, oci: str = "crun") -> None:
        """Raises: BennuError if no OCI runtime is installed."""
        super().__init__(exec_root, oci=oci)
        self._filters = SeccompCache()

    def make_shm(self, container_id: str, size_bytes: int) -> Path:
        """A /dev/shm on the host, for a container that shares it; `delete` unmounts it. Idempotent. Raises: BennuError.

        Blocks for a moment.
        """
        mount_shm(self.shm_of(container_id), size_bytes)
        return self.shm_of(container_id)

    def shm_of(self, container_id: str) -> Path:
        """Where the /dev/shm of a container that shares it is, if it lives."""
        return entry_of(self._shms, container_id)

    # --- creation -------------------------------------------------------------------------------------------------

    async def create(self, container_id: str, bundle: BundleRequest) -> Created:
        """Make the container's process, stopped before its program begins. Leftovers of the same id are deleted.

        A failure or a cancellation leaves nothing; a cancelled creation is finished before it is undone, for one cut
        short leaves processes that nobody knows. Raises: RuntimeFailure in runc's words; BennuError.
        """
        await self._delete(container_id)
        creation = asyncio.ensure_future(self._create(container_id, bundle))
        try:
            return await asyncio.shield(creation)
        except BaseException:
            await finish(creation)
            await asyncio.shield(self.delete(container_id))
            raise

    async def _create(self, container_id: str, request: BundleRequest) -> Created:
        place = self._bundle(container_id)
        place.root.mkdir(mode=0o700)
        spec = self._filters.shorten(request.spec) if self._oci.is_crun else request.spec
        place.config.write_bytes(msgspec.json.encode(spec))
        tty = bool(request.spec["process"].get("terminal"))
        keeper = make_stdin(place.stdin) if request.open_stdin and not tty else None
        facts = BundleFacts(
            id=container_id,
            cgroup=request.spec["linux"]["cgroupsPath"],
            tty=tty,
            stdin=request.open_stdin,
            stdin_once=request.stdin_once,
            keeper_fd=keeper.descriptor if keeper else -1,
            shared_pids=_shares_pids(request.spec),
        )
        place.write_facts(facts)
        conmon = ConmonRequest(
            container_id=container_id,
            bundle=place.root,
            pid_file=place.pid_file,
            conmon_pid_file=place.conmon_pid_file,
            exit_dir=self._exits,
            runtime=self._oci.command_for_others,
            log_path=request.log_path,
            tty=tty,
            stdin=place.stdin if keeper else None,
        )
        try:
            report = await run_conmon(
                conmon, enter=self._enter_conmon_group, keep_fds=(keeper.descriptor,) if keeper else ()
            )
        finally:
            if keeper:
                keeper.close()
        if report.data <= 0:
            raise create_failure(report.message, request.spec)
        if self._oci.is_crun:
            self._filters.learn(request.spec, self._oci.root / container_id / "seccomp.bpf")
        conmon_pid = read_pid(place.conmon_pid_file)
        if parent_of(report.data) not in (conmon_pid, 0):
            place.orphan_marker.touch()
        self._check_mounted(place, facts, report.data, request.spec)
        return Created(report.data, conmon_pid)

    def _check_mounted(self, place: Bundle, facts: BundleFacts, pid: int, spec: Mapping[str, Any]) -> None:
        """Raises: RuntimeFailure if its mounts came to lie where none may; NotAlive."""
        try:
            check_mounted(pid, spec)
        except OSError as error:
            raise NotAlive(f"container {facts.id} is not running") from error
        os.close(self._open_process(place, facts))  # afterwards, so it was this process that was looked at

    async def _enter_conmon_group(self, pid: int) -> None:
        """Out of the daemon's own group, with which it would be killed. Where that is not allowed it stays."""
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self.cgroups.enter, CONMON_GROUP, pid)

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self, container_id: str) -> None:
        """Let a created container's program begin. Raises: NotAlive, BennuError."""
        await self._oci.start(container_id)

    async def kill(self, container_id: str, signum: int, *, everyone: bool = False) -> None:
        """Signal its first process, or every process in its group. Raises: NotAlive if there is none."""
        place, facts = self._facts(container_id)
        if everyone:
            await asyncio.to_thread(self.cgroups.kill, facts.cgroup, signum)
            return
        pidfd = self._open_process(place, facts)
        try:
            signal.pidfd_send_signal(pidfd, signum)
        except ProcessLookupError:
            raise NotAlive(f"container {container_id} is not running") from None
        finally:
            os.close(pidfd)

    async def pause(self, container_id: str) -> None:
        """Freeze everything in it; returns when it is frozen. Raises: NotAlive, BennuError."""
        await self._set_frozen(container_id, frozen=True)

    async def resume(self, container_id: str) -> None:
        """Let it run on. Raises: NotAlive, BennuError."""
        await self._set_frozen(container_id, frozen=False)

    async def is_frozen(self, container_id: str) -> bool:
        """Whether it is paused; a freeze that was begun is brought to its end first. Raises: NotAlive."""
        place, facts = self._facts(container_id)
        os.close(self._open_process(place, facts))
        if self.cgroups.is_frozen(facts.cgroup):
            return True
        if not self.cgroups.is_asked_to_freeze(facts.cgroup):
            return False
        try:
            await self.pause(container_id)
        except NotAlive:
            raise
        except BennuError:
            return False  # it was thawed again
        return True

    async def _set_frozen(self, container_id: str, *, frozen: bool) -> None:
        _, facts = self._facts(container_id)
        try:
            self.cgroups.freeze(facts.cgroup, frozen=frozen)
            for _ in range(FREEZE_LIMIT_MS):
                if self.cgroups.is_frozen(facts.cgroup) == frozen:
                    return
                await asyncio.sleep(0.001)
                if frozen and not self.cgroups.unified:
                    self.cgroups.freeze(facts.cgroup, frozen=True)  # version 1 forgets who was about to fork
        except FileNotFoundError:
            raise NotAlive(f"container {container_id} is not running") from None
        except OSError as error:
            raise BennuError(f"cannot {'freeze' if frozen else 'thaw'} container {container_id}: {error}") from error
        if frozen:
            self.cgroups.freeze(facts.cgroup, frozen=False)
        raise BennuError(f"container {container_id} did not {'freeze' if frozen else 'thaw'} within a second")

    async def update(self, container_id: str, host_config: HostConfig) -> None:
        """Put new limits in force in a living container. Raises: NotAlive, BennuError (then the old ones hold)."""
        place, facts = self._facts(container_id)
        spec = msgspec.json.decode(place.config.read_bytes())
        before = spec["linux"]["resources"]
        changed = build_resources(host_config, self.host)
        try:
            await asyncio.to_thread(self.cgroups.lift, facts.cgroup, lifted_limits(before, changed))
        except OSError as error:
            raise BennuError(f"cannot lift a limit of container {container_id}: {error}") from error
        if not self.cgroups.unified and {"cpus", "mems"} & changed.get("cpu", {}).keys():
            await self._free_cpus(facts.cgroup)
        if changed:
            await self._oci.update(container_id, msgspec.json.encode(changed))
        changed["devices"] = before.get("devices", [])
        spec["linux"]["resources"] = changed
        place.config.write_bytes(msgspec.json.encode(spec))

    async def _free_cpus(self, group: str) -> None:
        """Version 1 takes no CPU from a group that one below has; a probe may be under way in there."""
        for _ in range(FREE_LIMIT_MS // 10):
            if self.cgroups.remove_idle_children(group):
                return
            await asyncio.sleep(0.01)

    async def delete(self, container_id: str) -> None:
        """Kill what is left of it and forget it: processes, control group, bundle, exit file. Idempotent.

        A conmon that is still busy is given a moment to write down the end. Raises: BennuError.
        """
        await self._delete(container_id)
        await asyncio.to_thread(unmount_shm, self.shm_of(container_id))

    async def _delete(self, container_id: str) -> None:
        place = self._bundle(container_id)
        facts = place.read_facts()
        if facts is not None and not place.pid_file.exists():
            await self._settle_creation(container_id)
        with self._held_conmon(container_id) as conmon:
            if self._is_known_to_runtime(container_id, facts):
                await self._oci.delete(container_id)
            if facts is not None:
                await self.clear_group(facts.cgroup)
            if conmon >= 0:
                await _end_conmon(conmon)
        await asyncio.to_thread(self._remove_files, container_id)
        place.exit_file.unlink(missing_ok=True)

    async def _settle_creation(self, container_id: str) -> None:
        """Wait until a creation that a former daemon began has come to its end, whatever that is.

        conmon ends by itself when nobody is left to report to. Killing it halfway would leave a runtime process that
        cannot be found while it changes its program. Only one that hangs is killed.
        """
        mark = conmon_mark(container_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_LIMIT_S):
                while pids := await asyncio.to_thread(find_by_argument, mark):
                    await wait_gone(pids[0])
        for pid in await asyncio.to_thread(find_by_argument, mark):
            await kill_by_argument(pid, mark)

    def _is_known_to_runtime(self, container_id: str, facts: BundleFacts | None) -> bool:
        """crun remembers a container only in files, so one that has ended need not be deleted by it."""
        if not (self._oci.root / container_id).exists():
            return False
        pid = read_pid(self._bundle(container_id).pid_file)
        return not self._oci.is_crun or facts is None or pid == 0 or is_in_group(pid, facts.cgroup)

    def _remove_files(self, container_id: str) -> None:
        shutil.rmtree(self._bundle(container_id).root, ignore_errors=True)
        shutil.rmtree(self._oci.root / container_id, ignore_errors=True)

    async def clear_group(self, group: str) -> None:
        """The group goes when its last process has; a killed process may take a moment."""
        for _ in range(200):
            if self.cgroups.remove(group):
                return
            self.cgroups.kill(group, signal.SIGKILL)
            await asyncio.sleep(0.01)
        raise BennuError(f"control group {group} cannot be removed: {self.cgroups.pids(group)} live in it")


def _shares_pids(spec: Mapping[str, Any]) -> bool:
    """Its PID namespace is not its own, so the kernel does not kill the rest when its first process ends."""
    return not any(space["type"] == "pid" and not space.get("path") for space in spec["linux"]["namespaces"])


async def _end_conmon(pidfd: int) -> None:
    """Its container is gone, so it is about to go; one that hangs on a client is killed."""
    try:
        async with asyncio.timeout(2):
            await wait_readable(pidfd)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await wait_readable(pidfd)
