"""Rules for a task in the load balancer: when it enters, when it leaves, and when it may be told to stop.

Law (design law 5): no backend receives a new connection before it is ready or after its drain began, and no stop signal
is sent before the drain ended or its deadline passed.

        OUT ──ready──▶ IN ──to be stopped, or not ready──▶ LEFT ──connections gone, or deadline──▶ stop signal
                        ▲                                   │
                        └────────── ready again ────────────┘   (only if it is not to be stopped)

Docker takes a task out and sleeps two blind seconds before the signal. Here connections are counted: the signal comes
at once when there are none, and waits for them up to the deadline when there are. Where they cannot be counted, the two
seconds stay. UDP has no connections: one second.

Ready means: healthy if the task has a health check, else what its readiness label says, else a target port that accepts
connections; a task that publishes nothing is ready when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from bennu.orchestration.model.states import NS_PER_SECOND, TaskState

DEFAULT_DRAIN_DEADLINE_NS: Final = 10 * NS_PER_SECOND
BLIND_DRAIN_NS: Final = 2 * NS_PER_SECOND
UDP_DRAIN_NS: Final = NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Signs:
    """The visible signs of a task's readiness; None means that there is no such sign."""

    state: TaskState
    healthy: bool | None = None
    label_ready: bool | None = None
    port_accepts: bool | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    is_ready: bool
    reason: str


def decide_ready(signs: Signs) -> Readiness:
    """Decide whether a task may serve. The first sign that exists decides."""
    if signs.state is not TaskState.RUNNING:
        return Readiness(False, f"it is {signs.state.word}")
    if signs.healthy is not None:
        return Readiness(signs.healthy, "it is healthy" if signs.healthy else "it is not healthy")
    if signs.label_ready is not None:
        return Readiness(signs.label_ready, f"its readiness probe {'succeeds' if signs.label_ready else 'fails'}")
    if signs.port_accepts is not None:
        return Readiness(signs.port_accepts, f"its port {'accepts' if signs.port_accepts else 'refuses'} connections")
    return Readiness(True, "it runs and has nothing to ask")


@dataclass(frozen=True, slots=True)
class Backend:
    """A task as the load balancer's keeper sees it."""

    readiness: Readiness
    in_balancer: bool = False
    left_at_ns: int | None = None  # when it was last taken out
    is_to_stop: bool = False
    may_serve: bool = True  # blue/green: whether it is this version's turn
    has_tcp: bool = True
    has_udp: bool = False
    connections: int | None = None  # established on its ports; None: cannot be counted
    deadline_ns: int = DEFAULT_DRAIN_DEADLINE_NS


class Step(Enum):
    ENTER = "enter"  # put it into the load balancer
    LEAVE = "leave"  # take it out; established connections go on
    STOP = "stop"  # send the stop signal now
    WAIT = "wait"  # nothing now


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """One step for a backend, its reason, and when to look again at the latest (None: when something changes)."""

    step: Step
    reason: str
    wake_at_ns: int | None = None


def plan_traffic(backend: Backend, *, now_ns: int) -> TrafficPlan:
    """Plan the next step for one backend.

    Asked again after each step, and when a sign or the connection count changed.
    """
    if backend.is_to_stop:
        return _plan_drain(backend, now_ns)
    if backend.in_balancer:
        if not backend.may_serve:
            return TrafficPlan(Step.LEAVE, "the traffic was switched to another version")
        if not backend.readiness.is_ready:
            return TrafficPlan(Step.LEAVE, backend.readiness.reason)
        return TrafficPlan(Step.WAIT, f"it serves: {backend.readiness.reason}")
    if not backend.may_serve:
        return TrafficPlan(Step.WAIT, "it is another version's turn")
    if not backend.readiness.is_ready:
        return TrafficPlan(Step.WAIT, backend.readiness.reason)
    return TrafficPlan(Step.ENTER, backend.readiness.reason)


def _plan_drain(backend: Backend, now_ns: int) -> TrafficPlan:
    if backend.in_balancer:
        return TrafficPlan(Step.LEAVE, "it is to be stopped")
    left = backend.left_at_ns
    if left is None or not (backend.has_tcp or backend.has_udp):
        return TrafficPlan(Step.STOP, "it never served, so there is nothing to drain")
    waits: list[tuple[int, str]] = []
    if backend.has_udp:
        waits.append((left + min(UDP_DRAIN_NS, backend.deadline_ns), "datagrams may still be on their way"))
    if backend.has_tcp and backend.connections is None:
        waits.append((left + min(BLIND_DRAIN_NS, backend.deadline_ns), "its connections cannot be counted"))
    elif backend.has_tcp and backend.connections:
        waits.append((left + backend.deadline_ns, f"{_count(backend.connections)} open"))
    pending = [(until, why) for until, why in waits if now_ns < until]
    if pending:
        until, why = max(pending)
        return TrafficPlan(Step.WAIT, why, until)
    if backend.has_tcp and backend.connections:
        waited = (now_ns - left) / NS_PER_SECOND
        return TrafficPlan(Step.STOP, f"{_count(backend.connections)} still open after {waited:.1f} s")
    return TrafficPlan(Step.STOP, "its connections are gone" if backend.connections == 0 else "its drain is over")


def _count(connections: int) -> str:
    return "1 connection is" if connections == 1 else f"{connections} connections are"
