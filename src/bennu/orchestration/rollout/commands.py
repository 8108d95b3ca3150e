"""A person's commands to a rollout. Each turns a stored service into the one to store, or refuses.

Law: a command changes the record of the rollout only; what follows is decided by the reconciler at the next look.
"""

from __future__ import annotations

from dataclasses import replace

from bennu.errors import Conflict
from bennu.orchestration.model.nouns import BlueGreenRun, CanaryRun, RollingRun, Rollout, Service, UpdateStatus
from bennu.orchestration.model.revisions import accept_rollback
from bennu.orchestration.model.spec import BlueGreen
from bennu.orchestration.model.states import UpdateState


def pause_rollout(service: Service, *, now_ns: int) -> Service:
    """Hold a rollout where it is: no slot begins, and the slots in work are finished.

    Raises Conflict if none is under way.
    """
    status, _ = _under_way(service)
    rolling_back = status.state is UpdateState.ROLLBACK_STARTED
    state = UpdateState.ROLLBACK_PAUSED if rolling_back else UpdateState.PAUSED
    what = "rollback" if rolling_back else "update"
    told = replace(status, state=state, message=f"{what} paused by request")
    return replace(service, update_status=told, updated_at_ns=now_ns)


def resume_rollout(service: Service, *, now_ns: int) -> Service:
    """Go on with a paused rollout; failures counted so far are forgiven. Raises Conflict if none is paused."""
    status = service.update_status
    if status is None or not status.state.is_paused:
        raise Conflict(f"service {service.id} has no paused rollout")
    rolling_back = status.state is UpdateState.ROLLBACK_PAUSED
    told = replace(
        status,
        state=UpdateState.ROLLBACK_STARTED if rolling_back else UpdateState.UPDATING,
        message="rollback in progress" if rolling_back else "update in progress",
    )
    resumed = replace(service, update_status=told, updated_at_ns=now_ns)
    # A watched rollout keeps its step; its tasks must be ready, and be watched, anew.
    match service.rollout:
        case CanaryRun(promoted=False) as run:
            return replace(resumed, rollout=replace(run, failed=(), step_ready_at_ns=None, step_began_at_ns=now_ns))
        case BlueGreenRun(promoted=False) as run:
            return replace(resumed, rollout=replace(run, failed=(), ready_at_ns=None))
    return replace(resumed, rollout=None)


def promote_rollout(service: Service, *, now_ns: int) -> Service:
    """End the watching of a canary or blue/green rollout in its favour. Raises Conflict if there is none."""
    _, run = _under_way(service)
    if isinstance(run, RollingRun) or run.promoted:
        raise Conflict(f"service {service.id} has no watched rollout")
    run = replace(run, verdict="promoted by request")
    strategy = service.spec.strategy
    if isinstance(run, BlueGreenRun) and isinstance(strategy, BlueGreen) and run.switched_at_ns is None:
        # First the traffic, then the old tasks: the switch is stored, the warm time is cut short at the next look.
        spec = replace(service.spec, strategy=replace(strategy, keep_warm_ns=0))
        return replace(service, spec=spec, rollout=replace(run, switched_at_ns=now_ns), updated_at_ns=now_ns)
    return replace(service, rollout=replace(run, promoted=True), updated_at_ns=now_ns)


def abort_rollout(service: Service, *, now_ns: int) -> Service:
    """Go back to the previous spec.

    Raises Conflict if no rollout is under way or paused, InvalidParameter if there is nothing to go back to.
    """
    status = service.update_status
    if status is None or status.state not in (UpdateState.UPDATING, UpdateState.PAUSED):
        raise Conflict(f"service {service.id} has no rollout to abort")
    back = accept_rollback(service, now_ns=now_ns)
    told = UpdateStatus(UpdateState.ROLLBACK_STARTED, "update aborted by request", started_at_ns=now_ns)
    return replace(back, update_status=told if not back.is_job else None)


def _under_way(service: Service) -> tuple[UpdateStatus, Rollout]:
    status, rollout = service.update_status, service.rollout
    if status is None or rollout is None or not status.state.is_under_way:
        raise Conflict(f"service {service.id} has no rollout under way")
    return status, rollout
