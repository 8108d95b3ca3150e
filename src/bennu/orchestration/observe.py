"""Taking in what a node's agent reports of a task.

Law: an observed state only moves up. Reports may be lost, repeated, late or out of order; a lower or equal state is
dropped (an equal one may still refine the words), so whatever the order of arrival, the stored status ends as the
highest state that arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bennu.orchestration.model import Task, TaskStatus
from bennu.orchestration.states import TaskState


@dataclass(frozen=True, slots=True)
class Report:
    """What an agent says. `timestamp_ns` is by the agent's own clock."""

    state: TaskState
    message: str = ""
    err: str = ""
    exit_code: int | None = None
    timestamp_ns: int = 0


def observe(task: Task, report: Report, *, now_ns: int) -> Task:
    """The task as it is after the report; the very same object if the report says nothing new.

    A report that jumps from below running to beyond it leaves `running_since_ns` empty: the manager never saw it run.
    """
    if report.state <= task.status.state:
        return task
    status = TaskStatus(
        state=report.state,
        message=report.message or task.status.message,
        err=report.err,
        exit_code=report.exit_code if report.exit_code is not None else task.status.exit_code,
        timestamp_ns=report.timestamp_ns,
        applied_at_ns=now_ns,
    )
    since = task.running_since_ns
    if since is None and report.state is TaskState.RUNNING:
        since = now_ns
    return replace(task, status=status, running_since_ns=since, waits_for_room=False)
