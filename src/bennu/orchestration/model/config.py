"""The configuration that governs a rollout, with Docker's defaults where none was given.

The config used is that of the spec being rolled *to*: an update uses the new spec's update config; a rollback uses the
rollback config of the *restored* spec, so rollback flags given together with a bad update do not help to undo it.
"""

from __future__ import annotations

from typing import Final

from bennu.orchestration.model.nouns import BlueGreenRun, CanaryRun, RollingRun, Service, Task
from bennu.orchestration.model.spec import BlueGreen, Canary, Rolling, Strategy, UpdateConfig
from bennu.orchestration.model.states import NS_PER_SECOND, UpdateOrder, UpdateState

_DEFAULT: Final = UpdateConfig()


def config_in_force(service: Service) -> UpdateConfig:
    """Return the update or rollback config that governs the service now."""
    status = service.update_status
    if status is not None and status.state.is_rollback:
        return service.spec.rollback or _DEFAULT
    return service.spec.update or _DEFAULT


def strategy_in_force(service: Service) -> Strategy:
    """Return the strategy that governs the service now.

    A rollback is never watched: it goes straight back, slot by slot.
    """
    status = service.update_status
    if status is not None and status.state.is_rollback:
        return Rolling()
    return service.spec.strategy


def starts_beside(service: Service) -> bool:
    """Tell whether a replacement runs beside the task it replaces for a while."""
    if isinstance(strategy_in_force(service), BlueGreen):
        return True
    return config_in_force(service).order is UpdateOrder.START_FIRST


def is_watched(service: Service) -> bool:
    """Tell whether a canary or blue/green judge rules, instead of the failure ratio."""
    match service.rollout:
        case None:
            return isinstance(strategy_in_force(service), Canary | BlueGreen)
        case RollingRun():
            return False
        case CanaryRun(promoted=promoted) | BlueGreenRun(promoted=promoted):
            return not promoted


def fills_with_previous(service: Service, last: Task | None = None) -> bool:
    """Tell whether a task made outside the steps of the rollout is of the version before.

    It is so while a canary is watched, unless the task succeeds `last`, which has the new version: the canary alone
    says which slots get that version, whatever dies or is added meanwhile. A slot that stood empty has lost its turn to
    others.
    """
    status = service.update_status
    goes_on = status is None or status.state in (UpdateState.UPDATING, UpdateState.PAUSED)
    if not goes_on or service.previous is None or not isinstance(service.spec.strategy, Canary):
        return False
    return is_watched(service) and (last is None or last.spec_version != service.spec_version)


def is_under_watch(service: Service) -> bool:
    """Tell whether a canary or blue/green judge is at work now, and needs to know what is seen of the tasks."""
    status = service.update_status
    return service.rollout is not None and status is not None and status.state.is_under_way and is_watched(service)


def watch_ns(config: UpdateConfig) -> int:
    """Compute how long after it first ran a task's end counts as a failure of its version: the monitor.

    It lasts a second longer than the delay, if that is not shorter: what fails while the update waits has failed. The
    service is watched for as long once more after its last slot is done.
    """
    if config.delay_ns >= config.monitor_ns:
        return config.delay_ns + NS_PER_SECOND
    return config.monitor_ns
