"""The monitors of a run while it lives: its health check, its readiness and its memory.

Monitors decide nothing and write nothing. They see the container through a `RunView` and report to it; `lifecycle`
decides the meaning. Probes of one kind never overlap; the probes of all containers share a bounded number of places.
"""

import asyncio
import contextlib
import logging
import random
import time
from typing import Final, Protocol

from bennu.engine.context import EngineContext
from bennu.engine.execs import ExecSession
from bennu.engine.policy import check_of
from bennu.engine.probes import Prober, ProbeResult
from bennu.engine.record import Record
from bennu.errors import Unavailable
from bennu.lifecycle.health import Check, next_wait_ns
from bennu.lifecycle.probe import READY, CommandProbe, Probe, probe_from_labels
from bennu.lifecycle.status import State
from bennu.runtime import ExecRequest

JITTER: Final = 0.05  # of the first interval: containers started together are not probed together
TIMED_OUT_AS: Final = 127  # exit code of the exec's event when the probe was not done in time; dockerd's
KILLED_AS: Final = 137  # and when the container ended, or was paused, under it
PROBE_BEGINS: Final = ("exec_create", "exec_start")
READY_INTERVAL_S: Final = 1.0
READY_TIMEOUT_NS: Final = 5 * 10**9

log = logging.getLogger(__name__)


class RunView(Protocol):
    """The part of a container that a monitor may use."""

    @property
    def record(self) -> Record:
        """The present record."""
        ...

    async def take_probe(self, result: ProbeResult) -> None:
        """Record a finished health probe. Raises: Unavailable when the disk refuses: this probe does not count."""
        ...

    async def take_memory_kills(self, kills: int) -> None:
        """Record that `kills` processes of the run were killed for memory."""
        ...

    def new_session(self, request: ExecRequest) -> ExecSession:
        """Make an exec session in the container that is not yet visible to any client."""
        ...

    def publish_transient(self, action: str, **details: str) -> None:
        """Publish an event that is worthless tomorrow: it is shown, and not written."""
        ...


class Monitors:
    """All monitors of one container, for one run after the other."""

    def __init__(self, services: EngineContext, container: RunView) -> None:
        self.health = HealthMonitor(services, container)
        self.readiness = ReadinessMonitor(services, container)
        self.memory = MemoryMonitor(services, container)

    def watch(self) -> None:
        """Begin every monitoring of the present run that the container's configuration asks for."""
        self.health.watch()
        self.readiness.watch()
        self.memory.watch()

    def stop(self) -> None:
        """Stop all monitors. Idempotent."""
        self.health.stop()
        self.readiness.stop()
        self.memory.stop()


