"""One round of a manager: from what is stored, and what was reported, to what has to be written.

    reports, nodes ─► apply ─┐
                             ▼
    stored ──────────────► look ─► decide ─► apply ─► look … ─► quiet: what is waited for, and when to look again
                                               │
                                               └─► writes

Laws.
* A round decides on what is stored and on what it has itself decided since; the store is the shell's. Nothing leaves a
  round but its writes, which may be cut after any of them, as a plan may.
* A look is a value: it may be decided in any thread, as long as the round is left alone meanwhile.
* What was decided about one service can be undone alone, for it touches no other.
* A round that is full is to be written before it goes on; all other work that waits has its turn then.

The manager, the simulator and the tests' stage all drive this one; theirs are the store, the timers and the threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from bennu.orchestration.model.actions import (
    Action,
    AssignTask,
    CreateTask,
    DeleteTask,
    EndTask,
    Plan,
    RefuseTask,
    RollBack,
    SetDesired,
    SetNodeState,
    SetRollout,
)
from bennu.orchestration.model.apply import allocate, apply_to_service, apply_to_task, new_task
from bennu.orchestration.model.config import is_watched
from bennu.orchestration.model.nouns import Node, NodeId, Service, ServiceId, Task, TaskId
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.reconcile.service import DEFAULT_HISTORY_LIMIT, reconcile, reconcile_removed
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.scheduler.failures import FailureLog
from bennu.orchestration.scheduler.node_set import NodeSet
from bennu.orchestration.scheduler.nodes import apply_to_node, decide_node, enforce, orphan_tasks
from bennu.orchestration.scheduler.placement import place
from bennu.orchestration.tasks.observe import Report, observe

LOOKS_UNTIL_SETTLED: Final = 100
FULL: Final = 1_000  # writes of tasks of an ordinary size
ORDINARY_BYTES: Final = 1024


class Stored(Protocol):
    """The stored values that a round reads. They do not change while a round goes on."""

    @property
    def services(self) -> Mapping[ServiceId, Service]: ...
    @property
    def tasks(self) -> Mapping[TaskId, Task]: ...
    @property
    def nodes(self) -> Mapping[NodeId, Node]: ...
    def tasks_of(self, service_id: ServiceId) -> Iterable[Task]: ...
    def tasks_on(self, node_id: NodeId) -> Iterable[Task]: ...


@dataclass(frozen=True, slots=True)
class TaskWrite:
    """A write of a task.

    `before` None: it is new. `after` None: it is deleted. `action` None: its node reported it.
    """

    before: Task | None
    after: Task | None
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class ServiceWrite:
    before: Service
    after: Service
    action: SetRollout | RollBack


@dataclass(frozen=True, slots=True)
class NodeWrite:
    before: Node
    after: Node
    action: SetNodeState


Write: TypeAlias = TaskWrite | ServiceWrite | NodeWrite

# What was seen of the tasks of a watched rollout: (service, its tasks, now_ns) → evidence, None if nothing was.
EvidenceSource: TypeAlias = Callable[[Service, list[Task], int], Evidence | None]


class NotSettled(Exception):
    """The error of a service that still asks for something after `LOOKS_UNTIL_SETTLED` looks: a bug of the core."""


@dataclass(frozen=True, slots=True)
class Look:
    """The snapshot of all that one decision about one service depends on. `service` None: it was removed."""

    service: Service | None
    tasks: list[Task]
    nodes: Mapping[NodeId, Node]
    node_set: NodeSet
    failures: FailureLog
    history_limit: int
    evidence: Evidence | None
    now_ns: int

    def decide(self) -> Plan:
        """Decide what has to be done next; a plan without actions says what is waited for. Pure."""
        if self.service is None:
            return reconcile_removed(self.tasks, self.nodes, now_ns=self.now_ns)
        plan = reconcile(
            self.service,
            self.tasks,
            self.nodes,
            now_ns=self.now_ns,
            history_limit=self.history_limit,
            evidence=self.evidence,
        )
        if plan.actions:
            return plan
        placed = place(self.service, self.tasks, self.node_set, self.failures, now_ns=self.now_ns)
        if placed.actions:
            return placed
        return Plan((), (*plan.waits, *placed.waits), plan.wake_at_ns)


class Round:
    """One round over the stored values.

    `node_set` and `failures` are the manager's own and follow each write at once.
    """

    def __init__(
        self,
        stored: Stored,
        node_set: NodeSet,
        failures: FailureLog,
        *,
        new_task_id: Callable[[], str],
        history_limit: int = DEFAULT_HISTORY_LIMIT,
        build_evidence: EvidenceSource = lambda service, tasks, now_ns: None,
    ) -> None:
        self.writes: list[Write] = []
        self.looks = 0  # taken so far
        self.nodes = stored.nodes
        self._stored = stored
        self._node_set = node_set
        self._failures = failures
        self._new_task_id = new_task_id
        self._history_limit = history_limit
        self._build_evidence = build_evidence
        self._weight = 0
        self._services: dict[ServiceId, Service] = {}  # what was decided since
        self._tasks: dict[TaskId, Task | None] = {}  # likewise; None: it is deleted
        self._known: dict[ServiceId, dict[TaskId, Task]] = {}  # of services that were looked at: all their tasks

    # -- as it will be

    @property
    def is_full(self) -> bool:
        """True when it is time to write."""
        return self._weight >= FULL

    def service(self, service_id: ServiceId) -> Service | None:
        return self._services.get(service_id) or self._stored.services.get(service_id)

    def task(self, task_id: TaskId) -> Task | None:
        return self._tasks[task_id] if task_id in self._tasks else self._stored.tasks.get(task_id)

    def tasks_of(self, service_id: ServiceId) -> list[Task]:
        return list(self._of_service(service_id).values())

    def has_unplaced(self, service_id: ServiceId) -> bool:
        """Tell whether a task of the service waits for a node that has room."""
        tasks = self._of_service(service_id).values()
        return any(task.state is TaskState.PENDING and task.desired <= TaskState.COMPLETE for task in tasks)

    def _of_service(self, service_id: ServiceId) -> dict[TaskId, Task]:
        known = self._known.get(service_id)
        if known is None:
            present = (self.task(task.id) for task in self._stored.tasks_of(service_id))
            known = self._known[service_id] = {task.id: task for task in present if task is not None}
        return known

    def _tasks_on(self, node_id: NodeId) -> list[Task]:
        present = (self.task(task.id) for task in self._stored.tasks_on(node_id))
        return [task for task in present if task is not None]

    # -- looking

    def look(self, service_id: ServiceId, *, now_ns: int) -> Look:
        """Collect what there is to decide about one service now."""
        self.looks += 1
        service, tasks = self.service(service_id), self.tasks_of(service_id)
        watched = service if service is not None and is_watched(service) else None
        return Look(
            service=service,
            tasks=tasks,
            nodes=self.nodes,
            node_set=self._node_set,
            failures=self._failures,
            history_limit=self._history_limit,
            evidence=self._build_evidence(watched, tasks, now_ns) if watched is not None else None,
            now_ns=now_ns,
        )

    def settle(self, service_id: ServiceId, *, now_ns: int) -> Plan | None:
        """Look at one service until nothing is left to do.

        Answers the quiet plan; None: the round is full before that. Raises NotSettled.
        """
        for _ in range(LOOKS_UNTIL_SETTLED):
            plan = self.look(service_id, now_ns=now_ns).decide()
            if not plan.actions:
                return plan
            for action in plan.actions:
                self.apply(action, service_id, now_ns=now_ns)
            if self.is_full:
                return None
        raise NotSettled(f"service {service_id} is not settled after {LOOKS_UNTIL_SETTLED} looks: {plan}")

    # -- what nodes say, and what is known of them

    def take_in(self, task_id: TaskId, report: Report, *, now_ns: int) -> None:
        """Take in a node's report of a task; drop it if the task is unknown, or already further."""
        task = self.task(task_id)
        if task is not None and (seen := observe(task, report, now_ns=now_ns)) is not task:
            self._put_task(task, seen, None)

    def judge_node(self, node_id: NodeId, *, is_alive: bool, now_ns: int) -> int | None:
        """Decide whether a node is up, and the fate of what it holds if it has been down for long.

        Answers when to judge anew.
        """
        for action in decide_node(self.nodes[node_id], is_alive=is_alive).actions:
            self.apply(action, now_ns=now_ns)
        plan = orphan_tasks(self.nodes[node_id], self._tasks_on(node_id), now_ns=now_ns)
        for action in plan.actions:
            self.apply(action, now_ns=now_ns)
        return plan.wake_at_ns

    def enforce_on(self, node_id: NodeId, *, now_ns: int) -> None:
        """Reject the tasks that a node changed by a person no longer fits."""
        held = self._tasks_on(node_id)
        services = {task.service_id: service for task in held if (service := self.service(task.service_id))}
        for action in enforce(self.nodes[node_id], held, services).actions:
            self.apply(action, now_ns=now_ns)

    def forget_node(self, node_id: NodeId, *, now_ns: int) -> None:
        """Give up the tasks of a node that was removed."""
        for action in orphan_tasks(None, self._tasks_on(node_id), now_ns=now_ns).actions:
            self.apply(action, now_ns=now_ns)

    # -- deciding

    def apply(self, action: Action, service_id: ServiceId | None = None, *, now_ns: int) -> None:
        """Apply an action to the values of this round. An action that changes nothing is not written."""
        match action:
            case CreateTask():
                task = new_task(action, self._service_of(service_id), TaskId(self._new_task_id()), now_ns=now_ns)
                self._of_service(task.service_id)
                self._put_task(None, allocate(task, now_ns=now_ns), action)
            case DeleteTask():
                if (gone := self.task(action.task_id)) is not None:
                    self._delete_task(gone, action)
            case SetDesired() | AssignTask() | RefuseTask() | EndTask():
                old = self.task(action.task_id)
                if old is not None and (changed := apply_to_task(old, action, now_ns=now_ns)) is not old:
                    self._put_task(old, changed, action)
            case SetRollout() | RollBack():
                service = self._service_of(service_id)
                after = self._services[service.id] = apply_to_service(service, action, now_ns=now_ns)
                self.writes.append(ServiceWrite(service, after, action))
            case SetNodeState():
                node = self.nodes[action.node_id]
                self._put_node(NodeWrite(node, apply_to_node(node, action, now_ns=now_ns), action))

    def _service_of(self, service_id: ServiceId | None) -> Service:
        service = self.service(service_id) if service_id is not None else None
        assert service is not None, "an action for a service that is not there"
        return service

    def _put_task(self, before: Task | None, after: Task, action: Action | None) -> None:
        self.writes.append(TaskWrite(before, after, action))
        self._weight += weight_of(after)
        self._remember(after.id, after, after.service_id)
        self._failures.note(after)

    def _delete_task(self, task: Task, action: DeleteTask) -> None:
        self.writes.append(TaskWrite(task, None, action))
        self._weight += 1
        self._remember(task.id, None, task.service_id)

    def _put_node(self, write: NodeWrite) -> None:
        self.writes.append(write)
        self.nodes = {**self.nodes, write.after.id: write.after}
        self._node_set.put_node(write.after)

    def _remember(self, task_id: TaskId, task: Task | None, service_id: ServiceId) -> None:
        self._tasks[task_id] = task
        known = self._known.get(service_id, {})
        if task is None:
            known.pop(task_id, None)
            self._node_set.drop_task(task_id)
        else:
            known[task_id] = task
            self._node_set.put_task(task)

    # -- undoing

    def undo(self, since: int) -> None:
        """Drop the writes from the `since`-th on, all of them about one service."""
        for write in reversed(self.writes[since:]):
            match write:
                case TaskWrite(before, after):
                    task = after or before
                    assert task is not None
                    self._weight -= weight_of(after) if after is not None else 1
                    self._remember(task.id, before, task.service_id)
                case ServiceWrite(before):
                    self._services[before.id] = before
                case NodeWrite():
                    raise AssertionError("a node's state is nothing that is decided about a service")
        del self.writes[since:]


def weight_of(task: Task) -> int:
    """Weigh a write by how much of a round it takes up."""
    return 1 + len(task.spec.container) // ORDINARY_BYTES
