"""One round of the manager: what has changed since the last commit, and is not written yet."""

from dataclasses import dataclass, field
from typing import Final

from bennu.cluster.records import ServiceRow, TaskRow
from bennu.cluster.state import Change, State
from bennu.orchestration.model import Node, NodeId, TaskId

FULL: Final = 1_000  # writes of an ordinary size
ORDINARY_BYTES: Final = 1024


@dataclass(slots=True)
class Round:
    """What is decided about one service is on a branch until it is decided to the end, so that it can be dropped."""

    change: Change = field(default_factory=Change)
    tasks: dict[str, dict[TaskId, TaskRow]] = field(default_factory=dict)  # by service: as they will be
    by_id: dict[str, TaskRow] = field(default_factory=dict)
    services: dict[str, ServiceRow] = field(default_factory=dict)
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    weight: int = 0

    @property
    def is_full(self) -> bool:
        """It is time to write, and to let others have their turn."""
        return self.weight >= FULL

    def branch(self, service_id: str) -> "Round":
        """For what is decided about one service."""
        tasks = dict(self.tasks.get(service_id, {}))
        services = {service_id: self.services[service_id]} if service_id in self.services else {}
        by_id = {row.id: row for row in tasks.values()}
        return Round(tasks={service_id: tasks}, by_id=by_id, services=services, nodes=self.nodes, weight=self.weight)

    def merge(self, branch: "Round") -> None:
        self.change.merge(branch.change)
        self.tasks |= branch.tasks
        self.by_id |= branch.by_id
        self.services |= branch.services
        self.weight = branch.weight

    def put_task(self, state: State, row: TaskRow) -> None:
        self.tasks.setdefault(row.task.service_id, {})[row.task.id] = row
        self.by_id[row.id] = row
        self.change.put(state.tasks, row)
        self.weight += 1 + len(row.task.spec.container) // ORDINARY_BYTES

    def delete_task(self, state: State, service_id: str, task_id: TaskId) -> None:
        self.tasks.get(service_id, {}).pop(task_id, None)
        self.change.delete(state.tasks, task_id)
        self.weight += 1
