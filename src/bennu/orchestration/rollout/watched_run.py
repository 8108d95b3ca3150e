"""The common part of canary and blue/green: which tasks are on trial, and how a verdict is stored.

Law: a verdict is stored with its reason in words before anything follows from it.

Both strategies are the ordinary updater with another gate and another judge: tasks, slots and `UpdateStatus` are those
of a plain update, so a Docker client sees an update that is truthful about itself.
"""

from __future__ import annotations

from dataclasses import replace

from bennu.orchestration.model.actions import RollBack, SetRollout
from bennu.orchestration.model.config import is_under_watch
from bennu.orchestration.model.nouns import Rollout, Service, Task, WatchedRun
from bennu.orchestration.model.states import UpdateState
from bennu.orchestration.slots.slots import ReconcileContext


def is_of_rollout(service: Service, rollout: Rollout, task: Task) -> bool:
    """Tell whether a task is of the new version: made by this rollout, or since it began."""
    return task.spec_version == service.spec_version and task.created_at_ns >= rollout.began_at_ns


def is_on_trial(service: Service, task: Task) -> bool:
    """Tell whether a task is of the new version of a rollout that is being watched."""
    rollout = service.rollout
    return rollout is not None and is_under_watch(service) and is_of_rollout(service, rollout, task)


def condemn(context: ReconcileContext, run: WatchedRun, reason: str) -> None:
    """Go back, with the reason in words; if there is nothing to go back to, stop here."""
    service = context.service
    assert service.update_status is not None
    if service.previous is None:
        told = replace(service.update_status, state=UpdateState.PAUSED, message=f"update paused: {reason}")
        context.draft.lead(SetRollout(told, replace(run, verdict=reason), reason))
        return
    told = replace(service.update_status, state=UpdateState.ROLLBACK_STARTED, message=f"update rolled back: {reason}")
    context.draft.lead(RollBack(told, reason))


def store_run(context: ReconcileContext, run: WatchedRun, reason: str) -> None:
    context.draft.lead(SetRollout(context.service.update_status, run, reason))
