"""Global services: one task on every node that may have one.

Law: a node that is neither drained nor down and satisfies the constraints has one task; no other node has one. A
paused node keeps what runs there, and gets nothing new: no first task, no update, no restart. Resources, platform,
host ports and the limit per node are the scheduler's to judge afterwards; the task then sits pending and says why.
"""

from __future__ import annotations

from dataclasses import replace

from bennu.orchestration.model.actions import CreateTask, SetDesired
from bennu.orchestration.model.config import fills_with_previous
from bennu.orchestration.model.constraints import unmet_constraint
from bennu.orchestration.model.nouns import Node, SlotKey
from bennu.orchestration.model.states import Availability, TaskState
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.rollout.updater import roll_out
from bennu.orchestration.slots.restart_supervisor import first_desired, kept_record, supervise_slots
from bennu.orchestration.slots.slots import ReconcileContext, Slot, SlotKind


def reconcile_global(context: ReconcileContext, slots: list[Slot], evidence: Evidence | None) -> None:
    """Bring a global service to its nodes."""
    by_node = {slot.key.node_id: slot for slot in slots}
    changes = supervise_slots(context, slots)
    updatable: list[Slot] = []
    aside: list[Slot] = []
    filled: set[SlotKey] = set()
    for node_id in sorted(context.nodes):
        node = context.nodes[node_id]
        slot = by_node.pop(node_id, None)
        if not node.is_usable:
            continue
        if slot is not None and slot.key in changes.touched:
            if slot.kind is not SlotKind.DEAD:
                updatable.append(slot)
            continue
        if not _belongs(context, node, slot):
            continue
        if node.availability is Availability.PAUSE:
            if slot is None or slot.kind is SlotKind.DEAD:
                context.draft.wait(f"node {node_id}", "the node is paused: it gets no new task")
            else:
                aside.append(slot)
        elif slot is None or slot.kind is SlotKind.DEAD:
            filled.add(_fill_node(context, node, slot))
        else:
            updatable.append(slot)
    for slot in by_node.values():  # their nodes are gone for good
        _forget_node(context, slot)
    roll_out(context, updatable, replace(changes, filled=filled), evidence, aside)


def _belongs(context: ReconcileContext, node: Node, slot: Slot | None) -> bool:
    """Tell whether the node satisfies the constraints; if not, the tasks that run there are ended."""
    unmet = unmet_constraint(context.service.spec.task.placement.constraints, node)
    if unmet is None:
        return True
    for task in slot.live if slot is not None else ():
        context.draft.do(SetDesired(task.id, TaskState.SHUTDOWN, f"its node does not satisfy {unmet}"))
    return False


def _fill_node(context: ReconcileContext, node: Node, slot: Slot | None) -> SlotKey:
    key = SlotKey(0, node.id)
    context.draft.do(
        CreateTask(
            slot=0,
            node_id=node.id,
            desired=first_desired(context, slot),
            restarts=kept_record(context, slot),
            of_previous=fills_with_previous(context.service),
            reason=f"{key} has no task of this global service",
        )
    )
    return key


def _forget_node(context: ReconcileContext, slot: Slot) -> None:
    if slot.key.node_id in context.nodes:
        return
    for task in slot.tasks:
        context.draft.delete(task.id, "its node was removed")
