"""Canary: the new version gets more slots step by step, and is compared with the old one after each.

Law: a step never brings more slots to the new version than it says, whatever fails meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

from bennu.orchestration.model.nouns import CanaryRun
from bennu.orchestration.model.spec import Canary, CanaryStep
from bennu.orchestration.model.states import NS_PER_SECOND
from bennu.orchestration.rollout.canary_analysis import Evidence, Ruling, Verdict, judge_cohorts
from bennu.orchestration.rollout.slot_progress import Phase, Survey
from bennu.orchestration.rollout.task_metrics import evidence_from_tasks
from bennu.orchestration.rollout.watched_run import condemn, store_run
from bennu.orchestration.slots.slots import ReconcileContext


def step_target(step: CanaryStep, slots: int) -> int:
    """Count the slots of the new version that a step asks for: at least one, at most all."""
    share = -(-slots * step.percent // 100)
    return max(1, min(slots, max(step.tasks, share)))


def advance_canary(
    context: ReconcileContext, canary: Canary, run: CanaryRun, view: Survey, evidence: Evidence | None
) -> int | None:
    """Say how many slots may be of the new version now; None if the rollout's record was written instead.

    A step counts slots that cannot be touched now as well, for what it brought there is still on trial; but it does not
    ask for more than can be reached without them.
    """
    if run.step >= len(canary.steps):
        store_run(context, replace(run, promoted=True), "all canary steps passed: the rest follows")
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
        condemn(context, run, f"canary: {verdict.reason}")
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
        store_run(context, ready, f"canary step {run.step + 1}: all {target} slots serve; watching them")
        return None
    deadline = since_ns + canary.ready_within_ns
    if context.now_ns >= deadline:
        limit = canary.ready_within_ns / NS_PER_SECOND
        condemn(context, run, f"canary: {serving} of {target} slots of the new version were ready within {limit:g} s")
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
    store_run(context, passed, f"canary step {run.step + 1} passed: {verdict.reason}")
