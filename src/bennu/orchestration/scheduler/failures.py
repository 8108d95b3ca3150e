"""Recent failures of versions by node: a node where one failed often is the last that the scheduler takes.

The shell keeps one log for its life as a manager and hands it to `place`; it is memory, and may be lost: a new one
begins with the failures that are stored. As in swarmkit's scheduler five failures within five minutes count, fewer do
not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bennu.orchestration.model.nouns import NodeId, ServiceId, Task, TaskId
from bennu.orchestration.model.states import NS_PER_SECOND, TaskState

FAILURE_MEMORY_NS: Final = 300 * NS_PER_SECOND
MANY_FAILURES: Final = 5

Place = tuple[NodeId, ServiceId, int]  # a version of a service on a node


class FailureLog:
    """The instants of failures, by task: noting one again changes nothing."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._at_ns: dict[Place, dict[TaskId, int]] = {}
        for task in tasks:
            self.note(task)

    def note(self, task: Task) -> None:
        """Remember a task that failed or was rejected on its node; anything else is no failure."""
        if task.state not in (TaskState.FAILED, TaskState.REJECTED) or task.node_id is None:
            return
        now_ns = task.status.applied_at_ns
        known = self._at_ns.setdefault((task.node_id, task.service_id, task.spec_version), {})
        known[task.id] = now_ns
        for task_id in [key for key, at_ns in known.items() if at_ns <= now_ns - FAILURE_MEMORY_NS]:
            del known[task_id]

    def count(self, node_id: NodeId, service_id: ServiceId, version: int, *, now_ns: int) -> int:
        """Count failures of the version on the node within the last five minutes; 0 while there are few."""
        known = self._at_ns.get((node_id, service_id, version), {})
        recent = sum(1 for at_ns in known.values() if at_ns > now_ns - FAILURE_MEMORY_NS)
        return recent if recent >= MANY_FAILURES else 0
