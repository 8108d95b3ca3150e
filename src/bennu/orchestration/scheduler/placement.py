"""The scheduler: which node gets which pending task, and why a task gets none.

Laws.
* A task goes only to a node that every filter admits, counting what was placed a moment before.
* A task that stays pending says why, and the reason is kept up to date.
* A task that was placed is never moved: there is no rebalancing.

Choice, Docker's: the best node is the one with (1) fewer recent failures of this service version, once they are many,
(2) fewer tasks of this service, (3) fewer tasks in all. Spread preferences come first: nodes are grouped by the value
of the outermost descriptor (no value: a group of its own), groups are evened out by their number of tasks of this
service, and so on inward. There is no bin packing and no regard for real load. Ties: the node with the smaller id.

A task that already has a successor in its slot no longer counts against its node; it leaves soon. And if the only thing
in a task's way is what the old task of its own slot holds (its host port, its memory, its place under the limit per
node), the refusal says so: the updater then stops the old one first.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bennu.orchestration.model.actions import AssignTask, Draft, Plan, RefuseTask
from bennu.orchestration.model.config import starts_beside
from bennu.orchestration.model.constraints import node_attribute
from bennu.orchestration.model.nouns import NodeId, Service, SlotKey, Task, slot_key
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.scheduler.failures import FailureLog
from bennu.orchestration.scheduler.filters import Capacity, Filter, explain_refusals, first_refusal
from bennu.orchestration.scheduler.node_set import NodeInfo, NodeSet
from bennu.orchestration.slots.slots import by_age

Rank = tuple[int, int, int, str]


def place(service: Service, tasks: Iterable[Task], node_set: NodeSet, failures: FailureLog, *, now_ns: int) -> Plan:
    """Place the pending tasks of one service.

    Args:
        service: as stored.
        tasks: all tasks of the service; those with addresses (state pending) that are wanted are placed.
        node_set: all nodes, with what they hold; not written, so put the placed tasks after applying the plan.
        failures: what failed where of late; not written.
        now_ns: decides which failures are recent.
    """
    known = list(tasks)
    group = _Placing(
        Draft(), service, node_set, failures, _holders(service, known), _superseded(service, known), now_ns
    )
    by_version: dict[int, list[Task]] = {}
    for task in known:
        if task.state is not TaskState.PENDING or task.desired > TaskState.COMPLETE:
            continue
        if task.node_id is not None:
            group.confirm(task)
        else:
            by_version.setdefault(task.spec_version, []).append(task)
    for version in sorted(by_version):
        group.place(by_version[version])
    return group.draft.finish_portion()


def _superseded(service: Service, tasks: Sequence[Task]) -> Counter[NodeId]:
    """Count, by node, live tasks that have a newer live task in their slot."""
    newest: dict[SlotKey, Task] = {}
    live = [task for task in tasks if task.desired <= TaskState.COMPLETE and not task.has_ended]
    for task in by_age(live):
        newest[slot_key(task, service)] = task
    return Counter(
        task.node_id for task in live if task.node_id is not None and newest[slot_key(task, service)] is not task
    )


def _holders(service: Service, tasks: Iterable[Task]) -> Mapping[SlotKey, Sequence[Task]]:
    """Group by slot the tasks that have a node and have not ended."""
    found: dict[SlotKey, list[Task]] = {}
    for task in tasks:
        if task.node_id is not None and not task.has_ended:
            found.setdefault(slot_key(task, service), []).append(task)
    return found


@dataclass(slots=True)
class _Branch:
    """Nodes that share the values of the spread descriptors so far; a leaf holds them in a heap, best first."""

    tasks: int = 0
    children: dict[str, _Branch] = field(default_factory=dict)
    heap: list[tuple[Rank, NodeId]] = field(default_factory=list)


@dataclass(slots=True)
class _Placing:
    """One walk over the pending tasks of a service."""

    draft: Draft
    service: Service
    node_set: NodeSet
    failures: FailureLog
    holders: Mapping[SlotKey, Sequence[Task]]
    superseded: Counter[NodeId]
    now_ns: int
    capacities: dict[NodeId, Capacity] = field(default_factory=dict)

    def confirm(self, task: Task) -> None:
        """Judge a task whose node is fixed, without moving it."""
        assert task.node_id is not None
        info = self.node_set.infos.get(task.node_id)
        if info is None:
            self._refuse(task, "its node is gone", room=False)
            return
        # The task itself is among those counted on its node: a fixed node is part of it from the beginning.
        capacity = self._capacity(info, itself=1)
        refusal = first_refusal(task, capacity)
        if refusal is None:
            message = "scheduler confirmed task can run on preassigned node"
            self.draft.do(AssignTask(task.id, task.node_id, message, message, capacity.take(task)))
        else:
            self._refuse(task, refusal.on_one, room=self._fits_without_old(task, {task.node_id: capacity}))

    def _capacity(self, info: NodeInfo, itself: int = 0) -> Capacity:
        superseded = self.superseded[info.node.id]
        beside = superseded if starts_beside(self.service) else 0
        return Capacity.of(info, self.service.id, superseded + itself, beside)

    def _refuse(self, task: Task, err: str, *, room: bool) -> None:
        if (task.status.err, task.waits_for_room) != (err, room):
            self.draft.do(RefuseTask(task.id, err, room))
        self.draft.wait(f"task {task.id}", err)

    def place(self, tasks: list[Task]) -> None:
        first = tasks[0]
        refusals: Counter[Filter] = Counter()
        root = self._grow(first, refusals)
        for task in sorted(tasks, key=lambda task: (task.slot, task.created_at_ns, task.id)):
            node_id = self._descend(root, task, refusals)
            if node_id is None:
                self._explain(task, refusals)
                continue
            message = "scheduler assigned task to node"
            reason = f"{message} {node_id}, the least loaded that fits"
            self.draft.do(AssignTask(task.id, node_id, message, reason, self.capacities[node_id].take(task)))
            self._put_back(root, task, node_id)

    def _grow(self, task: Task, refusals: Counter[Filter]) -> _Branch:
        """Build the tree of all nodes that admit such a task now."""
        root = _Branch()
        for node_id, info in self.node_set.infos.items():
            capacity = self._capacity(info)
            refusal = first_refusal(task, capacity)
            if refusal is not None:
                refusals[refusal] += 1
                continue
            self.capacities[node_id] = capacity
            for branch in _path(root, task, info):
                branch.tasks += capacity.of_service
            leaf = _path(root, task, info)[-1]
            heapq.heappush(leaf.heap, (self._rank(task, capacity), node_id))
        return root

    def _rank(self, task: Task, capacity: Capacity) -> Rank:
        node_id = capacity.info.node.id
        failures = self.failures.count(node_id, task.service_id, task.spec_version, now_ns=self.now_ns)
        return failures, capacity.of_service, capacity.tasks, node_id

    def _descend(self, branch: _Branch, task: Task, refusals: Counter[Filter]) -> NodeId | None:
        """Find the node for one more task under this branch; branches and nodes that are full drop out."""
        if branch.children:
            for value in sorted(branch.children, key=lambda value: (branch.children[value].tasks, value)):
                node_id = self._descend(branch.children[value], task, refusals)
                if node_id is not None:
                    return node_id
            return None
        while branch.heap:
            _, node_id = branch.heap[0]
            refusal = first_refusal(task, self.capacities[node_id])
            if refusal is None:
                heapq.heappop(branch.heap)
                return node_id
            heapq.heappop(branch.heap)
            refusals[refusal] += 1
        return None

    def _put_back(self, root: _Branch, task: Task, node_id: NodeId) -> None:
        capacity = self.capacities[node_id]
        path = _path(root, task, capacity.info)
        for branch in path:
            branch.tasks += 1
        heapq.heappush(path[-1].heap, (self._rank(task, capacity), node_id))

    def _explain(self, task: Task, refusals: Counter[Filter]) -> None:
        text = explain_refusals(refusals)
        err = f"no suitable node ({text})" if text else "no suitable node"
        self._refuse(task, err, room=self._fits_without_old(task, self.capacities))

    def _fits_without_old(self, task: Task, capacities: Mapping[NodeId, Capacity]) -> bool:
        """Tell whether the node of the slot's old task would admit the new one if the old one were gone."""
        for old in self.holders.get(slot_key(task, self.service), ()):
            info = self.node_set.infos.get(old.node_id) if old.node_id is not None else None
            if info is None or old.id == task.id:
                continue
            capacity = capacities.get(info.node.id) or self._capacity(info)
            if first_refusal(task, _without(capacity, old, starts_beside(self.service))) is None:
                return True
        return False


def _without(capacity: Capacity, old: Task, counted: bool) -> Capacity:
    """Copy the capacity as it would be after the old task's end. `counted`: it counts towards the limit now."""
    wanted = old.spec.reservation
    generic = dict(capacity.generic)
    for kind, number in wanted.generic:
        generic[kind] = generic.get(kind, 0) + number
    return replace(
        capacity,
        nano_cpus=capacity.nano_cpus + wanted.nano_cpus,
        memory_bytes=capacity.memory_bytes + wanted.memory_bytes,
        generic=generic,
        names=capacity.names - set(old.granted),
        host_ports=capacity.host_ports - old.host_ports,
        towards_limit=capacity.towards_limit - counted,
    )


def _path(root: _Branch, task: Task, info: NodeInfo) -> list[_Branch]:
    """List the branches a node hangs on, root first."""
    path = [root]
    for descriptor in task.spec.placement.spread:
        value = node_attribute(descriptor, info.node) or ""
        path.append(path[-1].children.setdefault(value, _Branch()))
    return path