class HealthMonitor:
    """The monitor that probes on schedule, as the container's health check says."""

    def __init__(self, services: EngineContext, container: RunView) -> None:
        self._services = services
        self._container = container
        self._task: asyncio.Task[None] | None = None
        self._former: asyncio.Task[None] | None = None  # was stopped; it may still be ending its last probe

    def watch(self) -> None:
        """Begin to probe the present run, if it has a check."""
        self.stop()
        record = self._container.record
        check = check_of(record.config)
        if check is not None and record.state is State.RUNNING:
            checking = self._keep_checking(check, self._former)
            self._task = self._services.tasks.create_task(checking, name=f"health {record.id[:12]}")

    def stop(self) -> None:
        """Stop probing and end everything that a probe has started. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._former, self._task = self._task, None

    async def _keep_checking(self, check: Check, former: asyncio.Task[None] | None) -> None:
        services, record = self._services, self._container.record
        prober = Prober(
            services.runtime, record.id, record.pid, check.probe, timeout_ns=check.timeout_ns, purpose="health"
        )
        spread = 1 + random.random() * JITTER
        while (state := self._container.record.life.run.health) is not None:
            running_for_ns = time.time_ns() - record.started_at_ns
            await asyncio.sleep(next_wait_ns(state, check, running_for_ns=running_for_ns) * spread / 1e9)
            spread = 1.0
            if former is not None:
                await asyncio.wait([former])
            async with services.probe_places.take():
                result = await self._probe(check.probe, prober)
            try:
                await self._container.take_probe(result)
            except Unavailable as error:  # the disk is full: this probe does not count, the next one may
                log.warning("health of container %s: %s", record.id[:12], error)

    async def _probe(self, probe: Probe, prober: Prober) -> ProbeResult:
        """Run one probe; an exec probe is announced by events and visible among the execs."""
        if not isinstance(probe, CommandProbe):
            return await prober.run()
        container, code = self._container, KILLED_AS
        session = container.new_session(ExecRequest(args=probe.args))
        for verb in PROBE_BEGINS:
            container.publish_transient(f"{verb}: {session.command}", execID=session.id)
        try:
            with self._services.execs.showing(session):
                result = await prober.run()
            code = result.exit_code if result.exit_code >= 0 else TIMED_OUT_AS
        finally:
            container.publish_transient("exec_die", execID=session.id, exitCode=str(code))
        return result


class ReadinessMonitor:
    """The monitor of whether traffic may be sent, by the container's `bennu.ready.*` labels; it decides nothing else.

    It asks once a second while the container runs. The answer is known to this daemon only: the next daemon asks anew.
    `ready` is None when no label asks, or the first answer is not there yet.
    """

    def __init__(self, services: EngineContext, container: RunView) -> None:
        self.ready: bool | None = None
        self.changed = asyncio.Event()  # set, and replaced, whenever `ready` changes
        self._services = services
        self._container = container
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin to ask the present run, if a label says how. Raises nothing: labels were read at creation."""
        self.stop()
        record = self._container.record
        if record.state is State.RUNNING and (probe := self._probe()) is not None:
            name = f"ready {record.id[:12]}"
            self._task = self._services.tasks.create_task(self._keep_asking(probe), name=name)

    @property
    def is_asked(self) -> bool:
        """Whether the container has such a label."""
        return self._probe() is not None

    def _probe(self) -> Probe | None:
        return probe_from_labels(READY, self._container.record.config.labels or {})

    def stop(self) -> None:
        """Stop asking; the container then counts as not ready. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._set(None)

    async def _keep_asking(self, probe: Probe) -> None:
        services, record = self._services, self._container.record
        prober = Prober(services.runtime, record.id, record.pid, probe, timeout_ns=READY_TIMEOUT_NS, purpose="ready")
        while True:
            async with services.probe_places.take():
                result = await prober.run()
            self._set(result.exit_code == 0)
            await asyncio.sleep(READY_INTERVAL_S)

    def _set(self, ready: bool | None) -> None:
        if ready is not self.ready:
            self.ready = ready
            self.changed.set()
            self.changed = asyncio.Event()


class MemoryMonitor:
    """The monitor that tells, while a container runs, that the kernel killed a process of it for memory.

    Kills at the end of the container are reported with its end.
    """

    def __init__(self, services: EngineContext, container: RunView) -> None:
        self._services = services
        self._container = container
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin to watch for memory kills. Idempotent."""
        if self._task is None or self._task.done():
            name = f"memory of {self._container.record.id[:12]}"
            self._task = self._services.tasks.create_task(self._tell(), name=name)

    def stop(self) -> None:
        """Stop watching for memory kills. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _tell(self) -> None:
        container, is_news = self._container, False  # what was counted at first may have been told by a former daemon
        async with contextlib.aclosing(self._services.runtime.observer.watch_oom(container.record.id)) as counts:
            async for kills in counts:
                if is_news or kills > container.record.life.run.oom_told:
                    with contextlib.suppress(
                        Unavailable
                    ):  # the disk is full: it is told with the next, or with the end
                        await container.take_memory_kills(kills)
                is_news = True
