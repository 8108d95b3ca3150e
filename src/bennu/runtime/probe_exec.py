"""Runs one command in a container again and again, each time to its end, at little cost: a probe.

What is the same every time is worked out once and lies beside the container's configuration, where the runtime reads
it. All that the command ever starts is in one control group below the container's. The group is kept between the
runs, for making and removing it would cost more than all else the daemon does; it is empty after each.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.kernel.descriptor_io import wait_readable
from bennu.pace import settle
from bennu.runtime.cgroups import Cgroups
from bennu.runtime.descriptors import Descriptors
from bennu.runtime.exec_report import read_errors, read_new_pid
from bennu.runtime.failures import NotAlive, exec_failure
from bennu.runtime.oom import set_oom_score

START_TIMEOUT_S: Final = 30  # for the runtime to set it up; dockerd's
PIECE_BYTES: Final = 65536
ENVIRONMENT: Final = {"PATH": os.environ.get("PATH", os.defpath)}  # the runtime's, not the command's


@dataclass(frozen=True, slots=True)
class ProbeExecResult:
    """How a run ended. `exit_code` 128+n: signal n did it; None: it was not done in time, and was killed.

    `output` is of both streams, as they came; a byte more than was to be kept says that there was more.
    """

    exit_code: int | None
    output: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeExec:
    """One command in one run of a container. It is run once at a time."""

    command: Sequence[str]  # the runtime and its global options
    container_id: str
    process: Mapping[str, Any]  # the OCI process object, as it lies in `file`
    oom_score: int
    file: Path
    pid_file: Path | None  # for a runtime that needs a real one
    container_group: str
    name: str  # of the control group below it
    cgroups: Cgroups

    @property
    def group(self) -> str:
        return f"{self.container_group}/{self.name}"

    def prepare(self) -> "ProbeExec":
        """Write the file of the process. To be called once, before the first run."""
        self.file.write_bytes(msgspec.json.encode(self.process))
        return self

    async def run(self, timeout_s: float, *, keep_bytes: int) -> ProbeExecResult:
        """Run to the end or to the timeout, counted from the start; nothing of it is left, also if cancelled.

        Raises: RuntimeFailure in runc's words; NotAlive; TimeoutError if it did not even start; OSError.
        """
        await self._make_room()
        with Descriptors() as mine:
            child = self._spawn(mine, keep_bytes)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    if pid := await child.wait_started(self.pid_file):
                        set_oom_score(pid, self.oom_score)
                done = await child.wait_ended(timeout_s)
            finally:
                try:
                    if child.exit_code is None or self._is_in_use():
                        await self._end(child)
                finally:
                    child.take_rest()
            code, output = child.exit_code, bytes(child.output)
            if done and code != 0 and ((said := read_errors(child.log)) or not child.started):
                raise exec_failure(said, self.process["args"], self.process["cwd"])
            return ProbeExecResult(code if done else None, output)

    def _is_in_use(self) -> bool:
        try:
            return self.cgroups.is_populated(self.group)
        except OSError:
            return False  # the container is gone, with all in it

    async def _make_room(self) -> None:
        """Provide an empty group: what a run left whose daemon was killed is killed now."""
        try:
            if self.cgroups.is_populated(self.group):
                await self.cgroups.kill_all(self.group)
        except FileNotFoundError:
            try:
                await asyncio.to_thread(self.cgroups.make_child, self.container_group, self.name)
            except FileNotFoundError:
                raise NotAlive(f"container {self.container_id} is not running") from None

    def _spawn(self, mine: Descriptors, keep_bytes: int) -> "_Child":
        with Descriptors() as theirs:
            pid_pipe, log, output = (mine.add_pipe(theirs) for _ in range(3))
            pid_write, log_write, output_write = theirs.all
            argv = [
                *self.command,
                f"--log=/proc/self/fd/{log_write}",
                "--log-format=json",
                "exec",
                f"--pid-file={self.pid_file or f'/proc/self/fd/{pid_write}'}",
                f"--process={self.file}",
                f"--cgroup={self.name}",
                self.container_id,
            ]
            # All that asyncio does for a child would cost as much as the child. Other descriptors close by themselves.
            pid = os.posix_spawn(
                argv[0],
                argv,
                ENVIRONMENT,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output_write, 1),
                    (os.POSIX_SPAWN_DUP2, output_write, 2),
                    (os.POSIX_SPAWN_DUP2, log_write, log_write),  # stays open
                    (os.POSIX_SPAWN_DUP2, pid_write, pid_write),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE],
            )
        set_oom_score(pid, self.oom_score)  # for all that it starts, unless it was quicker
        try:
            return _Child(pid, mine.add(os.pidfd_open(pid)), pid_pipe, log, output, keep_bytes)
        except OSError:  # no descriptor is left for it
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise

    async def _end(self, child: "_Child") -> None:
        """Kill what is left and wait until it is gone; a cancellation waits too."""
        ending = asyncio.ensure_future(self._kill(child))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await settle(ending)
            raise

    async def _kill(self, child: "_Child") -> None:
        if not child.started and child.exit_code is None:
            child.kill()  # what it has begun ends with it, or is in the group
        await self.cgroups.kill_all(self.group)
        # A frozen process dies when it is thawed. The runtime ends when its process has.
        await child.wait_ended(None)
        await self.cgroups.kill_all(self.group)


class _Child:
    """The runtime's process: our own child, which reports the pid of the new process, and ends with it."""

    def __init__(self, pid: int, pidfd: int, pid_pipe: int, log: int, output: int, keep_bytes: int) -> None:
        self.started = False
        self.exit_code: int | None = None
        self.output = bytearray()
        self.log = log
        self._pid = pid
        self._pidfd = pidfd
        self._pid_pipe = pid_pipe
        self._output = output
        self._room = keep_bytes + 1
        asyncio.get_running_loop().add_reader(output, self._take)

    async def wait_started(self, pid_file: Path | None) -> int:
        """Wait for the new process's pid; 0: it could not be started. Cancel-safe."""
        pid = await read_new_pid(self._pid_pipe, pid_file)
        self.started = pid > 0
        return pid

    async def wait_ended(self, timeout_s: float | None) -> bool:
        """Wait for its end, at most `timeout_s`; tell whether it came. Cancel-safe."""
        if self.exit_code is not None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await wait_readable(self._pidfd)
        except TimeoutError:
            return False
        self._reap()
        return True

    def _reap(self) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])  # it has ended: this does not wait
        self.exit_code = code if code >= 0 else 128 - code

    def kill(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def take_rest(self) -> None:
        """Take what is there still, as far as it is wanted. To be called once it has ended."""
        while len(self.output) < self._room and self._take():
            pass
        asyncio.get_running_loop().remove_reader(self._output)

    def _take(self) -> bool:
        """Read once what is there, so that nobody waits to write. False: there is nothing, or no more."""
        try:
            data = os.read(self._output, PIECE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(self._output)
        self.output += data[: self._room - len(self.output)]
        return bool(data)
