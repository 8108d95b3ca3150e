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

import msgspec

from bennu.engine.execs import ExecSession
from bennu.engine.probes import Prober, ProbeResult
from bennu.engine.record import Health, HealthProbe, Record, new_id
from bennu.errors import Conflict, NotModified, Unavailable
from bennu.lifecycle.death import Asker, Verb
from bennu.lifecycle.health import (
    KEPT_RESULTS,
    Check,
    HealthState,
    HealthStatus,
    Judged,
    OnUnhealthy,
    judge,
    next_wait_ns,
    on_unhealthy,
    plan_check,
)
from bennu.lifecycle.probe import CommandProbe, Probe
from bennu.lifecycle.status import State
from bennu.model import ContainerConfig
from bennu.runtime import ExecRequest

if TYPE_CHECKING:
    from bennu.engine.supervisor import Supervisor

log = logging.getLogger(__name__)

JITTER: Final = 0.05  # of the first interval: containers started together are not probed together
TIMED_OUT_AS: Final = 127  # exit code of the exec's event when the probe was not done in time; dockerd's
KILLED_AS: Final = 137  # and when the container ended, or was paused, under it
PROBE_BEGINS: Final = ("exec_create", "exec_start")


def check_of(config: ContainerConfig) -> Check | None:
    """The health check in force; None: there is none, or it is switched off. Raises: InvalidParameter (its labels)."""
    asked = config.healthcheck if isinstance(config.healthcheck, msgspec.Struct) else None
    return plan_check(
        asked.test if asked else None,
        interval_ns=asked.interval if asked else 0,
        timeout_ns=asked.timeout if asked else 0,
        start_period_ns=asked.start_period if asked else 0,
        start_interval_ns=asked.start_interval if asked else 0,
        retries=asked.retries if asked else 0,
        shell=config.shell if isinstance(config.shell, list) else None,
        labels=config.labels,
    )


def starting(record: Record) -> Health | None:
    """`State.Health` as a run begins: the log of earlier runs is kept."""
    if check_of(record.config) is None:
        return None
    return Health(status=HealthStatus.STARTING, failing_streak=0, log=list(record.health.log) if record.health else [])


def not_monitored(health: Health | None) -> Health | None:
    """While nobody looks (paused, ended) a container counts as unhealthy: dockerd's rule, without an event."""
    return msgspec.structs.replace(health, status=HealthStatus.UNHEALTHY) if health else None


class Monitor:
    """Watches the health of one container's runs, one after the other."""

    def __init__(self, container: "Supervisor") -> None:
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
        while (health := container.record.health) is not None:
            state = HealthState(HealthStatus(health.status), health.failing_streak)
            running_for_ns = time.time_ns() - record.started_at_ns
            await asyncio.sleep(next_wait_ns(state, check, running_for_ns=running_for_ns) * spread / 1e9)
            spread = 1.0
            if former is not None:
                await asyncio.wait([former])
            async with services.probe_places.take():
                result = await _probe(container, check.probe, prober)
            try:
                await self._note(check, result)
            except Unavailable as error:  # the disk is full: this probe does not count, the next one may
                log.warning("health of container %s: %s", container.id[:12], error)

    async def _note(self, check: Check, result: ProbeResult) -> None:
        """Take in a result: a change of status is written and told at once."""
        container = self._container
        async with container.lock:
            record = container.record
            if record.state is not State.RUNNING or record.health is None or result.start_ns < record.started_at_ns:
                return
            health, judged = take_in(record, check, result)
            # What was decided for its being unhealthy is void once it is healthy.
            revive = record.revive and health.status != HealthStatus.HEALTHY
            noted = msgspec.structs.replace(record, health=health, revive=revive)
            if judged.changed:
                await container.commit(noted, [container.event(f"health_status: {health.status}")])
            else:
                container.record = noted
        if judged.failed:
            self._act_on_unhealthy(judged.reason)

    def _act_on_unhealthy(self, reason: str) -> None:
        """Do in the background what the label `bennu.on-unhealthy` asks; Docker does nothing."""
        container = self._container
        action = on_unhealthy(container.record.config.labels or {})
        if action is not OnUnhealthy.NONE:
            name = f"unhealthy {container.id[:12]}"
            container.services.tasks.create_task(_act(container, action, reason), name=name)


async def _act(container: "Supervisor", action: OnUnhealthy, reason: str) -> None:
    by = Asker("health", command=reason)
    with contextlib.suppress(Conflict, NotModified):  # it ended meanwhile
        match action:
            case OnUnhealthy.KILL:
                await container.send(SIGKILL, by, Verb.KILL, for_good=False)
            case OnUnhealthy.RESTART:
                await container.revive(by)
            case OnUnhealthy.STOP:
                await container.stop(by)


async def _probe(container: "Supervisor", probe: Probe, prober: Prober) -> ProbeResult:
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


def take_in(record: Record, check: Check, result: ProbeResult) -> tuple[Health, Judged]:
    """The health after a probe, and what the probe means. The record must have a health."""
    assert record.health is not None
    state = HealthState(HealthStatus(record.health.status), record.health.failing_streak)
    judged = judge(state, check, exit_code=result.exit_code, started_after_ns=result.start_ns - record.started_at_ns)
    entry = HealthProbe(
        start=local_time(result.start_ns),
        end=local_time(result.end_ns),
        exit_code=result.exit_code,
        output=result.output,
    )
    log = [*record.health.log, entry][-KEPT_RESULTS:]
    return Health(status=judged.state.status, failing_streak=judged.state.failing_streak, log=log), judged


def local_time(instant_ns: int) -> str:
    """RFC 3339 with nine digits in the daemon's own zone, as dockerd writes probe times."""
    seconds, nanos = divmod(instant_ns, 10**9)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + f".{nanos:09d}{zone}"
