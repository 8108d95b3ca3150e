"""The supervisor of one slot: successors of ended tasks, delayed starts, and tasks on their way out.

Laws.
* A successor is made at once and only its *start* waits, so the image is pulled and the container made during the
  restart delay.
* A successor is made before its predecessor is given up (a plan may be cut in between), and a slot that already has an
  up-to-date live task gets no second one.
* At most one task of a slot is told to run, except beside the old one in a start-first replacement. A start waits for
  the reported end of every other task of the slot whose node can be asked, at most `STOP_TIMEOUT_NS` from the stop
  order; a task whose node is down or gone is not waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from bennu.orchestration.model.actions import CreateTask, SetDesired
from bennu.orchestration.model.config import fills_with_previous, starts_beside
from bennu.orchestration.model.nouns import NodeId, SlotKey, Task, TaskId
from bennu.orchestration.model.revisions import as_before
from bennu.orchestration.model.states import Availability, Origin, TaskState, UpdateState
from bennu.orchestration.slots.restart import STOP_TIMEOUT_NS, KeepEnded, decide_restart
from bennu.orchestration.slots.slots import ReconcileContext, Slot


@dataclass(frozen=True, slots=True)
class SlotChanges:
    """Changes of one look before its rollout part, which leaves these slots alone and counts their tasks as gone."""

    touched: Set[SlotKey] = frozenset()  # changed by `supervise_slots`
    leaving: Set[TaskId] = frozenset()  # tasks that it told to end
    filled: Set[SlotKey] = frozenset()  # empty slots that got a task


def supervise_slots(context: ReconcileContext, slots: Iterable[Slot]) -> SlotChanges:
    """Replace, start and remove tasks of each slot, without regard to the other slots."""
    touched: set[SlotKey] = set()
    leaving: set[TaskId] = set()
    for slot in slots:
        reaped = _reap_removed(context, slot)
        ended = _supervise(context, slot)
        leaving |= ended
        if reaped or ended or _promote(context, slot):
            touched.add(slot.key)
    return SlotChanges(touched, leaving)


def _reap_removed(context: ReconcileContext, slot: Slot) -> bool:
    """Forget tasks that are to be removed, once they are over or never got to a node. True if there were any."""
    reaped = False
    for task in slot.tasks:
        if task.desired is not TaskState.REMOVE:
            continue
        if task.state < TaskState.ASSIGNED or task.state >= TaskState.COMPLETE:
            context.draft.delete(task.id, "its slot is gone and the task is over")
            reaped = True
        else:
            context.draft.wait(f"task {task.id}", _why_not_over(context, task))
    return reaped


def _why_not_over(context: ReconcileContext, task: Task) -> str:
    lost = context.lost_because(task)
    if lost and not context.may_have_process(task):
        return f"it is to be removed, but {lost}: nobody can say that it stopped"
    return "it is to be removed and its node has not reported its end"


def _supervise(context: ReconcileContext, slot: Slot) -> set[TaskId]:
    """Replace wanted tasks that ended or whose node can no longer hold them; return the tasks that are told to end.

    The newest of them speaks for the slot: it gets the successor, or is refused one. Two tasks of a slot lost with one
    node (a start-first update) are one loss.
    """
    ended: set[TaskId] = set()
    spoken_for = False
    for task in reversed(slot.live):
        lost = context.lost_because(task)
        if not task.has_ended and lost is None:
            continue
        what = lost if lost and not task.has_ended else _how_it_ended(task)
        if spoken_for or has_successor(context, slot, task) or _has_previous_successor(context, slot, task):
            why: str | None = f"{what}; its slot has a newer task"
        else:
            spoken_for = True
            why = _follow_up(context, slot, task, what, lost)
        if why is not None:
            context.draft.do(SetDesired(task.id, TaskState.SHUTDOWN, why))
            ended.add(task.id)
    return ended


def _follow_up(context: ReconcileContext, slot: Slot, task: Task, what: str, lost: str | None) -> str | None:
    """Decide what the end of a task means for its slot; answer why the task is put away, None: it is not yet."""
    if _keeps_old(context, slot, task):
        return f"{what}; the rollout is paused and the old task still serves"
    if task.desired is TaskState.READY and task.has_ended and context.now_ns < task.start_at_ns:
        context.draft.wait(slot.key, f"{what} before its restart delay was over", task.start_at_ns)
        return None
    if context.service.is_global and lost:
        return f"{lost}; a global task stays with its node"
    if context.service.is_global and _is_paused(context, task):
        return f"{what}; its node is paused"
    return _succeed(context, slot, task, what, at_once=_is_drained(context, task))


def has_successor(context: ReconcileContext, slot: Slot, task: Task) -> bool:
    """Tell whether the slot has another live, up-to-date task that can carry on."""
    return any(
        other is not task
        and not other.has_ended
        and context.lost_because(other) is None
        and context.outdated(other) is None
        for other in slot.live
    )


def _has_previous_successor(context: ReconcileContext, slot: Slot, task: Task) -> bool:
    """Tell whether the successor of the version before, which a canary asks for, was made, and the plan then cut."""
    if not fills_with_previous(context.service, task):
        return False
    version = as_before(context.service).spec_version
    return any(
        other.created_at_ns > task.created_at_ns
        and not other.has_ended
        and context.lost_because(other) is None
        and other.spec_version == version
        for other in slot.live
    )


def _keeps_old(context: ReconcileContext, slot: Slot, task: Task) -> bool:
    """Tell whether a paused stop-first rollout leaves the slot to the old task, which has no order to stop."""
    status = context.service.update_status
    if status is None or not status.state.is_paused or starts_beside(context.service):
        return False
    return any(other.is_running and context.lost_because(other) is None for other in slot.live if other is not task)


def _succeed(context: ReconcileContext, slot: Slot, task: Task, what: str, *, at_once: bool) -> str:
    """Make the successor of a task, if its policy grants one; answer why the task itself is put away."""
    of_previous = fills_with_previous(context.service, task)
    service = as_before(context.service) if of_previous else context.service
    decision = decide_restart(task, service, of_slot=slot.tasks, at_once=at_once, now_ns=context.now_ns)
    if isinstance(decision, KeepEnded):
        return f"{what}; not restarted: {decision.reason}"
    context.draft.do(
        CreateTask(
            slot=slot.key.number,
            node_id=NodeId(slot.key.node_id) if slot.key.node_id else None,
            desired=TaskState.READY,
            origin=Origin.RESTART,
            start_at_ns=context.now_ns + decision.delay_ns,
            restarts=decision.restarts,
            of_previous=of_previous,
            reason=f"{what}; {decision.reason}",
        )
    )
    return f"{what}; it has a successor"


def _promote(context: ReconcileContext, slot: Slot) -> bool:
    """Start the task that is being held ready, if everything it waits for has come. True if it has."""
    for task in reversed(slot.live):
        if task.desired is not TaskState.READY or task.has_ended:
            continue
        if context.now_ns < task.start_at_ns:
            context.draft.wait(slot.key, "the restart delay of its new task is not over", task.start_at_ns)
            continue
        if context.outdated(task) is not None and has_successor(context, slot, task):
            continue
        blocked = why_not_start(context, slot, task)
        if blocked is None:
            goal = TaskState.COMPLETE if context.service.is_job else TaskState.RUNNING
            context.draft.do(SetDesired(task.id, goal, "nothing it has to wait for is left"))
            return True
        context.draft.wait(slot.key, *blocked)
    return False


def why_not_start(context: ReconcileContext, slot: Slot, task: Task) -> tuple[str, int | None] | None:
    """Say why `task` may not be told to run, and when that reason ends by itself; None if it may."""
    beside = starts_beside(context.service) and context.outdated(task) is None
    for other in slot.tasks:
        if other.id == task.id or other.has_ended:
            continue
        if other.desired in (TaskState.RUNNING, TaskState.COMPLETE):
            if not beside and context.lost_because(other) is None:
                return f"its new task is held ready while task {other.id} is not told to stop", None
        elif other.desired > TaskState.RUNNING and context.may_have_process(other):
            ordered = other.stop_ordered_at_ns if other.stop_ordered_at_ns is not None else other.created_at_ns
            if context.now_ns < ordered + STOP_TIMEOUT_NS:
                return f"its new task waits for the end of task {other.id}", ordered + STOP_TIMEOUT_NS
    return None


def first_desired(context: ReconcileContext, slot: Slot | None) -> TaskState:
    """Choose the desired state a task for an empty slot begins with.

    It is held back while an earlier one is still stopping.
    """
    goal = TaskState.COMPLETE if context.service.is_job else TaskState.RUNNING
    if slot is not None and any(context.may_have_process(task) for task in slot.tasks):
        return TaskState.READY
    return goal


def kept_record(context: ReconcileContext, slot: Slot | None) -> tuple[int, ...]:
    """Read the restart record a slot keeps when it is filled again without a restart, so that no budget grows."""
    status = context.service.update_status
    if slot is None or (status is not None and status.state is UpdateState.ROLLBACK_STARTED):
        return ()
    kept = [task for task in slot.tasks if task.desired is not TaskState.REMOVE]
    if not kept:
        return ()
    of_previous = fills_with_previous(context.service)
    service = as_before(context.service) if of_previous else context.service
    if kept[-1].spec_version != service.spec_version:
        return ()
    return kept[-1].restarts


def _is_paused(context: ReconcileContext, task: Task) -> bool:
    node = context.node_of(task)
    return node is not None and node.availability is Availability.PAUSE


def _is_drained(context: ReconcileContext, task: Task) -> bool:
    node = context.node_of(task)
    return node is not None and node.availability is Availability.DRAIN


def _how_it_ended(task: Task) -> str:
    words = {
        TaskState.COMPLETE: "it completed",
        TaskState.SHUTDOWN: "it was shut down",
        TaskState.FAILED: "it failed",
        TaskState.REJECTED: "it was rejected",
        TaskState.ORPHANED: "it was orphaned",
    }
    said = words.get(task.state, f"it is {task.state.word}")
    return f"{said} ({task.status.err})" if task.status.err else said
