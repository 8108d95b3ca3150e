"""The nodes and what they hold: the index the scheduler reads.

Law: the `NodeInfo` of a node is a function of the tasks put here; putting and dropping in any order ends the same.

The shell keeps one `NodeSet` for its life as a manager and tells it every change of a node or task, so that placing one
task costs a walk over nodes and never over tasks. It is a cache of stored state, not state: building it anew from all
nodes and tasks gives the same answers.

    holds       reservations, host ports and generic resources: tasks placed there and not observed beyond running
    counts      tasks meant to run there (desired at most complete), in all and by service
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from bennu.orchestration.model.nouns import Node, NodeId, ServiceId, Task, TaskId
from bennu.orchestration.model.states import TaskState

K = TypeVar("K")


@dataclass(slots=True)
class NodeInfo:
    """One node and what it holds. Written only by `NodeSet`."""

    node: Node
    tasks: int = 0
    by_service: Counter[ServiceId] = field(default_factory=Counter)
    nano_cpus: int = 0
    memory_bytes: int = 0
    generic: Counter[str] = field(default_factory=Counter)
    names: set[tuple[str, str]] = field(default_factory=set)
    host_ports: Counter[tuple[str, int]] = field(default_factory=Counter)


class NodeSet:
    """Nodes and what each holds. Nodes may be put before or after their tasks."""

    def __init__(self, nodes: Iterable[Node] = (), tasks: Iterable[Task] = ()) -> None:
        self.infos: dict[NodeId, NodeInfo] = {}
        self._tasks: dict[TaskId, Task] = {}
        self._homeless: dict[NodeId, set[TaskId]] = {}
        for node in nodes:
            self.put_node(node)
        for task in tasks:
            self.put_task(task)

    def put_node(self, node: Node) -> None:
        """Add a node or its new description."""
        info = self.infos.get(node.id)
        if info is not None:
            info.node = node
            return
        self.infos[node.id] = NodeInfo(node)
        for task_id in self._homeless.pop(node.id, ()):
            self._count(self._tasks[task_id], 1)

    def drop_node(self, node_id: NodeId) -> None:
        """Forget a node. Tasks that are still said to be there count again if it returns."""
        self.infos.pop(node_id, None)
        for task in self._tasks.values():
            if task.node_id == node_id:
                self._homeless.setdefault(node_id, set()).add(task.id)

    def put_task(self, task: Task) -> None:
        """Add a task or its new state."""
        old = self._tasks.get(task.id)
        if old is not None:
            self._uncount(old)
        if _holds(task) or _is_meant(task):
            self._tasks[task.id] = task
            self._count(task, 1)
        elif old is not None:
            del self._tasks[task.id]

    def drop_task(self, task_id: TaskId) -> None:
        """Forget a deleted task."""
        old = self._tasks.get(task_id)
        if old is not None:
            self._uncount(old)
            del self._tasks[task_id]

    def _uncount(self, task: Task) -> None:
        if task.node_id is not None and task.node_id in self._homeless:
            self._homeless[task.node_id].discard(task.id)
        self._count(task, -1)

    def _count(self, task: Task, sign: int) -> None:
        if task.node_id is None:
            return
        info = self.infos.get(task.node_id)
        if info is None:
            if sign > 0:
                self._homeless.setdefault(task.node_id, set()).add(task.id)
            return
        if _is_meant(task):
            info.tasks += sign
            _add(info.by_service, task.service_id, sign)
        if not _holds(task):
            return
        wanted = task.spec.reservation
        info.nano_cpus += sign * wanted.nano_cpus
        info.memory_bytes += sign * wanted.memory_bytes
        for kind, number in wanted.generic:
            _add(info.generic, kind, sign * number)
        for granted in task.granted:
            (info.names.add if sign > 0 else info.names.discard)(granted)
        for port in task.host_ports:
            _add(info.host_ports, port, sign)


def _add(counter: Counter[K], key: K, by: int) -> None:
    counter[key] += by
    if counter[key] == 0:
        del counter[key]


def _holds(task: Task) -> bool:
    """Tell whether a task has a place on its node that no other task can have."""
    return task.node_id is not None and TaskState.ASSIGNED <= task.state <= TaskState.RUNNING


def _is_meant(task: Task) -> bool:
    """Tell whether a task counts as one of its service on its node."""
    return task.node_id is not None and task.desired <= TaskState.COMPLETE and not task.has_ended


def frees_room(before: Task | None, after: Task | None) -> bool:
    """Tell whether a change of a task gives back what it held on its node, so that others may fit there now."""
    held = before is not None and before.node_id is not None and not before.has_ended
    return held and (after is None or after.has_ended)
