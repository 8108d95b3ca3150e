"""What a person can tell a rollout to do. Each verb turns a stored service into the one to store, or refuses.

Law: a verb changes the record of the rollout only; what follows from it is decided by the reconciler at the next look.
"""

from __future__ import annotations

from dataclasses import replace

from bennu.errors import Conflict
from bennu.orchestration.config import strategy_in_force
from bennu.orchestration.model import Rollout, Service, UpdateStatus
from bennu.orchestration.revisions import accept_rollback
from bennu.orchestration.spec import BlueGreen, Rolling
from bennu.orchestration.states import UpdateState


def pause_rollout(service: Service, *, now_ns: int) -> Service:
    """Hold a rollout where it is: no slot begins, those in work are finished. Raises Conflict if none is under way."""
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
    if service.rollout is None or isinstance(strategy_in_force(resumed), Rolling) or service.rollout.promoted:
        return replace(resumed, rollout=None)
    # A watched rollout keeps its step; its tasks must be ready, and be watched, anew.
    rollout = replace(service.rollout, failed=(), step_ready_at_ns=None, step_began_at_ns=now_ns)
    return replace(resumed, rollout=rollout)


def promote_rollout(service: Service, *, now_ns: int) -> Service:
    """End the watching of a canary or blue/green rollout in its favour. Raises Conflict if there is none."""
    _, rollout = _under_way(service)
    if isinstance(strategy_in_force(service), Rolling) or rollout.promoted:
        raise Conflict(f"service {service.id} has no watched rollout")
    promoted = replace(rollout, promoted=True, verdict="promoted by request")
    if isinstance(service.spec.strategy, BlueGreen) and rollout.switched_at_ns is None:
        # First the traffic, then the old tasks: the switch is stored, the warm time is cut short at the next look.
        strategy = replace(service.spec.strategy, keep_warm_ns=0)
        spec = replace(service.spec, strategy=strategy)
        switched = replace(rollout, switched_at_ns=now_ns, verdict="promoted by request")
        return replace(service, spec=spec, rollout=switched, updated_at_ns=now_ns)
    return replace(service, rollout=promoted, updated_at_ns=now_ns)


def abort_rollout(service: Service, *, now_ns: int) -> Service:
    """Go back to the previous spec. Raises Conflict if no rollout is under way or paused, InvalidParameter if there is
    nothing to go back to."""
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
