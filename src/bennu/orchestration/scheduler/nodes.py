"""The keeper of nodes: when a node is down, what happens to what it held, and which tasks no longer belong there.

Laws.
* A node is up as long as its agent holds its lease, whichever manager leads: the lease is in the store, so a change of
  manager is no reason to doubt a node.
* The fate of a task on a silent node stays open for a day; then it is orphaned, so that what it held is free again.
* A node that no longer fits a task (labels, role, resources changed) rejects it, and the slot's restart policy decides
  what follows. Paused and drained nodes are left to their own rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from bennu.orchestration.model.actions import Draft, EndTask, Plan, SetNodeState
from bennu.orchestration.model.constraints import unmet_constraint
from bennu.orchestration.model.nouns import Node, Service, ServiceId, Task
from bennu.orchestration.model.states import NS_PER_SECOND, Availability, NodeState, TaskState

ORPHAN_AFTER_NS: Final = 24 * 3600 * NS_PER_SECOND


def decide_node(node: Node, *, is_alive: bool) -> Plan:
    """Judge a node by its lease: `is_alive` says whether its agent still holds it."""
    draft = Draft()
    if is_alive and node.state is not NodeState.READY:
        draft.do(SetNodeState(node.id, NodeState.READY, "", "its agent is heard"))
    if not is_alive and node.state is not NodeState.DOWN:
        draft.do(SetNodeState(node.id, NodeState.DOWN, "heartbeat failure", "its agent has let its lease run out"))
    return draft.finish()


def apply_to_node(node: Node, action: SetNodeState, *, now_ns: int) -> Node:
    """Return the node after a change of its state."""
    down_since = None
    if action.state is NodeState.DOWN:
        down_since = node.down_since_ns if node.down_since_ns is not None else now_ns
    return replace(node, state=action.state, message=action.message, down_since_ns=down_since)


def orphan_tasks(node: Node | None, tasks: Iterable[Task], *, now_ns: int) -> Plan:
    """Give up what a node held: a day after it went down, or at once when it was removed (`node` None)."""
    draft = Draft()
    held = [task for task in tasks if TaskState.ASSIGNED <= task.state <= TaskState.RUNNING]
    if node is None:
        message = "Task belonged to a node that has been deleted"
        for task in held:
            draft.do(EndTask(task.id, TaskState.ORPHANED, message, "", "its node was removed"))
    elif node.state is NodeState.DOWN and node.down_since_ns is not None:
        due = node.down_since_ns + ORPHAN_AFTER_NS
        for task in held:
            if now_ns >= due:
                draft.do(EndTask(task.id, TaskState.ORPHANED, "", "", "its node has been down for a day"))
            else:
                draft.wait(f"task {task.id}", "its node is down; its fate is open", due)
    return draft.finish()


def enforce(node: Node, tasks: Iterable[Task], services: Mapping[ServiceId, Service]) -> Plan:
    """Reject the tasks that an active node no longer fits.

    The constraints are those of the service's *current* spec. Reservations are counted in the order of the tasks' age:
    the tasks that no longer fit into a node that shrank are the youngest.
    """
    draft = Draft()
    if node.availability is not Availability.ACTIVE or node.state is NodeState.DOWN:
        return draft.finish()
    cpus, memory = node.resources.nano_cpus, node.resources.memory_bytes
    generic = {k: len(n) if isinstance(n, frozenset) else n for k, n in node.resources.generic.items()}
    for task in sorted(tasks, key=lambda task: (task.created_at_ns, task.id)):
        if not TaskState.ASSIGNED <= task.state <= TaskState.RUNNING or task.desired > TaskState.COMPLETE:
            continue
        service = services.get(task.service_id)
        constraints = (service.spec.task if service is not None else task.spec).placement.constraints
        unmet = unmet_constraint(constraints, node)
        wanted = task.spec.reservation
        lacking = [kind for kind, number in wanted.generic if number > generic.get(kind, 0)]
        if unmet is not None:
            _reject(draft, task, f"its node does not satisfy {unmet}")
        elif wanted.nano_cpus > cpus or wanted.memory_bytes > memory or lacking:
            _reject(draft, task, "its node no longer has what it reserves")
        else:
            cpus -= wanted.nano_cpus
            memory -= wanted.memory_bytes
            for kind, number in wanted.generic:
                generic[kind] = generic.get(kind, 0) - number
    return draft.finish()


def _reject(draft: Draft, task: Task, reason: str) -> None:
    message, err = "task rejected by constraint enforcer", "assigned node no longer meets constraints"
    draft.do(EndTask(task.id, TaskState.REJECTED, message, err, reason))
