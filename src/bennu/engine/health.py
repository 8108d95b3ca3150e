"""The health of one running container: probes on schedule, results to the state machine, and what is done about it.

Probes of one container never overlap; those of all containers share a bounded number of places. Results are kept in
memory and reach the disk with the next change of state, as with dockerd; a change of status is written at once.
"""

import asyncio
import contextlib
import logging
import random
import time
from signal import SIGKILL
from typing import TYPE_CHECKING, Final

from bennu.engine.execs import ExecSession
from bennu.engine.policy import check_of
from bennu.engine.probes import Prober, ProbeResult
from bennu.engine.record import HealthProbe, new_id
from bennu.errors import Conflict, NotModified, Unavailable
from bennu.lifecycle.death import Asker, Verb
from bennu.lifecycle.health import (
    KEPT_RESULTS,
    Check,
    OnUnhealthy,
    next_wait_ns,
)
from bennu.lifecycle.life_events import ActOnUnhealthy, Probed, SignalAsked
from bennu.lifecycle.probe import CommandProbe, Probe
from bennu.lifecycle.status import State
from bennu.runtime import ExecRequest

if TYPE_CHECKING:
    from bennu.engine.container import Container

log = logging.getLogger(__name__)

JITTER: Final = 0.05  # of the first interval: containers started together are not probed together
TIMED_OUT_AS: Final = 127  # exit code of the exec's event when the probe was not done in time; dockerd's
KILLED_AS: Final = 137  # and when the container ended, or was paused, under it
PROBE_BEGINS: Final = ("exec_create", "exec_start")


class Monitor:
    """Watches the health of one container's runs, one after the other."""

    def __init__(self, container: "Container") -> None:
        self._container = container
        self._task: asyncio.Task[None] | None = None
        self._former: asyncio.Task[None] | None = None  # was stopped; it may still be ending its last probe

    @property
    def watches(self) -> bool:
        return self._task is not None

    def watch(self) -> None:
        """Begin to probe the present run, if it has a check."""
        self.stop()
        container = self._container
        check = check_of(container.record.config)
        if check is not None and container.record.state is State.RUNNING:
            name = f"health {container.id[:12]}"
            checking = self._keep_checking(check, self._former)
            self._task = container.services.tasks.create_task(checking, name=name)

    def stop(self) -> None:
        """Idempotent. What a probe has started is ended."""
        if self._task is not None:
            self._task.cancel()
            self._former, self._task = self._task, None

    async def _keep_checking(self, check: Check, former: asyncio.Task[None] | None) -> None:
        container = self._container
        services, record = container.services, container.record
        prober = Prober(
            services.runtime, record.id, record.pid, check.probe, timeout_ns=check.timeout_ns, purpose="health"
        )
        spread = 1 + random.random() * JITTER
        while (state := container.record.life.run.health) is not None:
            running_for_ns = time.time_ns() - record.started_at_ns
            await asyncio.sleep(next_wait_ns(state, check, running_for_ns=running_for_ns) * spread / 1e9)
            spread = 1.0
            if former is not None:
                await asyncio.wait([former])
            async with services.probe_places.take():
                result = await _probe(container, check.probe, prober)
            try:
                await self._note(result)
            except Unavailable as error:  # the disk is full: this probe does not count, the next one may
                log.warning("health of container %s: %s", container.id[:12], error)

    async def _note(self, result: ProbeResult) -> None:
        """Take in a result of the present run; what was probed before it says nothing."""
        container = self._container
        async with container.lock:
            record = container.record
            if record.state is not State.RUNNING or record.health is None or result.start_ns < record.started_at_ns:
                return
            probed = Probed(exit_code=result.exit_code, started_after_ns=result.start_ns - record.started_at_ns)
            await container.advance(probed, probes=[*record.probes, shown(result)][-KEPT_RESULTS:])


def act_on_unhealthy(container: "Container", asked: ActOnUnhealthy) -> None:
    """Do in the background what the label `bennu.on-unhealthy` asks; Docker does nothing."""
    container.services.tasks.create_task(_act(container, asked), name=f"unhealthy {container.id[:12]}")


async def _act(container: "Container", asked: ActOnUnhealthy) -> None:
    by = Asker("health", command=asked.reason)
    with contextlib.suppress(Conflict, NotModified):  # it ended meanwhile
        match asked.action:
            case OnUnhealthy.KILL:
                await container.send(SignalAsked(number=SIGKILL, by=by, verb=Verb.KILL, for_good=False))
            case OnUnhealthy.RESTART:
                await container.restart_unhealthy(by)
            case OnUnhealthy.STOP:
                await container.stop(by)


async def _probe(container: "Container", probe: Probe, prober: Prober) -> ProbeResult:
    """One probe; if it is an exec, with its events, and to be seen among the execs."""
    if not isinstance(probe, CommandProbe):
        return await prober.run()
    session = ExecSession(id=new_id(), container=container, request=ExecRequest(args=probe.args))
    journal, code = container.services.journal, KILLED_AS
    journal.tell([container.event(f"{verb}: {session.command}", execID=session.id) for verb in PROBE_BEGINS])
    try:
        with container.services.execs.showing(session):
            result = await prober.run()
        code = result.exit_code if result.exit_code >= 0 else TIMED_OUT_AS
    finally:
        journal.tell([container.event("exec_die", execID=session.id, exitCode=str(code))])
    return result


def shown(result: ProbeResult) -> HealthProbe:
    """As `State.Health.Log` has it."""
    return HealthProbe(
        start=local_time(result.start_ns),
        end=local_time(result.end_ns),
        exit_code=result.exit_code,
        output=result.output,
    )


def local_time(instant_ns: int) -> str:
    """RFC 3339 with nine digits in the daemon's own zone, as dockerd writes probe times."""
    seconds, nanos = divmod(instant_ns, 10**9)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + f".{nanos:09d}{zone}"
