"""The processes of this host's containers: created, started, signalled, watched, attached to, deleted. No policy.

Nothing here is remembered between calls that is not on disk in the container's bundle, so a daemon that was just
started knows as much as the one that created the container.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from bennu.errors import BennuError
from bennu.model import HostConfig
from bennu.runtime.attach import AttachStream, connect_attach
from bennu.runtime.cgroups import Cgroups
from bennu.runtime.conmon import ConmonRequest, run_conmon
from bennu.runtime.crun import OciRuntime, find_runtime
from bennu.runtime.devices import DeviceNode, read_all_devices, read_devices
from bennu.runtime.exec import ExecProcess, ExecRequest, plan_process
from bennu.runtime.exec_start import start_exec
from bennu.runtime.failures import NotAlive, create_failure
from bennu.runtime.hostfacts import HostFacts, read_host_facts
from bennu.runtime.oom import watch_oom_kills
from bennu.runtime.paths import Bundle, Facts, read_pid
from bennu.runtime.resources import build_resources, lifted_limits
from bennu.runtime.shm import mount_shm, unmount_shm
from bennu.runtime.stats import MemoryFacts, Stats, read_memory_facts, read_stats
from bennu.runtime.stdin import drop_keeper, make_stdin, open_stdin
from bennu.runtime.users import User, resolve_user
from bennu.runtime.waiting import (
    DescriptorWriter,
    find_by_word,
    finish,
    has_word_in_command,
    is_alive,
    parent_of,
    wait_gone,
)

CONMON_GROUP = "/bennu/conmon"
FREEZE_LIMIT_MS = 1000
ID_DIGITS = 24  # of a container's id in its bundle's name


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequest:
    """What a container is created from. `spec` comes from `build_spec`; `log_path` None keeps no log."""

    spec: Mapping[str, Any]
    log_path: Path | None
    open_stdin: bool = False
    stdin_once: bool = False  # its standard input ends with the first client's


@dataclass(frozen=True, slots=True)
class Created:
    """Host pids. The container's process exists and waits for `start`."""

    pid: int
    conmon_pid: int


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a container's process ended, as its conmon saw it. `exit_code` None: conmon could not know."""

    exit_code: int | None
    finished_at_ns: int  # wall clock


