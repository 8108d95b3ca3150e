"""Metrics of one task of a watched rollout, as a value: added up sample by sample, summarized for a verdict.

Latencies of probes are kept as counts in steps of about nine percent, so that metrics stay small however long they are
kept. Connections are the kernel's own counts of the task's network, which go on while no daemon looks.

The judge is asked again at every look, and a judge that is asked often enough reports a difference by chance alone. So
refused connections, the one sign that every version shows now and then, are put forward only when chance hardly
explains them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from typing import Final, NamedTuple

from bennu.orchestration.model.nouns import Rollout, Service, Task
from bennu.orchestration.rollout.canary_analysis import Cohort, Evidence, binomial_tail
from bennu.orchestration.rollout.watched_run import is_of_rollout

STEPS_AN_OCTAVE: Final = 8
HARDLY: Final = 0.001
LEAST_REFUSED: Final = 5  # fewer refused connections say nothing, whatever the chance


class ReadinessProbe(NamedTuple):
    """A probe of a task's readiness; `start` only tells probes apart and orders them."""

    start: str
    took_ns: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One observation of a task. `counted`: connections taken and resets sent; None: cannot be seen."""

    died: bool = False  # it has ended and nobody ordered that
    watched_ns: int = 0  # how long it has run since the rollout began
    was_oom_killed: bool = False
    health: str = ""
    is_ready: bool | None = None
    probes: tuple[ReadinessProbe, ...] = ()
    counted: tuple[int, int] | None = None
    serves: bool = False  # it runs and is ready: who is refused before that is only a probe


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """Metrics of one task since its first sample. Only the fields of the last sample ever decrease."""

    is_new: bool  # of the version that is rolled out
    died: bool = False
    watched_ns: int = 0
    oom_kills: int = 0
    health_flaps: int = 0
    readiness_flaps: int = 0
    latencies: Mapping[str, int] = field(default_factory=dict)  # step of the scale → probes
    connections: int = 0
    refused: int = 0
    was_healthy: bool = False
    was_ready: bool = False
    last_probe: str = ""
    counted: tuple[int, int] | None = None
    served: bool = False

    @property
    def events(self) -> tuple[int, ...]:
        """The counts that are rare and weigh much: a change of one is written at once."""
        return self.died, self.oom_kills, self.health_flaps, self.readiness_flaps


def add_sample(metrics: TaskMetrics, seen: Sample) -> TaskMetrics:
    """Return the metrics with one more sample."""
    is_healthy, is_unhealthy = seen.health == "healthy", seen.health == "unhealthy"
    fresh = [probe for probe in seen.probes if probe.start > metrics.last_probe]
    taken, refused = _since(metrics.counted, seen.counted) if metrics.served and seen.serves else (0, 0)
    return replace(
        metrics,
        died=seen.died,
        watched_ns=seen.watched_ns,
        oom_kills=max(metrics.oom_kills, int(seen.was_oom_killed)),
        health_flaps=metrics.health_flaps + (metrics.was_healthy and is_unhealthy),
        readiness_flaps=metrics.readiness_flaps + (metrics.was_ready and seen.is_ready is False),
        latencies=dict(Counter(metrics.latencies) + Counter(step_of(probe.took_ns) for probe in fresh)),
        connections=metrics.connections + taken,
        refused=metrics.refused + refused,
        was_healthy=is_healthy or (metrics.was_healthy and not is_unhealthy),
        # A daemon that has just come back has not asked yet: what was known stays true until it has.
        was_ready=metrics.was_ready if seen.is_ready is None else seen.is_ready,
        last_probe=max((probe.start for probe in fresh), default=metrics.last_probe),
        counted=metrics.counted if seen.counted is None else seen.counted,
        served=seen.serves if seen.counted is not None else metrics.served,
    )


def _since(before: tuple[int, int] | None, now: tuple[int, int] | None) -> tuple[int, int]:
    """Subtract the kernel's counters of two samples; zeros if its counters began anew."""
    if before is None or now is None or now[0] < before[0] or now[1] < before[1]:
        return 0, 0
    return now[0] - before[0], now[1] - before[1]


