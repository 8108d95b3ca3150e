"""Rollouts that judge themselves: canary and blue/green.

Laws.
* A canary step never brings more slots to the new version than it says, whatever fails meanwhile.
* Blue/green stops no old task before the traffic was switched and the warm time is over or a person promoted it; until
  then going back is one switch.
* A verdict is stored with its reason in words before anything follows from it.

Both are the ordinary updater with another gate and another judge: tasks, slots and `UpdateStatus` are those of a plain
update, so a Docker client sees an update that is truthful about itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bennu.orchestration.actions import RollBack, SetRollout
from bennu.orchestration.canary_analysis import Cohort, Evidence, Ruling, Verdict, judge_cohorts
from bennu.orchestration.config import is_under_watch
from bennu.orchestration.model import BlueGreenRun, CanaryRun, Rollout, Service, SlotKey, Task, WatchedRun
from bennu.orchestration.rollout_steps import begin_slot
from bennu.orchestration.slot_progress import Phase, Survey, is_serving
from bennu.orchestration.slots import ReconcileContext
from bennu.orchestration.spec import BlueGreen, Canary, CanaryStep
from bennu.orchestration.states import NS_PER_SECOND, TaskState, UpdateState


def step_target(step: CanaryStep, slots: int) -> int:
    """How many slots of the new version a step asks for: at least one, at most all."""
    share = -(-slots * step.percent // 100)
    return max(1, min(slots, max(step.tasks, share)))


def may_serve(service: Service, task: Task) -> bool:
    """Whether the load balancer may send a ready task of the service new connections.

    Always, except under blue/green: before the switch the new version gets nothing, after it the old one gets nothing.
    """
    status, run = service.update_status, service.rollout
    if not isinstance(run, BlueGreenRun) or status is None:
        return True
    if status.state not in (UpdateState.UPDATING, UpdateState.PAUSED):
        return True
    return is_of_rollout(service, run, task) is (run.switched_at_ns is not None)


def advance_canary(
    context: ReconcileContext, canary: Canary, run: CanaryRun, view: Survey, evidence: Evidence | None
) -> int | None:
    """How many slots may be of the new version now; None if the rollout's record was written instead.

    A step counts slots that cannot be touched now as well, for what it brought there is still on trial; but it does not
    ask for more than can be reached without them.
    """
    if run.step >= len(canary.steps):
        _store(context, replace(run, promoted=True), "all canary steps passed: the rest follows")
        return None
    step = canary.steps[run.step]
    every = [*view.slots, *view.aside]
    reach = len(view.slots) + sum(1 for progress in view.aside if progress.phase is not Phase.OUTDATED)
    target = max(1, min(reach, step_target(step, len(every))))
    serving = sum(1 for progress in every if progress.phase is Phase.SERVING)
    tasks = (task for progress in every for task in progress.slot.tasks)
    seen = evidence or evidence_from_tasks(context.service, run, tasks, now_ns=context.now_ns)
    verdict = judge_cohorts(seen, confidence=canary.confidence, slower_by=canary.slower_by)
    if verdict.ruling is Ruling.BAD:
        _condemn(context, run, f"canary: {verdict.reason}")
        return None
    if run.step_ready_at_ns is None:
        return _await_step(context, canary, run, serving, target, run.step_began_at_ns)
    watched_until = run.step_ready_at_ns + step.watch_ns
    if context.now_ns < watched_until:
        context.draft.wait("rollout", f"canary step {run.step + 1}: {target} slots are watched", watched_until)
        return target
    if serving < target:
        return _await_step(context, canary, run, serving, target, watched_until)
    _pass_step(context, run, verdict)
    return None


def _await_step(
    context: ReconcileContext, canary: Canary, run: CanaryRun, serving: int, target: int, since_ns: int
) -> int | None:
    if serving >= target:
        ready = replace(run, step_ready_at_ns=context.now_ns)
        _store(context, ready, f"canary step {run.step + 1}: all {target} slots serve; watching them")
        return None
    deadline = since_ns + canary.ready_within_ns
    if context.now_ns >= deadline:
        limit = canary.ready_within_ns / NS_PER_SECOND
        _condemn(context, run, f"canary: {serving} of {target} slots of the new version were ready within {limit:g} s")
        return None
    context.draft.wait("rollout", f"canary step {run.step + 1}: {serving} of {target} slots serve", deadline)
    return target


def _pass_step(context: ReconcileContext, run: CanaryRun, verdict: Verdict) -> None:
    passed = replace(
        run,
        step=run.step + 1,
        step_ready_at_ns=None,
        step_began_at_ns=context.now_ns,
        verdict=verdict.reason,
    )
    _store(context, passed, f"canary step {run.step + 1} passed: {verdict.reason}")


def evidence_from_tasks(service: Service, rollout: Rollout, tasks: Iterable[Task], *, now_ns: int) -> Evidence:
    """What the stored tasks alone tell of both versions since the rollout began: who lived how long, who died.

    A task counts for the time after the rollout began. Its end counts if nobody ordered it: by itself, or unhealthy.
    """
    cohorts = {True: Cohort(), False: Cohort()}
    for task in tasks:
        if task.node_id is None:
            continue
        cohort = cohorts[is_of_rollout(service, rollout, task)]
        cohorts[is_of_rollout(service, rollout, task)] = replace(
            cohort,
            tasks=cohort.tasks + 1,
            watched_ns=cohort.watched_ns + watched_ns(rollout, task, now_ns=now_ns),
            deaths=cohort.deaths + died_by_itself(rollout, task),
        )
    return Evidence(stable=cohorts[False], canary=cohorts[True])


def died_by_itself(rollout: Rollout, task: Task) -> bool:
    """Whether it ended since the rollout began and nobody ordered that."""
    ended_at, ordered = task.status.applied_at_ns, task.stop_ordered_at_ns
    return task.has_ended and (ordered is None or ordered >= ended_at) and ended_at >= rollout.began_at_ns


def watched_ns(rollout: Rollout, task: Task, *, now_ns: int) -> int:
    """How long it has run since the rollout began."""
    ended_at = task.status.applied_at_ns if task.has_ended else now_ns
    since = task.running_since_ns if task.running_since_ns is not None else ended_at
    return max(0, ended_at - max(since, rollout.began_at_ns))


def is_of_rollout(service: Service, rollout: Rollout, task: Task) -> bool:
    """Whether a task is of the new version: made by this rollout, or since it began."""
    return task.spec_version == service.spec_version and task.created_at_ns >= rollout.began_at_ns


def is_on_trial(service: Service, task: Task) -> bool:
    """Whether it is of the new version of a rollout that is being watched."""
    rollout = service.rollout
    return rollout is not None and is_under_watch(service) and is_of_rollout(service, rollout, task)


def advance_blue_green(context: ReconcileContext, strategy: BlueGreen, run: BlueGreenRun, view: Survey) -> None:
    """Green beside blue, then the switch, then the warm time; each stage entered by a stored record."""
    slots = view.slots
    dead = next(
        (task for progress in slots for task in progress.slot.tasks if _is_dead_green(context, run, task)), None
    )
    if dead is not None:
        when = "before the switch" if run.switched_at_ns is None else "after the switch"
        _condemn(context, run, f"blue/green: task {dead.id} of the new version ended {when}")
        return
    if run.switched_at_ns is not None:
        _keep_warm(context, strategy, run, run.switched_at_ns)
        return
    for progress in view.untouched:
        if progress.phase is Phase.OUTDATED:
            begin_slot(context, progress)
    missing = [progress.key for progress in slots if progress.keep is None or not is_serving(progress.keep)]
    if missing:
        _await_green(context, strategy, run, missing)
    elif run.ready_at_ns is None:
        ready = replace(run, ready_at_ns=context.now_ns)
        _store(context, ready, f"all {len(slots)} new tasks run beside the old ones")
    elif context.now_ns < run.ready_at_ns + strategy.settle_ns:
        context.draft.wait("rollout", "the new version settles", run.ready_at_ns + strategy.settle_ns)
    else:
        reason = f"all {len(slots)} new tasks ran for {strategy.settle_ns / NS_PER_SECOND:g} s without an end"
        _store(context, replace(run, switched_at_ns=context.now_ns, verdict=reason), f"traffic is switched: {reason}")


def _await_green(context: ReconcileContext, strategy: BlueGreen, run: BlueGreenRun, missing: list[SlotKey]) -> None:
    deadline = run.began_at_ns + strategy.ready_within_ns
    if run.ready_at_ns is None and context.now_ns >= deadline:
        limit = strategy.ready_within_ns / NS_PER_SECOND
        _condemn(context, run, f"blue/green: the new task of {missing[0]} was not ready within {limit:g} s")
        return
    context.draft.wait("rollout", f"the new tasks of {len(missing)} slots do not run yet", deadline)


def _keep_warm(context: ReconcileContext, strategy: BlueGreen, run: BlueGreenRun, switched_at_ns: int) -> None:
    until = switched_at_ns + strategy.keep_warm_ns
    if context.now_ns < until:
        context.draft.wait("rollout", "the old version is kept warm for a switch back", until)
    else:
        _store(context, replace(run, promoted=True), "the warm time is over: the old version goes")


def _is_dead_green(context: ReconcileContext, run: BlueGreenRun, task: Task) -> bool:
    if not is_of_rollout(context.service, run, task) or not task.has_ended or task.desired is TaskState.REMOVE:
        return False
    lost = context.lost_because(task)
    return lost is None and task.state is not TaskState.ORPHANED


def _condemn(context: ReconcileContext, run: WatchedRun, reason: str) -> None:
    """Go back, with the reason in words; if there is nothing to go back to, stop here."""
    service = context.service
    assert service.update_status is not None
    if service.previous is None:
        told = replace(service.update_status, state=UpdateState.PAUSED, message=f"update paused: {reason}")
        context.draft.lead(SetRollout(told, replace(run, verdict=reason), reason))
        return
    told = replace(service.update_status, state=UpdateState.ROLLBACK_STARTED, message=f"update rolled back: {reason}")
    context.draft.lead(RollBack(told, reason))


def _store(context: ReconcileContext, run: WatchedRun, reason: str) -> None:
    context.draft.lead(SetRollout(context.service.update_status, run, reason))
