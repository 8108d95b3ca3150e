"""The effect of each action of a plan on the stored values. Pure, so that the manager and the simulator share it.

Law: applying an action twice is applying it once (except `CreateTask`, which is why a plan is looked at again after
each application and never repeated from memory).
"""

from __future__ import annotations

from dataclasses import replace

from bennu.orchestration.model.actions import (
    AssignTask,
    CreateTask,
    EndTask,
    RefuseTask,
    RollBack,
    SetDesired,
    SetRollout,
)
from bennu.orchestration.model.nouns import Service, Task, TaskId, TaskStatus
from bennu.orchestration.model.revisions import as_before, restore_previous
from bennu.orchestration.model.states import TaskState

TaskAction = SetDesired | AssignTask | RefuseTask | EndTask
ServiceAction = SetRollout | RollBack


def new_task(action: CreateTask, service: Service, task_id: TaskId, *, now_ns: int) -> Task:
    """Build the task that a `CreateTask` makes."""
    if action.of_previous:
        service = as_before(service)
    return Task(
        id=task_id,
        service_id=service.id,
        slot=action.slot,
        spec=service.spec.task,
        spec_version=service.spec_version,
        desired=action.desired,
        created_at_ns=now_ns,
        origin=action.origin,
        status=TaskStatus(timestamp_ns=now_ns, applied_at_ns=now_ns),
        node_id=action.node_id,
        endpoint=service.spec.endpoint,
        start_at_ns=action.start_at_ns,
        restarts=action.restarts,
        iteration=service.iteration,
    )


def allocate(task: Task, *, now_ns: int) -> Task:
    """Let a new task be placed: its addresses and ports have been allotted."""
    if task.status.state is not TaskState.NEW:
        return task
    status = TaskStatus(TaskState.PENDING, "pending task scheduling", timestamp_ns=now_ns, applied_at_ns=now_ns)
    return replace(task, status=status)


def apply_to_task(task: Task, action: TaskAction, *, now_ns: int) -> Task:
    """Return the task after an action on it; the very same object when nothing changes."""
    match action:
        case SetDesired():
            return _raise_desired(task, action.desired, now_ns)
        case AssignTask():
            return _assign(task, action, now_ns)
        case RefuseTask():
            if task.status.state > TaskState.PENDING or (task.status.err, task.waits_for_room) == (
                action.err,
                action.waits_for_room,
            ):
                return task
            status = replace(task.status, err=action.err, timestamp_ns=now_ns, applied_at_ns=now_ns)
            return replace(task, status=status, waits_for_room=action.waits_for_room)
        case EndTask():
            if action.state <= task.status.state:
                return task
            status = replace(
                task.status,
                state=action.state,
                message=action.message or task.status.message,
                err=action.err or task.status.err,
                timestamp_ns=now_ns,
                applied_at_ns=now_ns,
            )
            return replace(task, status=status)


def apply_to_service(service: Service, action: ServiceAction, *, now_ns: int) -> Service:
    """Return the service after an action on it."""
    match action:
        case SetRollout():
            return replace(service, update_status=action.update_status, rollout=action.rollout, updated_at_ns=now_ns)
        case RollBack():
            return restore_previous(service, action.update_status, keep_left=False, now_ns=now_ns)


def _raise_desired(task: Task, desired: TaskState, now_ns: int) -> Task:
    if desired <= task.desired:
        return task
    ordered = task.stop_ordered_at_ns
    if ordered is None and desired > TaskState.COMPLETE:
        ordered = now_ns
    return replace(task, desired=desired, stop_ordered_at_ns=ordered)


def _assign(task: Task, action: AssignTask, now_ns: int) -> Task:
    if task.status.state >= TaskState.ASSIGNED:
        return task
    status = TaskStatus(TaskState.ASSIGNED, action.message, timestamp_ns=now_ns, applied_at_ns=now_ns)
    return replace(task, status=status, node_id=action.node_id, granted=action.granted, waits_for_room=False)
