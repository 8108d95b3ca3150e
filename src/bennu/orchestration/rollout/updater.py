"""Rolling update and rollback: the updater.

Laws.
* Everything is derived from stored state: the tasks of the service, `UpdateStatus`, and `Rollout`. A manager that dies
  in the middle changes nothing.
* During an update never fewer than `replicas - parallelism` (stop-first) or `replicas` (start-first) tasks are ready by
  the updater's doing (design law 4).
* A rollback never rolls back again. Tasks of the version being restored are left alone.

The algorithm is Docker's (`parallelism` slots in work at a time, no lock-step batches; each slot: new task, wait until
it runs, then `delay`; after the last slot one more watch; messages word for word), with these differences, each of
which makes a bad version do less harm:

1. Failures are judged as they happen, before anything else, not only when a place gets free.
2. A failure is: a task of the version being rolled out, in a slot that was there when the run began, that ended before
   it ran or within `monitor` of running, or within `delay` if that is longer (`config.watch_ns`). Also one that the
   restart supervisor made. Each slot counts once.
3. stop-first prepares before it stops: the new task is placed, its image pulled and its container made while the old
   one still serves; only then the old one is told to stop, or at once if it does not serve, or if the new one can only
   have the room that the old one holds. A version that cannot even be prepared takes down nothing.
4. What is down is updated first: it costs nothing.

A look writes at most one new `Rollout`, as the first action of its plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bennu.orchestration.model.actions import RollBack, SetRollout
from bennu.orchestration.model.config import (
    config_in_force,
    is_under_watch,
    is_watched,
    strategy_in_force,
    watch_ns,
)
from bennu.orchestration.model.nouns import (
    BlueGreenRun,
    CanaryRun,
    RollingRun,
    Rollout,
    Service,
    SlotKey,
    Task,
    UpdateStatus,
)
from bennu.orchestration.model.spec import BlueGreen, Canary, Rolling, UpdateConfig
from bennu.orchestration.model.states import FailureAction, TaskState, UpdateState
from bennu.orchestration.rollout.blue_green import advance_blue_green
from bennu.orchestration.rollout.canary import advance_canary
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.rollout.slot_progress import Phase, SlotProgress, Survey, survey
from bennu.orchestration.rollout.steps import finish, take
from bennu.orchestration.slots.restart_supervisor import SlotChanges
from bennu.orchestration.slots.slots import ReconcileContext, Slot


def judge(context: ReconcileContext, slots: list[Slot]) -> bool:
    """Count new failures of the rollout under way. True if that wrote something: then nothing else is decided yet."""
    service = context.service
    status, rollout = service.update_status, service.rollout
    if status is None or rollout is None or not status.state.is_under_way or is_watched(service):
        return False
    config = config_in_force(service)
    failed = dict.fromkeys(rollout.failed)
    culprit = None
    for slot in slots:
        if slot.key in failed or slot.key not in rollout.slots:
            continue
        task = next((task for task in slot.tasks if is_failure(context, rollout, task)), None)
        if task is None:
            continue
        failed[slot.key] = None
        culprit = task
        if len(failed) / max(1, rollout.total) > config.max_failure_ratio:
            break
    if culprit is None:
        return False
    rollout = replace(rollout, failed=tuple(failed))
    context.draft.lead(_sentence(context, status, rollout, config, culprit))
    return True


def is_failure(context: ReconcileContext, rollout: Rollout, task: Task) -> bool:
    """Tell whether a task of the rolled-out version ended early: before it ran, or while it is watched.

    An exit with 0, a person's stop and a drained node count too, as in Docker; a task that was scaled away or is only
    lost from sight does not.
    """
    if task.spec_version != context.service.spec_version or task.created_at_ns < rollout.began_at_ns:
        return False
    if not task.has_ended or task.state is TaskState.ORPHANED or task.desired is TaskState.REMOVE:
        return False
    if task.running_since_ns is None:
        return True
    return task.status.applied_at_ns - task.running_since_ns <= watch_ns(config_in_force(context.service))


def _sentence(
    context: ReconcileContext, status: UpdateStatus, rollout: Rollout, config: UpdateConfig, culprit: Task
) -> SetRollout | RollBack:
    """Decide what a new failure leads to: pause, continue or roll back. `culprit` is the task that clients are told."""
    share = f"{len(rollout.failed)} of {rollout.total} slots failed"
    within = len(rollout.failed) / max(1, rollout.total) <= config.max_failure_ratio
    if config.failure_action is FailureAction.CONTINUE or within:
        allowed = "continue" if config.failure_action is FailureAction.CONTINUE else f"{config.max_failure_ratio:g}"
        return SetRollout(status, rollout, f"{share}, tolerated ({allowed})")
    rolling_back = status.state is UpdateState.ROLLBACK_STARTED
    rolls_back = config.failure_action is FailureAction.ROLLBACK and context.service.previous is not None
    words = "due to failure or early termination of task"
    if rolls_back and not rolling_back:
        told = replace(status, state=UpdateState.ROLLBACK_STARTED, message=f"update rolled back {words} {culprit.id}")
        return RollBack(told, f"{share}, more than {config.max_failure_ratio:g}: back to the previous spec")
    what = "rollback" if rolling_back and config.failure_action is FailureAction.ROLLBACK else "update"
    state = UpdateState.ROLLBACK_PAUSED if rolling_back else UpdateState.PAUSED
    told = replace(status, state=state, message=f"{what} paused {words} {culprit.id}")
    return SetRollout(told, rollout, f"{share}, more than {config.max_failure_ratio:g}: paused")


def roll_out(
    context: ReconcileContext,
    slots: list[Slot],
    changes: SlotChanges,
    evidence: Evidence | None,
    aside: Iterable[Slot] = (),
) -> None:
    """Advance the rollout of a service by what can be done now; nothing if nothing is outdated.

    Args:
        slots: the live and stopped slots that stay.
        changes: what this look already did; slots it touched are counted and left alone.
        aside: slots that no rollout may touch now (their node is paused); they count while they are down, and for a
            canary's step.
    """
    service = context.service
    status, rollout = service.update_status, service.rollout
    if (status is None or not (status.state.is_paused or status.state.is_under_way)) and _is_current(service, slots):
        return
    view = survey(context, slots, aside, changes)
    if status is not None and status.state.is_paused:
        finish(context, view, paused=True)
        context.draft.wait("rollout", status.message)
        return
    if rollout is None:
        if view.outdated:
            _begin(context, view)
        elif status is not None and status.state.is_under_way:
            _complete(context, status, rollout)
        return
    if changes.filled & rollout.slots:
        return  # a slot that counts, stopped for good under the version that is left, is coming just now
    if is_under_watch(service):
        _advance_watched(context, rollout, view, evidence)
        return
    if view.outdated:
        finish(context, view, paused=False)
        take(context, view, limit=None)
    _settle(context, view.slots, is_quiet=not changes.touched)


def _is_current(service: Service, slots: list[Slot]) -> bool:
    """Tell whether every slot has at most one task that counts, made from this very version: the quiet, common case."""
    version = service.spec_version
    return all(len(slot.live) < 2 and (slot.live or slot.tasks)[-1].spec_version == version for slot in slots)


def _advance_watched(context: ReconcileContext, run: Rollout, view: Survey, evidence: Evidence | None) -> None:
    strategy = context.service.spec.strategy
    if isinstance(strategy, Canary) and isinstance(run, CanaryRun):
        limit = advance_canary(context, strategy, run, view, evidence)
        if limit is not None:
            finish(context, view, paused=False)
            up = sum(1 for progress in view.aside if progress.phase is not Phase.OUTDATED and not progress.is_down)
            take(context, view, limit=limit - up)
    elif isinstance(strategy, BlueGreen) and isinstance(run, BlueGreenRun):
        advance_blue_green(context, strategy, run, view)


def _begin(context: ReconcileContext, view: Survey) -> None:
    slots, total = view.slots, len(view.outdated)
    status = context.service.update_status
    if status is None:
        status = UpdateStatus(UpdateState.UPDATING, "update in progress", started_at_ns=context.now_ns)
    rollout = _new_run(context, total, frozenset(progress.key for progress in slots))
    why = next((progress.why for progress in slots if progress.why), "more than one live task in a slot")
    context.draft.lead(SetRollout(status, rollout, f"{total} of {len(slots)} slots are outdated: {why}"))


def _new_run(context: ReconcileContext, total: int, slots: frozenset[SlotKey]) -> Rollout:
    match strategy_in_force(context.service):
        case Canary():
            return CanaryRun(context.now_ns, total, slots, step_began_at_ns=context.now_ns)
        case BlueGreen():
            return BlueGreenRun(context.now_ns, total, slots)
        case Rolling():
            return RollingRun(context.now_ns, total, slots)


def _settle(context: ReconcileContext, slots: list[SlotProgress], *, is_quiet: bool) -> None:
    """Notice the end of the last slot, watch once more, and complete."""
    status, rollout = context.service.update_status, context.service.rollout
    if status is None or rollout is None or not status.state.is_under_way or is_watched(context.service):
        return
    busy = [progress for progress in slots if not progress.is_finished(context.now_ns)]
    if busy:
        for progress in busy:
            if progress.phase is Phase.COMING:
                context.draft.wait("rollout", f"the new task of {progress.key} has not run yet")
            if progress.delay_ends_ns is not None and context.now_ns < progress.delay_ends_ns:
                context.draft.wait("rollout", f"the delay after {progress.key} is not over", progress.delay_ends_ns)
        if rollout.settled_at_ns is not None:
            reason = f"{busy[0].key} needs the updater again"
            context.draft.lead(SetRollout(status, replace(rollout, settled_at_ns=None), reason))
        return
    if not is_quiet and rollout.settled_at_ns is None:
        return
    watched_ns = watch_ns(config_in_force(context.service))
    if rollout.settled_at_ns is None:
        settled = replace(rollout, settled_at_ns=context.now_ns)
        context.draft.lead(SetRollout(status, settled, "the last slot is done; watching it once more"))
    elif context.now_ns < rollout.settled_at_ns + watched_ns:
        context.draft.wait("rollout", "all slots are done and are being watched", rollout.settled_at_ns + watched_ns)
    else:
        _complete(context, status, rollout)


def _complete(context: ReconcileContext, status: UpdateStatus, rollout: Rollout | None) -> None:
    back = status.state is UpdateState.ROLLBACK_STARTED
    told = replace(
        status,
        state=UpdateState.ROLLBACK_COMPLETED if back else UpdateState.COMPLETED,
        message="rollback completed" if back else "update completed",
        completed_at_ns=context.now_ns,
    )
    context.draft.lead(SetRollout(told, rollout, "all slots are up to date"))
