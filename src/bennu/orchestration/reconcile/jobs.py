"""Jobs: tasks that are meant to end.

Law: a slot that completed in the current iteration is never run again in it; at most `max_concurrent` slots are under
way; a slot that used up its restart attempts stays down and says so.

Any accepted update begins a new iteration: everything runs again, and tasks of earlier iterations go. Docker's jobs
start a fresh task, without any delay and for ever, once `max_attempts` is used up: the limit limits nothing. Here it is
kept (design law 6: attempts are never exceeded, whatever the mode).
"""

from __future__ import annotations

from itertools import islice

from bennu.orchestration.model.actions import PORTION, CreateTask, SetDesired
from bennu.orchestration.model.constraints import satisfies
from bennu.orchestration.model.nouns import SlotKey
from bennu.orchestration.model.spec import ReplicatedJob
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.reconcile.scale import bounded
from bennu.orchestration.slots.restart_supervisor import first_desired, supervise_slots
from bennu.orchestration.slots.slots import ReconcileContext, Slot, SlotKind


def reconcile_replicated_job(context: ReconcileContext, slots: list[Slot], mode: ReplicatedJob) -> None:
    """Keep `max_concurrent` slots under way until all have completed."""
    _retire_old_iterations(context, slots)
    by_number = {slot.key.number: slot for slot in slots}
    supervise_slots(context, slots)
    used = {slot.key.number for slot in slots if slot.kind is not SlotKind.DEAD}
    under_way = sum(1 for slot in slots if slot.kind is SlotKind.LIVE)
    total = bounded(context, mode.total_completions)
    room = min(mode.max_concurrent - under_way, total - len(used), PORTION)
    free = (number for number in range(total) if number not in used)
    for number in islice(free, max(0, room)):
        context.draft.do(
            CreateTask(
                slot=number,
                desired=first_desired(context, by_number.get(number)),
                reason=f"{SlotKey(number)} of {mode.total_completions} has not completed yet",
            )
        )


def reconcile_global_job(context: ReconcileContext, slots: list[Slot]) -> None:
    """Run the job once on every active, ready node that satisfies the constraints."""
    _retire_old_iterations(context, slots)
    by_node = {slot.key.node_id: slot for slot in slots}
    supervise_slots(context, slots)
    for node_id in sorted(context.nodes):
        node = context.nodes[node_id]
        known = by_node.get(node_id)
        if known is not None and known.kind is not SlotKind.DEAD:
            continue
        if not node.takes_new_tasks or not satisfies(context.service.spec.task.placement.constraints, node):
            continue
        context.draft.do(
            CreateTask(
                slot=0,
                node_id=node_id,
                desired=first_desired(context, known),
                reason=f"{SlotKey(0, node_id)} has not run this job yet",
            )
        )


def _retire_old_iterations(context: ReconcileContext, slots: list[Slot]) -> None:
    for slot in slots:
        for task in slot.tasks:
            if task.iteration != context.service.iteration and task.desired is not TaskState.REMOVE:
                context.draft.do(SetDesired(task.id, TaskState.REMOVE, "the job was started anew"))
