"""The numbers of a service in a list: `3/5`, `1/2 (0/5 completed)`. The rules are swarmkit's (`ListServiceStatuses`).

Law: `running` counts every task observed running, whatever is wanted of it and whether or not its node can be heard, so
during an outage of a node `4/3` is truthful. Of a job only the tasks of the current iteration are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bennu.orchestration.model.nouns import Service, Task
from bennu.orchestration.model.spec import Global, GlobalJob, Replicated, ReplicatedJob
from bennu.orchestration.model.states import TaskState


@dataclass(frozen=True, slots=True)
class ServiceCounts:
    """The API's `ServiceStatus`."""

    running: int
    desired: int
    completed: int = 0


def count_tasks(service: Service, tasks: Iterable[Task]) -> ServiceCounts:
    """Count the tasks of a service as its mode asks."""
    current = [task for task in tasks if task.iteration == service.iteration]
    running = sum(task.state is TaskState.RUNNING for task in current)
    completed = sum(task.state is TaskState.COMPLETE for task in current)
    match service.spec.mode:
        case Replicated(replicas):
            return ServiceCounts(running, replicas)
        case Global():
            return ServiceCounts(running, sum(task.desired is TaskState.RUNNING for task in current))
        case ReplicatedJob(max_concurrent):
            return ServiceCounts(running, max_concurrent, completed)
        case GlobalJob():
            to_do = (task for task in current if task.desired is TaskState.COMPLETE)
            return ServiceCounts(running, sum(task.state is not TaskState.COMPLETE for task in to_do), completed)
