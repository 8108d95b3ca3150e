"""The next step of a node for one of its tasks: swarmkit's `Do` as a value, for any caller that acts on containers.

    absent ──Prepare──▶ made ──Start (desired: running)──▶ runs ──Serve … ──▶ ended ──End
                          │                                 │                   ▲
                          └──────End (to be ended)          └──Stop (to be ended, or unhealthy)

Law: level-triggered. A step follows from what the task should be, what its container is seen to be, and the highest
state that the manager was told; so a caller that begins in the middle of a task's life takes the same steps as one that
was there from its beginning. It is asked again after each step, and after each change of any of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from bennu.orchestration.model.states import TaskState
from bennu.orchestration.tasks.observe import Report, classify_end

MESSAGES: Final[Mapping[TaskState, str]] = {
    TaskState.ACCEPTED: "accepted",
    TaskState.PREPARING: "preparing",
    TaskState.READY: "prepared",
    TaskState.STARTING: "starting",
    TaskState.RUNNING: "started",
    TaskState.SHUTDOWN: "shutdown",
}


class TaskProcess(Enum):
    ABSENT = "absent"  # there is no container
    MADE = "made"  # and never started
    RUNS = "runs"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """A task's container as its node sees it."""

    process: TaskProcess
    health: str = "none"  # of its health check: none, starting, healthy, unhealthy
    is_up: bool = False  # it may be called running, as far as readiness and ports are concerned
    exit_code: int | None = None
    error: str = ""  # how its run failed beside its exit code, in the engine's words


@dataclass(frozen=True, slots=True)
class Prepare:
    """Get the task's image and make its container."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Report that the task is ready; it is not to be started yet."""


@dataclass(frozen=True, slots=True)
class StartTask:
    """Start the task's container."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Let the load balancer follow the task's signs, then report `state`.

    `awaits`: what keeps the task from running, in words.
    """

    state: TaskState
    awaits: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the task's container, with drain and grace; then it has ended."""

    for_health: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """Report how the task ended; there is no next step."""

    report: Report


TaskStep: TypeAlias = Prepare | Hold | StartTask | Serve | Stop | End


def next_task_step(desired: TaskState, reported: TaskState, seen: TaskSeen, *, name: str) -> TaskStep:
    """Decide the next step for a task.

    Args:
        desired: what it should be; `REMOVE` also if the manager does not know it any more.
        reported: the highest state that was told to the manager.
        seen: its container.
        name: of its container, for words.
    """
    is_to_end = desired > TaskState.COMPLETE
    match seen.process:
        case TaskProcess.ABSENT:
            if reported >= TaskState.READY:
                return End(refusal(reported, f"No such container: {name}"))
            return End(progress(TaskState.SHUTDOWN)) if is_to_end else Prepare()
        case TaskProcess.MADE:
            if is_to_end:
                return End(progress(TaskState.SHUTDOWN))
            return StartTask() if desired >= TaskState.RUNNING else Hold()
        case TaskProcess.RUNS:
            if is_to_end or seen.health == "unhealthy":
                return Stop(for_health=not is_to_end)
            return _serve(reported, seen)
        case TaskProcess.ENDED:
            return End(classify_end(exit_code=seen.exit_code, was_ordered=is_to_end, error=seen.error))


def _serve(reported: TaskState, seen: TaskSeen) -> Serve:
    if reported >= TaskState.RUNNING:
        return Serve(TaskState.RUNNING)
    if seen.health == "starting":
        return Serve(reported, "its health check has not succeeded yet")
    if not seen.is_up:
        return Serve(reported, "none of its published ports accepts a connection yet")
    return Serve(TaskState.RUNNING)


def progress(state: TaskState) -> Report:
    """Make the report of a task on its way to running."""
    return Report(state, MESSAGES[state])


def refusal(reported: TaskState, err: str) -> Report:
    """Make the report of a task that its node cannot go on with: rejected before its start, failed after it."""
    return Report(TaskState.REJECTED if reported < TaskState.STARTING else TaskState.FAILED, err=err)
