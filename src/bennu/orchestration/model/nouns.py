"""The nouns: service, slot, task, node. Plain frozen data; every field names its writer where that is not the manager.

Theory. A *slot* is a stable place in a service (a number, or for global services a node). A *task* is one attempt to
fill it: made once, never revived, replaced by another task. What should be (`desired`) is written by the manager only;
what is (`status`) is reported by the node's agent and taken in by `tasks/observe.py`. Both only grow.

Everything the core needs to decide is stored here, also what it has to remember between two looks (when a delayed
start is due, when a stop was ordered, how often a slot was restarted, how far a rollout got): there is no memory
outside the stored state, so a manager that dies between any two actions is continued by the next one.

All instants are integer nanoseconds of the cluster's steady clock (`clock.py`), which never runs backwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NewType, TypeAlias

from bennu.orchestration.model.spec import EndpointSpec, Global, GlobalJob, ReplicatedJob, ServiceSpec, TaskSpec
from bennu.orchestration.model.states import Availability, NodeState, Origin, Role, TaskState, UpdateState

ServiceId = NewType("ServiceId", str)
TaskId = NewType("TaskId", str)
NodeId = NewType("NodeId", str)


class SlotKey(NamedTuple):
    """The name of a slot within its service: a number, or a node (then `number` is 0)."""

    number: int
    node_id: str = ""

    def __str__(self) -> str:
        return f"node {self.node_id}" if self.node_id else f"slot {self.number}"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The status last seen of a task.

    `applied_at_ns` is when the manager took it in; decisions use only that instant.
    """

    state: TaskState = TaskState.NEW
    message: str = "created"
    err: str = ""
    exit_code: int | None = None  # None: unknown, never 0 by default
    timestamp_ns: int = 0  # by the clock of whoever saw it; for people
    applied_at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt to fill a slot."""

    id: TaskId
    service_id: ServiceId
    slot: int  # 0: global, or the first slot of a replicated job
    spec: TaskSpec  # the template it was made from; never changes
    spec_version: int
    desired: TaskState
    created_at_ns: int
    origin: Origin = Origin.CREATE
    status: TaskStatus = TaskStatus()
    node_id: NodeId | None = None  # None until placed; fixed at creation in global services
    endpoint: EndpointSpec | None = None  # that of the service when the task was made
    start_at_ns: int = 0  # not to be started before: the restart delay
    stop_ordered_at_ns: int | None = None  # when `desired` first went beyond running
    running_since_ns: int | None = None  # when the manager first heard that it runs
    restarts: tuple[int, ...] = ()  # instants of the restarts of this slot and version that led here (restart.py)
    iteration: int = 0  # of a job
    waits_for_room: bool = False  # unplaceable only because of what the old task of its own slot holds
    granted: tuple[tuple[str, str], ...] = ()  # generic resources: (kind, name), or (kind, count) if nameless

    @property
    def state(self) -> TaskState:
        return self.status.state

    @property
    def has_ended(self) -> bool:
        return self.status.state > TaskState.RUNNING

    @property
    def is_wanted(self) -> bool:
        """True for a task desired to run, or to get ready for it: the `live` of Docker's reconciler."""
        return self.desired <= TaskState.RUNNING

    @property
    def host_ports(self) -> frozenset[tuple[str, int]]:
        return self.endpoint.host_ports if self.endpoint else frozenset()

    @property
    def is_running(self) -> bool:
        """True for a task that runs (and is healthy, if checked) and is meant to."""
        return self.status.state is TaskState.RUNNING and self.desired <= TaskState.COMPLETE


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """The status of a rollout as a client sees it, word for word."""

    state: UpdateState
    message: str
    started_at_ns: int | None = None
    completed_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the updater: one accepted update, resume or rollback, and the facts remembered of it.

    `slots` are all slots there were when it began: those are judged, later ones (scale-up) are not. `total` of them
    were outdated; it is the denominator of the failure ratio. `failed` grows as failures happen, each slot once; it
    stays empty while a run is watched.
    """

    began_at_ns: int
    total: int
    slots: frozenset[SlotKey] = frozenset()
    failed: tuple[SlotKey, ...] = ()
    settled_at_ns: int | None = None  # when the last slot was done; the final watch counts from here


@dataclass(frozen=True, slots=True)
class RollingRun(_Run):
    """A run slot by slot, judged by early deaths; a rollback is always one of these."""


@dataclass(frozen=True, slots=True)
class CanaryRun(_Run):
    """A run watched step by step. Promoted, by its judge or by a person, the rest follows as in a rolling run."""

    step: int = 0  # equal to the number of steps once all of them passed
    step_began_at_ns: int = 0
    step_ready_at_ns: int | None = None  # when the tasks of this step all ran
    verdict: str = ""  # the last judgement, in words
    promoted: bool = False


@dataclass(frozen=True, slots=True)
class BlueGreenRun(_Run):
    """A run with all green tasks beside the blue ones, then the switch; promoted once the blue ones may go."""

    ready_at_ns: int | None = None  # when all green tasks ran
    switched_at_ns: int | None = None  # when the traffic went over; always before it is promoted
    verdict: str = ""
    promoted: bool = False


WatchedRun: TypeAlias = CanaryRun | BlueGreenRun
Rollout: TypeAlias = RollingRun | CanaryRun | BlueGreenRun


@dataclass(frozen=True, slots=True)
class Revision:
    """A spec that was in force once, with the version its tasks carry."""

    number: int
    spec: ServiceSpec
    spec_version: int
    made_at_ns: int = 0


@dataclass(frozen=True, slots=True)
class JobStatus:
    iteration: int = 0
    last_execution_ns: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A service as stored. `previous` is what a rollback restores; `revisions` what `rollback --to N` can reach."""

    id: ServiceId
    spec: ServiceSpec
    spec_version: int = 0
    previous: Revision | None = None
    revisions: tuple[Revision, ...] = ()  # oldest first, the current one last
    update_status: UpdateStatus | None = None
    rollout: Rollout | None = None
    job: JobStatus | None = None
    created_at_ns: int = 0
    updated_at_ns: int = 0

    @property
    def is_job(self) -> bool:
        return isinstance(self.spec.mode, ReplicatedJob | GlobalJob)

    @property
    def is_global(self) -> bool:
        return isinstance(self.spec.mode, Global | GlobalJob)

    @property
    def iteration(self) -> int:
        return self.job.iteration if self.job else 0


