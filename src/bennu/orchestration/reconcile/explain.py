"""Words for what a quiet service is waiting for.

Law: when a plan has no actions, every slot that does not serve has a wait that a person can read (design law 7).
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from bennu.orchestration.model.nouns import Task
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.slots.slots import ReconcileContext, Slot, SlotKind

_UNDER_WAY: Final = {
    TaskState.NEW: "its task waits for its addresses",
    TaskState.PENDING: "its task waits for a node",
    TaskState.ASSIGNED: "its task is on the way to its node",
    TaskState.ACCEPTED: "its node has accepted the task",
    TaskState.PREPARING: "its task is being prepared: image, networks, container",
    TaskState.READY: "its task is prepared and about to start",
    TaskState.STARTING: "its task is starting, or not healthy yet",
}


def explain(context: ReconcileContext, slots: list[Slot], spoken: Set[str]) -> None:
    """Add a wait for every slot that is neither serving nor spoken of yet (`spoken`: subjects of waits)."""
    for slot in slots:
        if slot.is_running or str(slot.key) in spoken:
            continue
        if slot.kind is SlotKind.STOPPED:
            context.draft.wait(slot.key, f"stopped for good: {_last_words(slot.newest)}")
        elif slot.live:
            context.draft.wait(slot.key, _why_not_running(context, slot.live[-1]))


def _why_not_running(context: ReconcileContext, task: Task) -> str:
    lost = context.lost_because(task)
    if lost:
        return lost
    if task.state <= TaskState.PENDING and task.status.err:
        return task.status.err
    return _UNDER_WAY.get(task.state, f"its task is {task.state.word}")


def _last_words(task: Task) -> str:
    return f"{task.state.word}, {task.status.err}" if task.status.err else task.state.word