def build_evidence(
    service: Service,
    rollout: Rollout,
    tasks: Iterable[Task],
    metrics_by_task: Mapping[str, TaskMetrics],
    *,
    now_ns: int,
) -> Evidence:
    """Sum up what is stored and sampled of both versions. `metrics_by_task` is by task id."""
    tasks = list(tasks)
    stored = evidence_from_tasks(service, rollout, tasks, now_ns=now_ns)
    present = {str(task.id) for task in tasks}
    canary, stable = (
        summarize_cohort(
            cohort,
            [one for key, one in metrics_by_task.items() if one.is_new is is_new and key in present],
            [one for key, one in metrics_by_task.items() if one.is_new is is_new and key not in present],
        )
        for cohort, is_new in ((stored.canary, True), (stored.stable, False))
    )
    return drop_chance_failures(Evidence(stable=stable, canary=canary))


def evidence_from_tasks(service: Service, rollout: Rollout, tasks: Iterable[Task], *, now_ns: int) -> Evidence:
    """Sum up both versions from their stored tasks alone: running time and deaths since the rollout began.

    A task counts for the time after the rollout began. Its end counts if it was not ordered: by itself, or unhealthy.
    """
    cohorts = {True: Cohort(), False: Cohort()}
    for task in tasks:
        if task.node_id is None:
            continue
        cohort = cohorts[is_of_rollout(service, rollout, task)]
        cohorts[is_of_rollout(service, rollout, task)] = replace(
            cohort,
            tasks=cohort.tasks + 1,
            watched_ns=cohort.watched_ns + watched_ns(rollout, task, now_ns=now_ns),
            deaths=cohort.deaths + died_by_itself(rollout, task),
        )
    return Evidence(stable=cohorts[False], canary=cohorts[True])


def died_by_itself(rollout: Rollout, task: Task) -> bool:
    """Tell whether the task ended since the rollout began and without an order to end."""
    ended_at, ordered = task.status.applied_at_ns, task.stop_ordered_at_ns
    return task.has_ended and (ordered is None or ordered >= ended_at) and ended_at >= rollout.began_at_ns


def watched_ns(rollout: Rollout, task: Task, *, now_ns: int) -> int:
    """Measure how long the task has run since the rollout began."""
    ended_at = task.status.applied_at_ns if task.has_ended else now_ns
    since = task.running_since_ns if task.running_since_ns is not None else ended_at
    return max(0, ended_at - max(since, rollout.began_at_ns))


def drop_chance_failures(evidence: Evidence) -> Evidence:
    """Leave out refused connections that chance may well explain."""
    canary, stable = evidence.canary, evidence.stable
    taken = canary.connections + stable.connections
    failures = canary.connection_failures + stable.connection_failures
    share = canary.connections / taken if taken and stable.connections else 0.5
    few = canary.connection_failures < LEAST_REFUSED
    if not few and binomial_tail(canary.connection_failures, failures, share) <= HARDLY:
        return evidence
    return Evidence(
        stable=replace(stable, connection_failures=0),
        canary=replace(canary, connection_failures=0),
    )


def summarize_cohort(stored: Cohort, present: Iterable[TaskMetrics], forgotten: Iterable[TaskMetrics]) -> Cohort:
    """Add samples of a version's tasks to what is stored of them; `forgotten`: of tasks that are no longer stored."""
    present, forgotten = list(present), list(forgotten)
    latencies: Counter[str] = Counter()
    for one in (everyone := [*present, *forgotten]):
        latencies.update(one.latencies)
    return replace(
        stored,
        tasks=stored.tasks + len(forgotten),
        watched_ns=stored.watched_ns + sum(one.watched_ns for one in forgotten),
        deaths=stored.deaths + sum(one.died for one in forgotten),
        oom_kills=sum(one.oom_kills for one in everyone),
        health_flaps=sum(one.health_flaps for one in everyone),
        readiness_flaps=sum(one.readiness_flaps for one in everyone),
        connections=sum(one.connections for one in everyone),
        connection_failures=sum(one.refused for one in everyone),
        probes=latencies.total(),
        probe_p95_ns=quantile_ns(latencies, 0.95),
    )


def step_of(took_ns: int) -> str:
    return str(round(log2(max(1, took_ns)) * STEPS_AN_OCTAVE))


def quantile_ns(latencies: Mapping[str, int], part: float) -> int:
    """Compute the time within which this part of the probes was answered; 0 without any."""
    left = int(part * (sum(latencies.values()) - 1))
    for step in sorted(latencies, key=int):
        left -= latencies[step]
        if left < 0:
            return round(2 ** (int(step) / STEPS_AN_OCTAVE))
    return 0
