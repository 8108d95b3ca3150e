"""The intake of a node agent's reports of a task.

Law: an observed state only moves up. Reports may be lost, repeated, late or out of order; a lower or equal state is
dropped (an equal one may still refine the words), so whatever the order of arrival, the stored status ends as the
highest state that arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from bennu.orchestration.model.nouns import Task, TaskStatus
from bennu.orchestration.model.states import TaskState


@dataclass(frozen=True, slots=True)
class Report:
    """An agent's report about a task. `timestamp_ns` is by the agent's own clock."""

    state: TaskState
    message: str = ""
    err: str = ""
    exit_code: int | None = None
    timestamp_ns: int = 0


def observe(task: Task, report: Report, *, now_ns: int) -> Task:
    """Return the task as it is after the report; the very same object if the report says nothing new.

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


UNHEALTHY: Final = "dockerexec: unhealthy container"


def classify_end(*, exit_code: int | None, was_ordered: bool, was_unhealthy: bool = False, error: str = "") -> Report:
    """Make the report of a task whose process ended after it was started.

    1. ordered (the desired state said so): `shutdown`, whatever the exit code.
    2. stopped for bad health: `failed`, also with exit code 0. Docker calls that `complete`, and then `on-failure`
       never brings it back; here a task that had to be stopped has failed.
    3. exit code 0 and no error of the engine's: `complete`. Anything else, unknown included: `failed`.
    """
    if was_ordered:
        return Report(TaskState.SHUTDOWN, "shutdown", exit_code=exit_code)
    err = f"task: non-zero exit ({'unknown' if exit_code is None else exit_code})"
    if was_unhealthy:
        err = UNHEALTHY if exit_code == 0 else f"{err}: {UNHEALTHY}"
        return Report(TaskState.FAILED, err=err, exit_code=exit_code)
    if exit_code == 0 and not error:
        return Report(TaskState.COMPLETE, "finished", exit_code=0)
    return Report(TaskState.FAILED, err=err, exit_code=exit_code)