@dataclass(frozen=True, slots=True)
class Recovered:
    """What there is of a container whose daemon died. Pids are 0 when that process is gone."""

    conmon_pid: int
    pid: int
    exit: ExitRecord | None


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What only a look at the root filesystem and at this host can tell about a container to be."""

    user: User
    devices: Sequence[DeviceNode]


class Runtime:
    """All of one engine's containers; `exec_root` is its alone."""

    def __init__(self, exec_root: Path, *, oci: str = "crun") -> None:
        """Raises: BennuError if no OCI runtime is installed."""
        self._bundles = exec_root / "c"
        self._exits = exec_root / "exits"
        self._shms = exec_root / "shm"
        self._oci = OciRuntime(find_runtime(oci), exec_root / "oci")
        self._telling = asyncio.Lock()
        self.cgroups = Cgroups()
        for folder in (self._bundles, self._exits, self._oci.root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @cached_property
    def host(self) -> HostFacts:
        """What this host can give; read at the first use."""
        return read_host_facts(self.cgroups)

    async def look_up(self, rootfs: Path, user: str, host_config: HostConfig) -> LookedUp:
        """Find the user in a mounted root filesystem and the devices on this host; for a `SpecRequest`.

        Raises: RuntimeFailure (128) in dockerd's words.
        """

        def look() -> LookedUp:
            devices = read_all_devices() if host_config.privileged else []
            asked = read_devices(host_config.devices or ())
            return LookedUp(resolve_user(rootfs, user, host_config.group_add or ()), [*devices, *asked])

        return await asyncio.to_thread(look)

    async def make_shm(self, container_id: str, size_bytes: int) -> Path:
        """A /dev/shm on the host, for a container that shares it; `delete` unmounts it. Idempotent."""
        await asyncio.to_thread(mount_shm, self.shm_of(container_id), size_bytes)
        return self.shm_of(container_id)

    def shm_of(self, container_id: str) -> Path:
        """Where the /dev/shm of a container that shares it is, if it lives."""
        return self._shms / container_id

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
            await asyncio.shield(self._abandon(container_id))
            raise

    async def _abandon(self, container_id: str) -> None:
        """Undo a creation. A conmon that hangs goes first: it must not go on creating what is being deleted."""
        for pid in find_by_word(_conmon_mark(container_id)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await wait_gone(pid)
        await self.delete(container_id)

    async def _create(self, container_id: str, request: BundleRequest) -> Created:
        place = self._bundle(container_id)
        place.root.mkdir(mode=0o700)
        place.config.write_bytes(msgspec.json.encode(request.spec))
        tty = bool(request.spec["process"].get("terminal"))
        keeper = make_stdin(place.stdin) if request.open_stdin and not tty else None
        facts = Facts(
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
            runtime=self._oci.command,
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
        conmon_pid = read_pid(place.conmon_pid_file)
        if parent_of(report.data) not in (conmon_pid, 0):
            place.orphan_marker.touch()
        return Created(report.data, conmon_pid)

    def _enter_conmon_group(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            self.cgroups.enter(CONMON_GROUP, pid)

    def _bundle(self, container_id: str) -> Bundle:
        return Bundle(self._bundles / container_id[:ID_DIGITS], self._exits / container_id)

    def _facts(self, container_id: str) -> tuple[Bundle, Facts]:
        place = self._bundle(container_id)
        facts = place.read_facts()
        if facts is None:
            raise NotAlive(f"container {container_id} is not running")
        return place, facts

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

    def _open_process(self, place: Bundle, facts: Facts) -> int:
        """A pidfd of the container's first process, certain to be it."""
        pid = read_pid(place.pid_file)
        try:
            pidfd = os.pidfd_open(pid) if pid else -1
        except ProcessLookupError:
            pidfd = -1
        if pidfd >= 0 and _is_in_group(pid, facts.cgroup):
            return pidfd
        if pidfd >= 0:
            os.close(pidfd)
        raise NotAlive(f"container {facts.id} is not running")

    async def pause(self, container_id: str) -> None:
        """Freeze everything in it; returns when it is frozen. Raises: NotAlive, BennuError."""
        await self._set_frozen(container_id, frozen=True)

    async def resume(self, container_id: str) -> None:
        """Let it run on. Raises: NotAlive, BennuError."""
        await self._set_frozen(container_id, frozen=False)

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
        if changed:
            await self._oci.update(container_id, msgspec.json.encode(changed))
        changed["devices"] = before.get("devices", [])
        spec["linux"]["resources"] = changed
        place.config.write_bytes(msgspec.json.encode(spec))

    async def resize(self, container_id: str, height: int, width: int) -> None:
        """Tell its terminal. Without one nothing happens. Raises: NotAlive."""
        place, facts = self._facts(container_id)
        if not facts.tty:
            return
        await self._tell_conmon(place, facts, f"1 {height} {width}\n")

    async def reopen_log(self, container_id: str) -> None:
        """Have conmon close the log and create it anew, a moment later. Raises: NotAlive."""
        place, facts = self._facts(container_id)
        await self._tell_conmon(place, facts, "2 0 0\n")

    async def _tell_conmon(self, place: Bundle, facts: Facts, message: str) -> None:
        async with self._telling:
            try:
                control = os.open(place.control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise NotAlive(f"container {facts.id} is not running") from error
            try:
                os.write(control, message.encode())
            finally:
                os.close(control)
            # conmon takes the first of two messages twice if it reads them together.
            await asyncio.sleep(0.01)

    async def delete(self, container_id: str) -> None:
        """Kill what is left of it and forget it: processes, control group, bundle, exit file. Idempotent.

        A conmon that is still busy is given a moment to write down the end. Raises: BennuError.
        """
        await self._delete(container_id)
        await asyncio.to_thread(unmount_shm, self._shms / container_id)

    async def _delete(self, container_id: str) -> None:
        place = self._bundle(container_id)
        facts = place.read_facts()
        conmon_pid = self._conmon_pid(container_id)
        if facts is not None or place.root.exists() or (self._oci.root / container_id).exists():
            await self._oci.delete(container_id)
        if facts is not None:
            await self._clear_group(facts.cgroup)
        if conmon_pid:
            await _end_conmon(conmon_pid)
        await asyncio.to_thread(self._remove_files, container_id)
        place.exit_file.unlink(missing_ok=True)

    def _remove_files(self, container_id: str) -> None:
        shutil.rmtree(self._bundle(container_id).root, ignore_errors=True)
        shutil.rmtree(self._oci.root / container_id, ignore_errors=True)  # of a creation cut short

    async def _clear_group(self, group: str) -> None:
        """The group goes when its last process has; a killed process may take a moment."""
        for _ in range(200):
            if self.cgroups.remove(group):
                return
            self.cgroups.kill(group, signal.SIGKILL)
            await asyncio.sleep(0.01)
        raise BennuError(f"control group {group} cannot be removed: {self.cgroups.pids(group)} live in it")

    # --- its end --------------------------------------------------------------------------------------------------

    async def wait_conmon(self, conmon_pid: int) -> None:
        """Return when this process is gone: the container's end is then on record. Cancel-safe."""
        await wait_gone(conmon_pid)

    async def wait_end(self, container_id: str) -> None:
        """Return when the container has ended and its end is on record. Cancel-safe.

        Of a container that shares other PID namespaces, what its first process left behind is killed.
        """
        place, facts = self._facts(container_id)
        if facts.shared_pids:
            with contextlib.suppress(NotAlive):
                pidfd = self._open_process(place, facts)
                os.close(pidfd)
                await wait_gone(read_pid(place.pid_file))
            await self._kill_all(facts.cgroup)
        conmon_pid = self._conmon_pid(container_id)
        if conmon_pid:
            await wait_gone(conmon_pid)

    async def _kill_all(self, group: str) -> None:
        """Kill until nobody is left: what forks meanwhile is met in the next round."""
        for _ in range(400):
            if not self.cgroups.pids(group):
                return
            self.cgroups.kill(group, signal.SIGKILL)
            await asyncio.sleep(0.005)

    def read_exit(self, container_id: str) -> ExitRecord | None:
        """None: no end is on record (it lives, or its conmon was killed)."""
        place = self._bundle(container_id)
        try:
            text = place.exit_file.read_text()
            ended_ns = place.exit_file.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        try:
            code: int | None = int(text)
        except ValueError:
            code = None
        # conmon writes -1, or 0 if the process was not its child, when it could not learn the status.
        if code is not None and (code < 0 or (code == 0 and place.orphan_marker.exists())):
            code = None
        return ExitRecord(code, ended_ns)

    def recover(self, container_id: str) -> Recovered:
        """What there is of it; for a daemon that did not create it itself."""
        place = self._bundle(container_id)
        facts = place.read_facts()
        pid = read_pid(place.pid_file)
        alive = facts is not None and pid != 0 and _is_in_group(pid, facts.cgroup) and is_alive(pid)
        return Recovered(self._conmon_pid(container_id), pid if alive else 0, self.read_exit(container_id))

    def _conmon_pid(self, container_id: str) -> int:
        """0: it is gone. Another process with its number is not taken for it."""
        pid = read_pid(self._bundle(container_id).conmon_pid_file)
        return pid if pid and has_word_in_command(pid, _conmon_mark(container_id)) else 0

    def oom_kills(self, container_id: str) -> int:
        """How many of its processes the kernel killed for memory, until `delete`. Also after its end."""
        facts = self._bundle(container_id).read_facts()
        return self.cgroups.oom_kills(facts.cgroup) if facts else 0

    def memory_marks(self, container_id: str) -> tuple[int, int]:
        """Its memory limit and the most it used, in bytes, until `delete`; see `Cgroups.memory_marks`."""
        facts = self._bundle(container_id).read_facts()
        return self.cgroups.memory_marks(facts.cgroup) if facts else (0, 0)

    def watch_oom(self, container_id: str) -> AsyncIterator[int]:
        """That number each time it grows, until the container is deleted."""
        facts = self._bundle(container_id).read_facts()
        return watch_oom_kills(self.cgroups, facts.cgroup if facts else "/nowhere")

    def memory(self, container_id: str) -> MemoryFacts:
        """Its memory limit and use, until `delete`. Also after its end."""
        facts = self._bundle(container_id).read_facts()
        return read_memory_facts(self.cgroups, facts.cgroup) if facts else MemoryFacts(0, 0, 0, 0)

    async def stats(self, container_id: str) -> Stats:
        """What it uses now. Raises: NotAlive."""
        _, facts = self._facts(container_id)
        return await asyncio.to_thread(read_stats, self.cgroups, facts.cgroup)

    async def describe_stuck(self, container_id: str) -> str:
        """Why it does not die, as far as the kernel tells: who is left, in what state, waiting where."""
        return await asyncio.to_thread(lambda: "; ".join(map(_describe_process, self.pids(container_id)[:5])))

    def pids(self, container_id: str) -> list[int]:
        """Host pids of all its processes. Empty if it does not live."""
        facts = self._bundle(container_id).read_facts()
        return self.cgroups.pids(facts.cgroup) if facts else []

    # --- its streams ----------------------------------------------------------------------------------------------

    async def attach(self, container_id: str) -> AttachStream:
        """Connect to its streams; between `create` and `start` nothing is missed. Raises: NotAlive."""
        place, facts = self._facts(container_id)
        try:
            sock = connect_attach(place.root)
        except OSError as error:
            raise NotAlive(f"container {container_id} is not running") from error
        writer: DescriptorWriter | None = None
        if facts.tty:
            writer = DescriptorWriter(sock.fileno(), 8192, owned=False) if facts.stdin else None
        elif facts.stdin:
            with contextlib.suppress(OSError):  # it closed its standard input
                writer = open_stdin(place.stdin)

        def end_stdin() -> None:
            if facts.stdin_once and not facts.tty:
                with contextlib.suppress(ProcessLookupError):
                    drop_keeper(read_pid(place.conmon_pid_file), facts.keeper_fd)

        return AttachStream(sock, writer, end_stdin)

    # --- further processes ----------------------------------------------------------------------------------------

    async def exec(self, container_id: str, process: ExecRequest) -> ExecProcess:
        """Run a further process. Raises: RuntimeFailure in runc's words (its exit code 126, 127 or 128); NotAlive."""
        place, facts = self._facts(container_id)
        spec = msgspec.json.decode(place.config.read_bytes())
        user = await asyncio.to_thread(self._exec_user, place, process) if process.user else None
        planned = plan_process(spec, process, user, sorted(self.host.capabilities))
        group = f"exec-{secrets.token_hex(4)}" if process.contained else ""
        if group:
            await asyncio.to_thread(self.cgroups.make_child, facts.cgroup, group)
        try:
            started = await start_exec(
                self._oci.command, container_id, planned, process, folder=place.root, group=group
            )
        except BaseException:
            self._end_exec_group(facts.cgroup, group)
            raise
        _set_oom_score(started.pid, spec["process"].get("oomScoreAdj", 0))

        async def kill_tree(signum: int) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(started.pid, signum)
            if group and signum == signal.SIGKILL:
                await self._kill_all(f"{facts.cgroup}/{group}")
                self._end_exec_group(facts.cgroup, group)
            elif group:
                self.cgroups.kill(f"{facts.cgroup}/{group}", signum)

        return ExecProcess(
            started.process,
            started.pid,
            started.outputs,
            started.stdin,
            kill_tree,
            lambda: self._end_exec_group(facts.cgroup, group),
        )

    def _exec_user(self, place: Bundle, process: ExecRequest) -> User:
        return resolve_user(Path(f"/proc/{read_pid(place.pid_file)}/root"), process.user)

    def _end_exec_group(self, group: str, name: str) -> None:
        """Gone if nothing was left running in it; else it goes with the container's."""
        if name:
            self.cgroups.remove(f"{group}/{name}")


def _describe_process(pid: int) -> str:
    proc = Path(f"/proc/{pid}")
    try:
        name, rest = (proc / "stat").read_text().rsplit(")", 1)
        where = (proc / "wchan").read_text()
    except OSError:
        return f"process {pid} is gone"
    return f"process {pid} ({name.partition('(')[2]}) is in state {rest.split()[0]} in {where or 'the kernel'}"


def _set_oom_score(pid: int, score: int) -> None:
    with contextlib.suppress(OSError):
        path = Path(f"/proc/{pid}/oom_score_adj")
        if int(path.read_text()) != score:
            path.write_text(str(score))


def _conmon_mark(container_id: str) -> str:
    """The word of its command line that tells a container's conmon."""
    return f"--cid={container_id}"


def _shares_pids(spec: Mapping[str, Any]) -> bool:
    """Its PID namespace is not its own, so the kernel does not kill the rest when its first process ends."""
    return not any(space["type"] == "pid" and not space.get("path") for space in spec["linux"]["namespaces"])


def _is_in_group(pid: int, group: str) -> bool:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    return any(path == group or path.startswith(group + "/") for path in (line.split(":", 2)[2] for line in lines))


async def _end_conmon(pid: int) -> None:
    """Its container is gone, so it is about to go; one that hangs on a client is killed."""
    try:
        async with asyncio.timeout(2):
            await wait_gone(pid)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await wait_gone(pid)
