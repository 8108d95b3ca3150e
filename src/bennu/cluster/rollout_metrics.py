"""Signs of the two versions of a service while a rollout of it is watched, beyond what is stored of their tasks.

Once a second each task of a watched service is looked at: was it killed for lack of memory, did it lose its health or
its readiness, how long did its health probes take, how many connections did its network take and how many did it refuse
or reset (counted by the kernel, in the task's own namespace).

All of it outlives the daemon. It is written at once when something weighty happened (a death, a lost health), else
every ten seconds while anything changes; a daemon's death costs at most ten seconds of probe latencies.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from bennu.cluster.manager import Manager
from bennu.cluster.state import Change, ClusterState
from bennu.cluster.tables import MetricsRow, TaskRow
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.engine.record import HealthProbe
from bennu.errors import BennuError
from bennu.orchestration.model.config import is_under_watch
from bennu.orchestration.model.nouns import Rollout, Service, Task
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.rollout.task_metrics import (
    ReadinessProbe,
    Sample,
    TaskMetrics,
    add_sample,
    build_evidence,
    died_by_itself,
    watched_ns,
)
from bennu.orchestration.rollout.watched_run import is_of_rollout

LOOK_EVERY_S: Final = 1.0
WRITE_EVERY_S: Final = 10.0
log = logging.getLogger(__name__)


@dataclass(slots=True)
class MetricsBuffer:
    """Metrics of one watched rollout by task, and when they were last written."""

    began_at_ns: int
    by_task: dict[str, TaskMetrics] = field(default_factory=dict)
    written: dict[str, TaskMetrics] = field(default_factory=dict)
    written_at: float = 0.0

    def must_be_written(self, now: float) -> bool:
        if self.by_task == self.written:
            return False
        if now >= self.written_at + WRITE_EVERY_S or self.by_task.keys() != self.written.keys():
            return True
        return any(one.events != self.written[key].events for key, one in self.by_task.items())


class RolloutMetrics:
    """The sampler of watched rollouts; `run` it beside the manager, which asks for what was seen."""

    def __init__(self, engine: Engine, state: ClusterState) -> None:
        self._engine = engine
        self._state = state
        self._buffers = {
            row.id: MetricsBuffer(row.began_at_ns, dict(row.ledgers), dict(row.ledgers)) for row in state.metrics
        }

    async def run(self, manager: Manager) -> None:
        """Sample and write until cancelled; the manager is told to look after each sample."""
        while True:
            watched = [row.service for row in self._state.services if is_under_watch(row.service)]
            for service in watched:
                await self._look_at(service, now_ns=manager.now_ns)
                manager.look_again(service.id)
            try:
                await self._write({service.id for service in watched})
            except BennuError as error:
                log.warning("what was seen of a rollout could not be written: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_at(self, service: Service, *, now_ns: int) -> None:
        rollout = service.rollout
        assert rollout is not None
        buffer = self._buffers.get(service.id)
        if buffer is None or buffer.began_at_ns != rollout.began_at_ns:
            buffer = self._buffers[service.id] = MetricsBuffer(rollout.began_at_ns)
        for row in self._state.tasks_of(service.id):
            with suppress(BennuError):  # it has no container yet, or none any more
                seen = await self._sample(rollout, row, self._engine.find(row.container_id), now_ns)
                new = TaskMetrics(is_new=is_of_rollout(service, rollout, row.task))
                buffer.by_task[row.id] = add_sample(buffer.by_task.get(row.id, new), seen)

    async def _sample(self, rollout: Rollout, row: TaskRow, container: Container, now_ns: int) -> Sample:
        record = container.record
        runs = record.running and not row.task.has_ended
        return Sample(
            died=died_by_itself(rollout, row.task),
            watched_ns=watched_ns(rollout, row.task, now_ns=now_ns),
            was_oom_killed=record.oom_killed,
            health=record.health.status if record.health else "",
            is_ready=container.readiness.ready,
            probes=tuple(map(as_probe, record.health.log)) if record.health else (),
            counted=await asyncio.to_thread(read_tcp_counters, record.pid) if runs else None,
            serves=row.task.is_running and container.readiness.ready is not False,
        )

    async def _write(self, watched: set[str]) -> None:
        """Write the metrics of the watched services. Raises: Unavailable."""
        now = time.monotonic()
        due = {key: buffer for key, buffer in self._buffers.items() if key in watched and buffer.must_be_written(now)}
        over = self._state.metrics.rows.keys() - watched
        for service_id in self._buffers.keys() - watched:
            del self._buffers[service_id]
        if not due and not over:
            return
        change = Change()
        for service_id, buffer in due.items():
            row = MetricsRow(id=service_id, began_at_ns=buffer.began_at_ns, ledgers=dict(buffer.by_task))
            change.put(self._state.metrics, row)
        for service_id in over:
            change.delete(self._state.metrics, service_id)
        async with self._state.lock:
            await self._state.commit(change)
        for buffer in due.values():
            buffer.written, buffer.written_at = dict(buffer.by_task), now

    def build_evidence(self, service: Service, tasks: list[Task], now_ns: int) -> Evidence | None:
        """Sum up what is known of both versions; None when no rollout is under way."""
        rollout = service.rollout
        if rollout is None:
            return None
        buffer = self._buffers.get(service.id)
        metrics_by_task = buffer.by_task if buffer and buffer.began_at_ns == rollout.began_at_ns else {}
        return build_evidence(service, rollout, tasks, metrics_by_task, now_ns=now_ns)


def as_probe(probe: HealthProbe) -> ReadinessProbe:
    took = datetime.fromisoformat(probe.end) - datetime.fromisoformat(probe.start)
    return ReadinessProbe(probe.start, int(took.total_seconds() * 1e9))


def read_tcp_counters(pid: int) -> tuple[int, int] | None:
    """Read connections taken, and resets sent, in the network namespace of a process; None when it is gone. Blocks."""
    with suppress(OSError, ValueError, KeyError):
        return parse_tcp_counters(Path(f"/proc/{pid}/net/snmp").read_text())
    return None


def parse_tcp_counters(text: str) -> tuple[int, int]:
    """Read two counters from the text of /proc/net/snmp. Raises: ValueError, KeyError."""
    names, values = [line.split()[1:] for line in text.splitlines() if line.startswith("Tcp:")]
    found = dict(zip(names, values, strict=True))
    return int(found["PassiveOpens"]), int(found["OutRsts"])
