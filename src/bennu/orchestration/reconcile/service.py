"""The entry of the core: what has to be done for one service, and why.

Law: `reconcile` is a function of the stored state and the time. It looks at one service; the cost of an event does not
depend on the services it does not concern. It is stable: carried out to its end it answers no actions, and then every
slot is as the spec asks, or `waits` says in words what stands in the way (design law 7).

Order within one look. Later parts leave alone what an earlier part just touched; the next look sees the result.

1. verdicts   failures of a running rollout are judged first, so that nothing is done for a version already condemned
2. restarts   per slot: successors, delayed starts, tasks on their way out (`restart_supervisor.py`)
3. number     missing slots are filled from the lowest free number; surplus ones are chosen as Docker chooses
4. rollout    outdated slots, as fast as the update config allows (`updater.py`)
5. history    the oldest ended tasks of a slot go, beyond the limit

The scheduler (`placement.py`) and the keeper of nodes (`nodes.py`) are separate: they look across services.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from itertools import count, islice
from typing import Final

from bennu.orchestration.model.actions import PORTION, CreateTask, Draft, Plan, SetDesired
from bennu.orchestration.model.config import fills_with_previous
from bennu.orchestration.model.nouns import Node, NodeId, Service, SlotKey, Task
from bennu.orchestration.model.spec import Global, GlobalJob, Replicated, ReplicatedJob
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.reconcile.global_mode import reconcile_global
from bennu.orchestration.reconcile.jobs import reconcile_global_job, reconcile_replicated_job
from bennu.orchestration.reconcile.scale import bounded, choose_victims
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.rollout.updater import judge, roll_out
from bennu.orchestration.slots.restart_supervisor import first_desired, kept_record, supervise_slots
from bennu.orchestration.slots.slots import ReconcileContext, Slot, SlotKind, sort_into_slots

DEFAULT_HISTORY_LIMIT = 5
_UNDER_WAY: Final = {
    TaskState.NEW: "its task waits for its addresses",
    TaskState.PENDING: "its task waits for a node",
    TaskState.ASSIGNED: "its task is on the way to its node",
    TaskState.ACCEPTED: "its node has accepted the task",
    TaskState.PREPARING: "its task is being prepared: image, networks, container",
    TaskState.READY: "its task is prepared and about to start",
    TaskState.STARTING: "its task is starting, or not healthy yet",
}


def reconcile(
    service: Service,
    tasks: Iterable[Task],
    nodes: Mapping[NodeId, Node],
    *,
    now_ns: int,
    history_limit: int = DEFAULT_HISTORY_LIMIT,
    evidence: Evidence | None = None,
) -> Plan:
    """Decide what the service needs now. Never raises on any stored state.

    Args:
        service: as stored.
        tasks: all tasks of this service in the store, in any order.
        nodes: all nodes of the cluster (only those that hold or may hold tasks of the service are looked at).
        now_ns: of the cluster's steady clock.
        history_limit: `TaskHistoryRetentionLimit` of the cluster.
        evidence: what a watched rollout (canary, blue/green) has seen of both versions; None if nothing is measured.
    """
    context = ReconcileContext(service, nodes, now_ns, Draft())
    slots = sort_into_slots(context, tasks)
    if judge(context, slots):
        return context.draft.finish_portion()
    match service.spec.mode:
        case Replicated(replicas):
            _reconcile_replicated(context, slots, bounded(context, replicas), evidence)
        case Global():
            reconcile_global(context, slots, evidence)
        case ReplicatedJob():
            reconcile_replicated_job(context, slots, service.spec.mode)
        case GlobalJob():
            reconcile_global_job(context, slots)
    for slot in slots:
        _trim_history(context, slot, history_limit)
    if context.draft.is_empty:
        _explain(context, slots, spoken={wait.subject for wait in context.draft.waits})
    return context.draft.finish_portion()


def reconcile_removed(tasks: Iterable[Task], nodes: Mapping[NodeId, Node], *, now_ns: int) -> Plan:
    """Wind up what is left of a service that is no longer in the store."""
    draft = Draft()
    for task in tasks:
        if task.desired is not TaskState.REMOVE:
            draft.do(SetDesired(task.id, TaskState.REMOVE, "its service was removed"))
        elif task.state < TaskState.ASSIGNED or task.state >= TaskState.COMPLETE:
            draft.delete(task.id, "its service was removed and the task is over")
        else:
            draft.wait(f"task {task.id}", "its service was removed; its node has not reported its end")
    return draft.finish_portion()


def _reconcile_replicated(
    context: ReconcileContext, slots: list[Slot], replicas: int, evidence: Evidence | None
) -> None:
    changes = supervise_slots(context, slots)
    counted = [slot for slot in slots if slot.kind is not SlotKind.DEAD]
    if len(counted) > replicas:
        victims = choose_victims(counted, len(counted) - replicas)
        for slot in victims:
            for task in sorted(slot.tasks, key=lambda task: not task.is_wanted):
                if task.desired is not TaskState.REMOVE:
                    context.draft.do(SetDesired(task.id, TaskState.REMOVE, f"scaled down to {replicas}"))
        gone = {slot.key for slot in victims}
        counted = [slot for slot in counted if slot.key not in gone]
    elif len(counted) < replicas:
        changes = replace(changes, filled=_fill(context, slots, counted, replicas))
    roll_out(context, counted, changes, evidence)
    _forget_dead(context, slots, changes.touched)


def _fill(context: ReconcileContext, slots: list[Slot], counted: list[Slot], replicas: int) -> frozenset[SlotKey]:
    """Fill a portion of the slots at a time, as if the service were scaled up in steps; answer which slots."""
    by_number = {slot.key.number: slot for slot in slots}
    taken = {slot.key.number for slot in counted}
    free = (number for number in count(1) if number not in taken)
    numbers = list(islice(free, min(replicas - len(counted), PORTION)))
    for number in numbers:
        old = by_number.get(number)
        context.draft.do(
            CreateTask(
                slot=number,
                desired=first_desired(context, old),
                restarts=kept_record(context, old),
                of_previous=fills_with_previous(context.service),
                reason=f"{replicas} replicas are wanted and {SlotKey(number)} is empty",
            )
        )
    return frozenset(map(SlotKey, numbers))


def _forget_dead(context: ReconcileContext, slots: list[Slot], touched: Set[SlotKey]) -> None:
    for slot in slots:
        if slot.kind is not SlotKind.DEAD or slot.key in touched:
            continue
        for task in slot.tasks:
            if task.desired is not TaskState.REMOVE and (task.has_ended or task.state < TaskState.ASSIGNED):
                context.draft.delete(task.id, "nothing of its slot is left to keep")


def _explain(context: ReconcileContext, slots: list[Slot], spoken: Set[str]) -> None:
    """Add a wait for every slot that is neither serving nor spoken of yet (`spoken`: subjects of waits).

    Law: when a plan has no actions, every slot that does not serve has a wait that a person can read (design law 7).
    """
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


def _trim_history(context: ReconcileContext, slot: Slot, limit: int) -> None:
    """Forget the oldest ended tasks of a slot until it fits the limit.

    Law: the newest task of a slot is never forgotten while its slot exists, nor is one that may still have a process.

    The limit counts *all* tasks of a slot, the live one included. A policy with `max_attempts` above 0 replaces it by
    `max_attempts + 1`, even when that is less (Docker needs it to rebuild the count of attempts; here it is kept for
    what people see). A negative limit keeps everything; 0 keeps nothing but the newest. Jobs keep everything.
    """
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