@dataclass(frozen=True, slots=True)
class NodeResources:
    """The resources of a node. `generic`: kind → a count, or the names of the pieces."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic: Mapping[str, int | frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with an agent. The spec is a person's, the description is the agent's, the state is the manager's."""

    id: NodeId
    hostname: str = ""
    availability: Availability = Availability.ACTIVE
    role: Role = Role.WORKER
    labels: Mapping[str, str] = field(default_factory=dict)
    engine_labels: Mapping[str, str] = field(default_factory=dict)
    os: str = "linux"
    architecture: str = "x86_64"
    address: str = ""
    resources: NodeResources = NodeResources()
    plugins: frozenset[tuple[str, str]] = frozenset()
    cluster_volumes: frozenset[str] = frozenset()
    state: NodeState = NodeState.READY
    message: str = ""
    down_since_ns: int | None = None

    @property
    def is_usable(self) -> bool:
        """True for a node that may hold tasks at all; an `unknown` one may, because no task is moved on a doubt."""
        return self.state is not NodeState.DOWN and self.availability is not Availability.DRAIN

    @property
    def takes_new_tasks(self) -> bool:
        return self.state is NodeState.READY and self.availability is Availability.ACTIVE


def slot_key(task: Task, service: Service) -> SlotKey:
    """Return the slot a task belongs to."""
    if service.is_global:
        return SlotKey(0, task.node_id or "")
    return SlotKey(task.slot)
