"""The limit on how much of a slot's past is kept.

Law: the newest task of a slot is never forgotten while its slot exists, nor is one that may still have a process.

The limit counts *all* tasks of a slot, the live one included. A policy with `max_attempts` above 0 replaces it by
`max_attempts + 1`, even when that is less (Docker needs it to rebuild the count of attempts; here it is kept for what
people see). A negative limit keeps everything; 0 keeps nothing but the newest. Jobs keep everything.
"""

from __future__ import annotations

from bennu.orchestration.model.states import TaskState
from bennu.orchestration.slots.slots import ReconcileContext, Slot


def trim_history(context: ReconcileContext, slot: Slot, limit: int) -> None:
    """Forget the oldest ended tasks of a slot until it fits the limit."""
    if context.service.is_job:
        return
    attempts = context.service.spec.task.restart_policy.max_attempts
    if attempts > 0:
        limit = attempts + 1
    if limit < 0:
        return
    surplus = len(slot.tasks) - max(limit, 1)
    if surplus <= 0:
        return
    over = [task for task in slot.tasks[:-1] if _is_over(task.state, task.desired)]
    over.sort(key=lambda task: (task.status.applied_at_ns, task.created_at_ns, task.id))
    for task in over[:surplus]:
        context.draft.delete(task.id, f"{slot.key} keeps {max(limit, 1)} tasks of its history")


def _is_over(state: TaskState, desired: TaskState) -> bool:
    if desired <= TaskState.RUNNING or desired is TaskState.REMOVE:
        return False
    return state < TaskState.ASSIGNED or state > TaskState.RUNNING
