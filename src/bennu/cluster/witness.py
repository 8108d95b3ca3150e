"""What is seen of the two versions of a service while a canary is watched, beyond what is stored of their tasks.

Once a second each task of a watched service is looked at: was it killed for lack of memory, did it lose its health or
its readiness, how long did its health probes take, how many connections did its network take and how many did it
refuse or reset (counted by the kernel, in the task's own namespace). All of it is in memory: a daemon that comes back
begins to look anew, while deaths and lifetimes, which are stored, count from the rollout's beginning.

The judge is asked again at every look, and who asks often enough is told of a difference by chance alone. So refused
connections, the one sign that every version shows now and then, are put forward only when chance hardly explains them.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from bennu.cluster.manager import Manager
from bennu.cluster.records import TaskRow
from bennu.cluster.state import State
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.engine.record import HealthProbe
from bennu.errors import BennuError
from bennu.orchestration.config import is_watched
from bennu.orchestration.evidence import Cohort, Evidence, binomial_tail
from bennu.orchestration.model import Service, Task
from bennu.orchestration.watched import evidence_from_tasks, is_of_rollout

LOOK_EVERY_S: Final = 1.0
KEPT_PROBES: Final = 1000  # of one task
HARDLY: Final = 0.001


@dataclass(slots=True)
class Ledger:
    """Of one task, since it was first looked at."""

    oom_kills: int = 0
    health_flaps: int = 0
    readiness_flaps: int = 0
    probes_ns: list[int] = field(default_factory=list)
    connections: int = 0
    refused: int = 0
    was_healthy: bool = False
    was_ready: bool = False
    last_probe: str = ""
    counted: tuple[int, int] | None = None  # the kernel's counters when last looked at


class Witness:
    """`run` it beside the manager, which asks for what was seen."""

    def __init__(self, engine: Engine, state: State, manager: Manager) -> None:
        self._engine = engine
        self._state = state
        self._manager = manager
        self._ledgers: dict[str, dict[str, Ledger]] = {}  # by service, by task
        self._rollouts: dict[str, int] = {}  # which rollout of the service they are of
        manager.testify = self.testify

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            watched = [row for row in self._state.services if _is_under_watch(row.service)]
            for service_id in self._ledgers.keys() - {row.id for row in watched}:
                del self._ledgers[service_id]
            for row in watched:
                assert row.service.rollout is not None
                if self._rollouts.get(row.id) != row.service.rollout.began_at_ns:
                    self._rollouts[row.id] = row.service.rollout.began_at_ns
                    self._ledgers.pop(row.id, None)
                tasks = [item for item in self._state.tasks_of(row.id) if item.container_id]
                for item in tasks:
                    await self._look_at(self._ledgers.setdefault(row.id, {}).setdefault(item.id, Ledger()), item)
                self._manager.look_again(row.id)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_at(self, ledger: Ledger, row: TaskRow) -> None:
        try:
            container = self._engine.find(row.container_id)
        except BennuError:
            return
        _note_signs(ledger, container)
        if container.record.running and not row.task.has_ended:
            counted = await asyncio.to_thread(read_tcp_counters, container.record.pid)
            if counted is not None and ledger.counted is not None and counted[0] >= ledger.counted[0]:
                ledger.connections += counted[0] - ledger.counted[0]
                ledger.refused += counted[1] - ledger.counted[1]
            ledger.counted = counted

    def testify(self, service: Service, tasks: list[Task], now_ns: int) -> Evidence | None:
        """What is known of both versions; None when no rollout is under way."""
        rollout = service.rollout
        if rollout is None:
            return None
        stored = evidence_from_tasks(service, tasks, now_ns=now_ns)
        fresh = self._rollouts.get(service.id) == rollout.began_at_ns
        ledgers = self._ledgers.get(service.id, {}) if fresh else {}
        new = {task.id for task in tasks if is_of_rollout(service, rollout, task)}
        canary = _with(stored.canary, {key: one for key, one in ledgers.items() if key in new})
        stable = _with(stored.stable, {key: one for key, one in ledgers.items() if key not in new})
        return without_chance(Evidence(stable=stable, canary=canary))


def _is_under_watch(service: Service) -> bool:
    status = service.update_status
    return service.rollout is not None and status is not None and status.state.is_under_way and is_watched(service)


def _note_signs(ledger: Ledger, container: Container) -> None:
    record = container.record
    ledger.oom_kills = int(record.oom_killed)
    health = record.health
    if health is not None:
        is_healthy = health.status == "healthy"
        ledger.health_flaps += ledger.was_healthy and health.status == "unhealthy"
        ledger.was_healthy = is_healthy or (ledger.was_healthy and health.status != "unhealthy")
        for probe in health.log:
            if probe.start > ledger.last_probe:
                ledger.last_probe = probe.start
                ledger.probes_ns.append(took_ns(probe))
        del ledger.probes_ns[:-KEPT_PROBES]
    is_ready = container.readiness.ready is True
    ledger.readiness_flaps += ledger.was_ready and container.readiness.ready is False
    ledger.was_ready = is_ready


def took_ns(probe: HealthProbe) -> int:
    return int((datetime.fromisoformat(probe.end) - datetime.fromisoformat(probe.start)).total_seconds() * 1e9)


def _with(cohort: Cohort, ledgers: Mapping[str, Ledger]) -> Cohort:
    probes = sorted(took for one in ledgers.values() for took in one.probes_ns)
    return replace(
        cohort,
        oom_kills=sum(one.oom_kills for one in ledgers.values()),
        health_flaps=sum(one.health_flaps for one in ledgers.values()),
        readiness_flaps=sum(one.readiness_flaps for one in ledgers.values()),
        connections=sum(one.connections for one in ledgers.values()),
        connection_failures=sum(one.refused for one in ledgers.values()),
        probes=len(probes),
        probe_p95_ns=probes[int(0.95 * (len(probes) - 1))] if probes else 0,
    )


def without_chance(evidence: Evidence) -> Evidence:
    """The same without refused connections that chance may well explain."""
    canary, stable = evidence.canary, evidence.stable
    taken = canary.connections + stable.connections
    failures = canary.connection_failures + stable.connection_failures
    share = canary.connections / taken if taken and stable.connections else 0.5
    if failures and binomial_tail(canary.connection_failures, failures, share) <= HARDLY:
        return evidence
    return Evidence(
        stable=replace(stable, connection_failures=0),
        canary=replace(canary, connection_failures=0),
    )


def read_tcp_counters(pid: int) -> tuple[int, int] | None:
    """Connections taken, and resets sent, in the network namespace of a process; None when it is gone. Blocks."""
    with suppress(OSError, ValueError, KeyError):
        return parse_tcp_counters(Path(f"/proc/{pid}/net/snmp").read_text())
    return None


def parse_tcp_counters(text: str) -> tuple[int, int]:
    """Of /proc/net/snmp. Raises: ValueError, KeyError."""
    names, values = [line.split()[1:] for line in text.splitlines() if line.startswith("Tcp:")]
    found = dict(zip(names, values, strict=True))
    return int(found["PassiveOpens"]), int(found["OutRsts"])
