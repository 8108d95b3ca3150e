"""Runs further processes in a container: `docker exec`, and commands that are run again and again (probes)."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

import msgspec

from bennu.confined.client import HELPER, Process
from bennu.errors import InvalidParameter
from bennu.kernel.pidfd import held
from bennu.pace import settle
from bennu.runtime.bundle import Bundle, BundleFacts, Bundles, open_process
from bennu.runtime.cgroups import Cgroups, is_in_group
from bennu.runtime.crun import OciRuntime
from bennu.runtime.exec import ExecProcess, ExecRequest, plan_process
from bennu.runtime.exec_start import start_exec
from bennu.runtime.failures import RuntimeFailure
from bennu.runtime.oom import set_oom_score
from bennu.runtime.probe_exec import ProbeExec
from bennu.runtime.users import User, find_user


class ContainerExecs:
    """Further processes of containers. `capabilities`: what a privileged one gets, the most this host can give."""

    def __init__(self, bundles: Bundles, cgroups: Cgroups, oci: OciRuntime, capabilities: Sequence[str]) -> None:
        self._bundles = bundles
        self._cgroups = cgroups
        self._oci = oci
        self._capabilities = capabilities

    async def run(self, container_id: str, process: ExecRequest) -> ExecProcess:
        """Run a further process. A cancelled start is finished before it is undone; no process is left of it.

        Raises: RuntimeFailure in runc's words (its exit code 126, 127 or 128); NotAlive.
        """
        bundle, facts = self._bundles.find(container_id)
        spec = msgspec.json.decode(bundle.config.read_bytes())
        user = await self._exec_user(bundle, facts, process.user) if process.user else None
        planned = plan_process(spec, process, user, self._capabilities)

        async def start() -> ExecProcess:
            started = await start_exec(
                self._oci.command,
                container_id,
                planned,
                process,
                folder=bundle.root,
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
            await settle(starting)
            if not starting.cancelled() and starting.exception() is None:
                starting.result().kill()
                starting.result().discard()
            raise

    def prepare_probe(self, container_id: str, args: Sequence[str], *, name: str) -> ProbeExec:
        """Prepare a command that is run again and again, in a control group `name` below the container's.

        Blocks for a moment. Raises: NotAlive.
        """
        bundle, facts = self._bundles.find(container_id)
        spec = msgspec.json.decode(bundle.config.read_bytes())
        return ProbeExec(
            command=self._oci.command,
            container_id=container_id,
            process=plan_process(spec, ExecRequest(args=args), None, ()),
            oom_score=spec["process"].get("oomScoreAdj", 0),
            file=bundle.root / f"{name}.json",
            pid_file=None if self._oci.is_crun else bundle.root / f"{name}.pid",
            container_group=facts.cgroup,
            name=name,
            cgroups=self._cgroups,
        ).prepare()

    async def check_user(self, container_id: str, user: str) -> None:
        """Refuse a user that a further process cannot run as. Raises: InvalidParameter in dockerd's words; NotAlive."""
        bundle, facts = self._bundles.find(container_id)
        try:
            await self._exec_user(bundle, facts, user)
        except RuntimeFailure as failure:
            raise InvalidParameter(str(failure)) from failure

    async def _exec_user(self, bundle: Bundle, facts: BundleFacts, user: str) -> User:
        pidfd = open_process(bundle, facts)
        try:
            accounts = await HELPER.ask("accounts", Process(pidfd))
        finally:
            os.close(pidfd)
        return await asyncio.to_thread(find_user, user, (), accounts["passwd"], accounts["group"])
