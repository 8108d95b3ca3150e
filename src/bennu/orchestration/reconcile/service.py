"""The entry of the core: what has to be done for one service, and why.

Law: `reconcile` is a function of the stored state and the time. It looks at one service; the cost of an event does not
depend on the services it does not concern. It is stable: carried out to its end it answers no actions, and then every
slot is as the spec asks, or `waits` says in words what stands in the way (design law 7).

Order within one look. Later parts leave alone what an earlier part just touched; the next look sees the result.

1. verdicts   failures of a running rollout are judged first, so that nothing is done for a version already condemned
2. restarts   per slot: successors, delayed starts, tasks on their way out (`restart_supervisor.py`)
3. number     missing slots are filled from the lowest free number; surplus ones are chosen as Docker chooses
4. rollout    outdated slots, as fast as the update config allows (`updater.py`)
5. history    (`history.py`)

The scheduler (`placement.py`) and the keeper of nodes (`nodes.py`) are separate: they look across services.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from itertools import count, islice

from bennu.orchestration.model.actions import PORTION, CreateTask, Draft, Plan, SetDesired
from bennu.orchestration.model.config import fills_with_previous
from bennu.orchestration.model.nouns import Node, NodeId, Service, SlotKey, Task
from bennu.orchestration.model.spec import Global, GlobalJob, Replicated, ReplicatedJob
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.reconcile.explain import explain
from bennu.orchestration.reconcile.global_mode import reconcile_global
from bennu.orchestration.reconcile.history import trim_history
from bennu.orchestration.reconcile.jobs import reconcile_global_job, reconcile_replicated_job
from bennu.orchestration.reconcile.scale import bounded, choose_victims
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.rollout.updater import judge, roll_out
from bennu.orchestration.slots.restart_supervisor import first_desired, kept_record, supervise_slots
from bennu.orchestration.slots.slots import ReconcileContext, Slot, SlotKind, sort_into_slots

DEFAULT_HISTORY_LIMIT = 5


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
        trim_history(context, slot, history_limit)
    if context.draft.is_empty:
        explain(context, slots, spoken={wait.subject for wait in context.draft.waits})
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
