"""The processes of this host's containers: created, started, signalled, limited, deleted. No policy.

Nothing here is remembered between calls that is not on disk in the container's bundle, so a daemon that was just
started knows as much as the one that created the container.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.beneath import entry_of
from bennu.errors import BennuError
from bennu.kernel.descriptor_io import wait_readable
from bennu.kernel.pidfd import kill_by_argument, wait_gone
from bennu.kernel.procfs import find_by_argument, parent_of, signal_view
from bennu.lifecycle.disposition import SignalView
from bennu.logwriter.client import CANNOT_START, LogWriter, make_pipe
from bennu.logwriter.words import Job
from bennu.model import HostConfig
from bennu.pace import settle
from bennu.runtime.bundle import Bundle, BundleFacts, Bundles, conmon_mark, open_process, read_pid
from bennu.runtime.cgroups import Cgroups, is_in_group
from bennu.runtime.conmon import ConmonReport, ConmonRequest, run_conmon
from bennu.runtime.crun import OciRuntime, find_runtime
from bennu.runtime.descriptors import Descriptors
from bennu.runtime.execs import ContainerExecs
from bennu.runtime.failures import NotAlive, create_failure
from bennu.runtime.freezer import Freezer
from bennu.runtime.hostfacts import read_host_facts
from bennu.runtime.observer import ContainerObserver
from bennu.runtime.proc_mounts import check_mounted
from bennu.runtime.records import BundleRequest, Created
from bennu.runtime.resources import build_resources, lifted_limits
from bennu.runtime.seccomp_cache import SeccompCache
from bennu.runtime.shm import mount_shm, unmount_shm
from bennu.runtime.stdin import make_stdin
from bennu.runtime.streams import ContainerStreams

CONMON_GROUP: Final = "/bennu/conmon"
LOG_MODE: Final = 0o640
FREE_LIMIT_MS: Final = 1000
SETTLE_LIMIT_S: Final = 10

log = logging.getLogger(__name__)


class Runtime:
    """All of one engine's containers. Makes and ends them itself; the rest is done by parts that share their bundles.

    `execs`: further processes; `freezer`: pause and resume; `observer`: what can be seen; `streams`: input and output;
    `logs`: the writer of what they say.
    """

    def __init__(self, exec_root: Path, *, oci: str = "crun") -> None:
        """Find the OCI runtime. `exec_root` is this engine's alone.

        Blocks for a millisecond. Raises: BennuError without an OCI runtime.
        """
        self._oci = OciRuntime(find_runtime(oci), exec_root / "oci")
        self._oci.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._shms = exec_root / "shm"
        self._seccomp = SeccompCache()
        self.cgroups = Cgroups()
        self.host = read_host_facts(self.cgroups)
        self.bundles = Bundles(exec_root)
        self.execs = ContainerExecs(self.bundles, self.cgroups, self._oci, sorted(self.host.capabilities))
        self.freezer = Freezer(self.bundles, self.cgroups)
        self.observer = ContainerObserver(self.bundles, self.cgroups)
        self.streams = ContainerStreams(self.bundles)
        self.logs = LogWriter(exec_root, self._enter_conmon_group)

    @property
    def oci(self) -> OciRuntime:
        """The runtime itself, for containers that are not this engine's records: steps of builds."""
        return self._oci

    @property
    def oci_name(self) -> str:
        """crun or runc: which one is used."""
        return "crun" if self._oci.is_crun else "runc"

    def make_shm(self, container_id: str, size_bytes: int) -> Path:
        """Mount a /dev/shm on the host for a container that shares it; `delete` unmounts it. Idempotent.

        Blocks for a moment. Raises: BennuError.
        """
        mount_shm(self.shm_of(container_id), size_bytes)
        return self.shm_of(container_id)

    def shm_of(self, container_id: str) -> Path:
        """Answer where the /dev/shm of a container that shares it is, if it lives."""
        return entry_of(self._shms, container_id)

    async def open_logs(self) -> None:
        """Have the logs of the containers that are there written on; some may be waiting for that."""
        try:
            await self.logs.take_up(self.bundles.jobs())
        except CANNOT_START as error:
            log.error("logs are not written, which is tried again: %s", error)

    # --- creation -------------------------------------------------------------------------------------------------

    async def create(self, container_id: str, request: BundleRequest) -> Created:
        """Make the container's process, stopped before its program begins. Leftovers of the same id are deleted.

        A failure or a cancellation leaves nothing; a cancelled creation is finished before it is undone, for one cut
        short leaves processes that nobody knows. Raises: RuntimeFailure in runc's words; BennuError.
        """
        await self._delete(container_id)
        creation = asyncio.ensure_future(self._create(container_id, request))
        try:
            return await asyncio.shield(creation)
        except BaseException:
            await settle(creation)
            await asyncio.shield(self.delete(container_id))
            raise

    async def _create(self, container_id: str, request: BundleRequest) -> Created:
        bundle = self.bundles.of(container_id)
        bundle.root.mkdir(mode=0o700)
        spec = self._seccomp.shorten(request.spec) if self._oci.is_crun else request.spec
        bundle.config.write_bytes(msgspec.json.encode(spec))
        tty = bool(request.spec["process"].get("terminal"))
        keeper = make_stdin(bundle.stdin) if request.open_stdin and not tty else None
        facts = BundleFacts(
            id=container_id,
            cgroup=request.spec["linux"]["cgroupsPath"],
            tty=tty,
            stdin=request.open_stdin,
            stdin_once=request.stdin_once,
            keeper_fd=keeper.descriptor if keeper else -1,
            shared_pids=_shares_pids(request.spec),
        )
        bundle.write_facts(facts)
        try:
            report = await self._run_conmon(bundle, facts, request)
        finally:
            if keeper:
                keeper.close()
        if report.data <= 0:
            raise create_failure(report.message, request.spec)
        if self._oci.is_crun:
            self._seccomp.learn(request.spec, self._oci.root / container_id / "seccomp.bpf")
        conmon_pid = read_pid(bundle.conmon_pid_file)
        if parent_of(report.data) not in (conmon_pid, 0):
            bundle.orphan_marker.touch()
        self._check_mounted(bundle, facts, report.data, request.spec)
        return Created(report.data, conmon_pid)

    async def _run_conmon(self, bundle: Bundle, facts: BundleFacts, request: BundleRequest) -> ConmonReport:
        """Start conmon, and have its log written. Raises: BennuError, OSError."""
        with Descriptors() as ours:
            kept = [facts.keeper_fd] if facts.keeper_fd >= 0 else []
            writing: asyncio.Task[None] | None = None
            if request.log is not None:
                kept.append(ours.add(make_pipe(bundle.log)))
                writing = asyncio.create_task(self._write_log(bundle, request.log, os.dup(kept[-1])))
            asked = ConmonRequest(
                container_id=facts.id,
                bundle=bundle.root,
                pid_file=bundle.pid_file,
                conmon_pid_file=bundle.conmon_pid_file,
                exit_dir=self.bundles.exits,
                runtime=self._oci.command_for_others,
                log=bundle.log if request.log is not None else None,
                tty=facts.tty,
                stdin=bundle.stdin if facts.keeper_fd >= 0 else None,
            )
            try:
                report = await run_conmon(asked, enter=self._enter_conmon_group, keep_fds=kept)
            except BaseException:
                if writing is not None:
                    await settle(writing)  # else it could be told of after it was undone
                raise
            if writing is not None:
                await writing
            return report

    async def _write_log(self, bundle: Bundle, log: Job, pipe: int) -> None:
        """Have the log written, which is there from now on. Takes the pipe over. Raises: OSError."""
        with Descriptors() as until_told:
            until_told.add(pipe)
            job = log._replace(run=secrets.token_hex(8), pipe=str(bundle.log))
            os.close(os.open(job.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, LOG_MODE))
            bundle.write_job(job)
            until_told.give_away(pipe)
        await self.logs.write(job, pipe)

    def _check_mounted(self, bundle: Bundle, facts: BundleFacts, pid: int, spec: Mapping[str, Any]) -> None:
        """Refuse mounts that came to lie where none may. Raises: RuntimeFailure; NotAlive."""
        try:
            check_mounted(pid, spec)
        except OSError as error:
            raise NotAlive(f"container {facts.id} is not running") from error
        os.close(open_process(bundle, facts))  # afterwards, so it was this process that was looked at

    async def _enter_conmon_group(self, pid: int) -> None:
        """Move conmon out of the daemon's own group, with which it would be killed; where that is refused it stays."""
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self.cgroups.enter, CONMON_GROUP, pid)

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self, container_id: str) -> None:
        """Let a created container's program begin. Raises: NotAlive, BennuError."""
        await self._oci.start(container_id)

    async def kill(self, container_id: str, signum: int) -> SignalView:
        """Signal its first process; answer the kernel's view of it just before. Raises: NotAlive if there is none."""
        bundle, facts = self.bundles.find(container_id)
        pidfd = open_process(bundle, facts)
        try:
            process = signal_view(read_pid(bundle.pid_file))
            signal.pidfd_send_signal(pidfd, signum)
            return process
        except ProcessLookupError:
            raise NotAlive(f"container {container_id} is not running") from None
        finally:
            os.close(pidfd)

    async def kill_everyone(self, container_id: str) -> None:
        """Send SIGKILL to every process in its control group."""
        _, facts = self.bundles.find(container_id)
        await asyncio.to_thread(self.cgroups.kill, facts.cgroup, signal.SIGKILL)

    async def update(self, container_id: str, host_config: HostConfig) -> None:
        """Put new limits in force in a living container. Raises: NotAlive, BennuError (then the old ones hold)."""
        bundle, facts = self.bundles.find(container_id)
        spec = msgspec.json.decode(bundle.config.read_bytes())
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
        bundle.config.write_bytes(msgspec.json.encode(spec))

    async def _free_cpus(self, group: str) -> None:
        """Remove idle groups below: version 1 takes no CPU from a group while one below has it."""
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
        bundle = self.bundles.of(container_id)
        facts = bundle.read_facts()
        if facts is not None and not bundle.pid_file.exists():
            await self._settle_creation(container_id)
        with self.bundles.held_conmon(container_id) as conmon:
            if self._is_known_to_runtime(container_id, facts):
                await self._oci.delete(container_id)
            if facts is not None:
                await self.cgroups.clear(facts.cgroup)
            if conmon >= 0:
                await _end_conmon(conmon)
        await self.logs.finish(container_id)
        await asyncio.to_thread(self._remove_files, container_id)
        bundle.exit_file.unlink(missing_ok=True)

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
        """Tell whether the runtime has to delete it: crun knows an ended container only by files, which we remove."""
        if not (self._oci.root / container_id).exists():
            return False
        pid = read_pid(self.bundles.of(container_id).pid_file)
        return not self._oci.is_crun or facts is None or pid == 0 or is_in_group(pid, facts.cgroup)

    def _remove_files(self, container_id: str) -> None:
        shutil.rmtree(self.bundles.of(container_id).root, ignore_errors=True)
        shutil.rmtree(self._oci.root / container_id, ignore_errors=True)


def _shares_pids(spec: Mapping[str, Any]) -> bool:
    """Tell whether its PID namespace is another's: the kernel then kills nobody when its first process ends."""
    return not any(space["type"] == "pid" and not space.get("path") for space in spec["linux"]["namespaces"])


async def _end_conmon(pidfd: int) -> None:
    """Wait for conmon, whose container is gone; one that hangs on a client for 2 s is killed."""
    try:
        async with asyncio.timeout(2):
            await wait_readable(pidfd)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await wait_readable(pidfd)
