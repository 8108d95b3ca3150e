"""The material of a look at a service: the service, its tasks sorted into slots, and the kind of each slot.

    live      at least one task desired to run (or to get ready for it); represented by just those tasks
    stopped   none is wanted and the restart policy grants its newest task no successor: it still counts as a slot, so
              scaling does not refill it, but an update reaches it. Newest is the one made last: a predecessor whose
              end is reported late must not reopen a slot that has used up its attempts
    dead      everything else: nothing but history, and free to be filled anew

While a rollback is under way there are no stopped slots, only dead ones: the restored version gets a fresh chance.
Here live tasks of a job are those wanted to complete and not yet ended, of the current iteration only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from bennu.orchestration.model.actions import Draft
from bennu.orchestration.model.nouns import Node, NodeId, Service, SlotKey, Task
from bennu.orchestration.model.states import Availability, NodeState, TaskState, UpdateState
from bennu.orchestration.slots.outdated import why_outdated
from bennu.orchestration.slots.restart import may_restart


class SlotKind(Enum):
    LIVE = "live"
    STOPPED = "stopped"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: all its tasks, oldest first, and the tasks that represent it."""

    key: SlotKey
    kind: SlotKind
    tasks: tuple[Task, ...]
    live: tuple[Task, ...]  # empty unless LIVE

    @property
    def newest(self) -> Task:
        return self.tasks[-1]

    @property
    def is_running(self) -> bool:
        """Whether some task of it serves: observed running and wanted to."""
        return any(task.state is TaskState.RUNNING for task in self.live)


@dataclass(frozen=True, slots=True)
class ReconcileContext:
    """One look at one service. Built once, read by every part of the reconciler; only `draft` is written."""

    service: Service
    nodes: Mapping[NodeId, Node]
    now_ns: int
    draft: Draft

    def node_of(self, task: Task) -> Node | None:
        return self.nodes.get(task.node_id) if task.node_id is not None else None

    def outdated(self, task: Task) -> str | None:
        return why_outdated(task, self.service, self.node_of(task))

    def lost_because(self, task: Task) -> str | None:
        """Say why the node of a placed task can no longer hold it, or None."""
        if task.node_id is None:
            return None
        node = self.nodes.get(task.node_id)
        if node is None:
            return "its node is gone"
        if node.state is NodeState.DOWN:
            return "its node is down"
        if node.availability is Availability.DRAIN:
            return "its node is drained"
        return None

    def may_have_process(self, task: Task) -> bool:
        """Tell whether a process of the task may still be there on a node that can be asked about it."""
        if task.has_ended or task.node_id is None or task.state < TaskState.ASSIGNED:
            return False
        node = self.nodes.get(task.node_id)
        return node is not None and node.state is not NodeState.DOWN


def sort_into_slots(context: ReconcileContext, tasks: Iterable[Task]) -> list[Slot]:
    """Sort the tasks into slots, in the order of the slots' keys."""
    if context.service.is_global:
        on_node: dict[str, list[Task]] = {}
        for task in tasks:
            on_node.setdefault(task.node_id or "", []).append(task)
        return [_classify(context, SlotKey(0, node_id), on_node[node_id]) for node_id in sorted(on_node)]
    by_number: dict[int, list[Task]] = {}
    for task in tasks:
        by_number.setdefault(task.slot, []).append(task)
    return [_classify(context, SlotKey(number), by_number[number]) for number in sorted(by_number)]


def by_age(tasks: Iterable[Task]) -> list[Task]:
    """Sort oldest first, in an order that does not depend on how the tasks were stored."""
    return sorted(tasks, key=_age)


def _age(task: Task) -> tuple[int, str]:
    return task.created_at_ns, task.id


def _classify(context: ReconcileContext, key: SlotKey, tasks: list[Task]) -> Slot:
    ordered = tuple(by_age(tasks)) if len(tasks) > 1 else tuple(tasks)
    if context.service.is_job:
        return _classify_of_job(context, key, ordered)
    live = tuple(task for task in ordered if task.is_wanted)
    if live:
        return Slot(key, SlotKind.LIVE, ordered, live)
    status = context.service.update_status
    rolling_back = status is not None and status.state is UpdateState.ROLLBACK_STARTED
    kept = [task for task in ordered if task.desired is not TaskState.REMOVE]
    if kept and not rolling_back and may_restart(kept[-1], is_job=False, now_ns=context.now_ns) is not None:
        return Slot(key, SlotKind.STOPPED, ordered, ())
    return Slot(key, SlotKind.DEAD, ordered, ())


def _classify_of_job(context: ReconcileContext, key: SlotKey, ordered: tuple[Task, ...]) -> Slot:
    """Classify a job's slot: stopped when it completed, or failed for good, in the current iteration."""
    current = [task for task in ordered if task.iteration == context.service.iteration]
    live = tuple(t for t in current if t.desired <= TaskState.COMPLETE and t.state is not TaskState.COMPLETE)
    if live:
        return Slot(key, SlotKind.LIVE, ordered, live)
    kept = [task for task in current if task.desired is not TaskState.REMOVE]
    if kept and may_restart(kept[-1], is_job=True, now_ns=context.now_ns) is not None:
        return Slot(key, SlotKind.STOPPED, ordered, ())
    return Slot(key, SlotKind.DEAD, ordered, ())
