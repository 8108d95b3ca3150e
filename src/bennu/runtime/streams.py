"""Talking with containers: their streams and terminals, their logs, further processes in them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bennu.confined.client import HELPER, Process
from bennu.errors import InvalidParameter
from bennu.runtime.attach import AttachStream, connect_attach
from bennu.runtime.bundle import Bundle, BundleFacts
from bennu.runtime.cgroups import is_in_group
from bennu.runtime.exec import ExecProcess, ExecRequest, plan_process
from bennu.runtime.exec_start import start_exec
from bennu.runtime.failures import NotAlive, RuntimeFailure
from bennu.runtime.oom import set_oom_score
from bennu.runtime.pidfd import DescriptorWriter, finish, held
from bennu.runtime.places import Places
from bennu.runtime.probe_exec import ProbeExec
from bennu.runtime.stdin import drop_keeper, open_stdin
from bennu.runtime.users import User, find_user


class Streams(Places):
    """The part of `Runtime` that carries bytes."""

    def __init__(self, exec_root: Path, *, oci: str = "crun") -> None:
        super().__init__(exec_root, oci=oci)
        self._telling = asyncio.Lock()

    async def attach(self, container_id: str) -> AttachStream:
        """Connect to its streams; between `create` and `start` nothing is missed. Raises: NotAlive."""
        place, facts = self._facts(container_id)
        try:
            sock = await connect_attach(place.root)
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
                with self._held_conmon(container_id) as conmon:
                    if conmon >= 0:
                        drop_keeper(conmon, facts.keeper_fd)

        return AttachStream(sock, writer, end_stdin)

    async def resize(self, container_id: str, height: int, width: int) -> None:
        """Tell its terminal. Without one nothing happens. Raises: NotAlive."""
        _, facts = self._facts(container_id)
        if facts.tty:
            await self._tell_conmon(container_id, f"1 {height} {width}")

    async def reopen_log(self, container_id: str) -> None:
        """Have conmon begin a new log file where the old one was; it does so soon after. Raises: NotAlive."""
        self._facts(container_id)
        await self._tell_conmon(container_id, "2 0 0")

    async def _tell_conmon(self, container_id: str, message: str) -> None:
        async with self._telling:
            try:
                control = os.open(self._bundle(container_id).control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise NotAlive(f"container {container_id} is not running") from error
            try:
                os.write(control, f"{message}\n".encode())
            finally:
                os.close(control)
            # conmon takes the first of two messages twice if it reads them together.
            await asyncio.sleep(0.01)

    async def exec(self, container_id: str, process: ExecRequest) -> ExecProcess:
        """Run a further process. A cancelled start is finished before it is undone; no process is left of it.

        Raises: RuntimeFailure in runc's words (its exit code 126, 127 or 128); NotAlive.
        """
        place, facts = self._facts(container_id)
        spec = msgspec.json.decode(place.config.read_bytes())
        user = await self._exec_user(place, facts, process.user) if process.user else None
        planned = plan_process(spec, process, user, sorted(self.host.capabilities))

        async def start() -> ExecProcess:
            started = await start_exec(
                self._oci.command,
                container_id,
                planned,
                process,
                folder=place.root,
                pid_in_file=not self._oci.is_crun,
            )
            set_oom_score(started.pid, spec["process"].get("oomScoreAdj", 0))

            def signal_it(signum: int) -> None:
                ours = held(started.pid, lambda pid: is_in_group(pid, facts.cgroup))
                with contextlib.suppress(ProcessLookupError), ours as pidfd:
                    signal.pidfd_send_signal(pidfd, signum)

            return ExecProcess(started.process, started.pid, started.outputs, started.stdin, signal_it)

        starting = asyncio.ensure_future(start())
        try:
            return await asyncio.shield(starting)
        except BaseException:
            await finish(starting)
            if not starting.cancelled() and starting.exception() is None:
                starting.result().kill()
                starting.result().discard()
            raise

    def repeat(self, container_id: str, args: Sequence[str], *, name: str) -> ProbeExec:
        """A command to be run again and again in this run of it, all it starts in a control group called `name`.

        Blocks for a moment. Raises: NotAlive.
        """
        place, facts = self._facts(container_id)
        spec = msgspec.json.decode(place.config.read_bytes())
        return ProbeExec(
            command=self._oci.command,
            container_id=container_id,
            process=plan_process(spec, ExecRequest(args=args), None, ()),
            oom_score=spec["process"].get("oomScoreAdj", 0),
            file=place.root / f"{name}.json",
            pid_file=None if self._oci.is_crun else place.root / f"{name}.pid",
            container_group=facts.cgroup,
            name=name,
            cgroups=self.cgroups,
            kill_all=self.kill_all,
        ).prepare()

    async def check_exec_user(self, container_id: str, user: str) -> None:
        """Whether a further process can run as this user. Raises: InvalidParameter in dockerd's words; NotAlive."""
        place, facts = self._facts(container_id)
        try:
            await self._exec_user(place, facts, user)
        except RuntimeFailure as failure:
            raise InvalidParameter(str(failure)) from failure

    async def _exec_user(self, place: Bundle, facts: BundleFacts, user: str) -> User:
        pidfd = self._open_process(place, facts)
        try:
            accounts = await HELPER.ask("accounts", Process(pidfd))
        finally:
            os.close(pidfd)
        return await asyncio.to_thread(find_user, user, (), accounts["passwd"], accounts["group"])
