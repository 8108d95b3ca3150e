"""Global services: one task on every node that may have one.

Law: a node that is neither drained nor down and satisfies the constraints has one task; no other node has one. A
paused node keeps what runs there, and gets nothing new: no first task, no update, no restart. Resources, platform,
host ports and the limit per node are the scheduler's to judge afterwards; the task then sits pending and says why.
"""

from __future__ import annotations

from dataclasses import replace

from bennu.orchestration.actions import CreateTask, SetDesired
from bennu.orchestration.config import fills_with_previous
from bennu.orchestration.constraints import unmet_constraint
from bennu.orchestration.evidence import Evidence
from bennu.orchestration.model import Node, SlotKey
from bennu.orchestration.rollout import roll_out
from bennu.orchestration.slots import Scene, Slot, SlotKind
from bennu.orchestration.states import Availability, TaskState
from bennu.orchestration.upkeep import first_desired, keep_up, kept_record


def reconcile_global(scene: Scene, slots: list[Slot], evidence: Evidence | None) -> None:
    """Bring a global service to its nodes."""
    by_node = {slot.key.node_id: slot for slot in slots}
    changes = keep_up(scene, slots)
    updatable: list[Slot] = []
    aside: list[Slot] = []
    filled: set[SlotKey] = set()
    for node_id in sorted(scene.nodes):
        node = scene.nodes[node_id]
        slot = by_node.pop(node_id, None)
        if not node.is_usable:
            continue
        if slot is not None and slot.key in changes.touched:
            if slot.kind is not SlotKind.DEAD:
                updatable.append(slot)
            continue
        if not _belongs(scene, node, slot):
            continue
        if node.availability is Availability.PAUSE:
            if slot is None or slot.kind is SlotKind.DEAD:
                scene.draft.wait(f"node {node_id}", "the node is paused: it gets no new task")
            else:
                aside.append(slot)
        elif slot is None or slot.kind is SlotKind.DEAD:
            filled.add(_fill_node(scene, node, slot))
        else:
            updatable.append(slot)
    for slot in by_node.values():  # their nodes are gone for good
        _forget_node(scene, slot)
    roll_out(scene, updatable, replace(changes, filled=filled), evidence, aside)


def _belongs(scene: Scene, node: Node, slot: Slot | None) -> bool:
    """Whether the node satisfies the constraints; if not, what runs there is ended."""
    unmet = unmet_constraint(scene.service.spec.task.placement.constraints, node)
    if unmet is None:
        return True
    for task in slot.live if slot is not None else ():
        scene.draft.do(SetDesired(task.id, TaskState.SHUTDOWN, f"its node does not satisfy {unmet}"))
    return False


def _fill_node(scene: Scene, node: Node, slot: Slot | None) -> SlotKey:
    key = SlotKey(0, node.id)
    scene.draft.do(
        CreateTask(
            slot=0,
            node_id=node.id,
            desired=first_desired(scene, slot),
            restarts=kept_record(scene, slot),
            of_previous=fills_with_previous(scene.service),
            reason=f"{key} has no task of this global service",
        )
    )
    return key


def _forget_node(scene: Scene, slot: Slot) -> None:
    if slot.key.node_id in scene.nodes:
        return
    for task in slot.tasks:
        scene.draft.delete(task.id, "its node was removed")
