"""The specs a service has had: accepting an update, rolling back, and how far back one can go.

Law: a spec that was once in force can be restored while it is remembered, and restoring it restores its version number,
so that tasks still made from it are up to date and are left alone.

Docker remembers one spec (`previous`), swaps it on a manual rollback (a second one goes forward again) and drops it on
an automatic one. That is what clients see here too. Beyond it, `revisions` keeps the last ten, also over automatic
rollbacks. And where Docker lets a mere scale of a paused service continue the bad rollout *and* makes the bad spec the
one to roll back to, here the rollout stays paused and what a rollback restores stays what it was, at the new scale.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bennu.errors import InvalidParameter, NotFound, NotImplementedHere
from bennu.orchestration.model.nouns import JobStatus, Revision, Service, ServiceId, UpdateStatus
from bennu.orchestration.model.spec import BlueGreen, Canary, Replicated, ServiceSpec
from bennu.orchestration.model.states import UpdateState

MAX_REVISIONS: Final = 10


def create_service(service_id: ServiceId, spec: ServiceSpec, *, now_ns: int) -> Service:
    """Make a new service. Its spec version is 0, its first revision number 1."""
    return Service(
        id=service_id,
        spec=spec,
        revisions=(Revision(1, spec, 0, now_ns),),
        job=_first_iteration(spec, now_ns),
        created_at_ns=now_ns,
        updated_at_ns=now_ns,
    )


def accept_update(service: Service, spec: ServiceSpec, *, version: int, now_ns: int) -> Service:
    """Return the service after an ordinary update.

    `version` is the index the client sent; it becomes the spec version. Raises NotImplementedHere for what Docker
    refuses with 501: another name, another kind of mode.
    """
    if spec.name != service.spec.name:
        raise NotImplementedHere("renaming services is not supported")
    if type(spec.mode) is not type(service.spec.mode):
        raise NotImplementedHere("service mode change is not allowed")
    keeps = keeps_rollout(service, spec)
    if keeps:  # tasks made so far must stay "of this version": only the number of slots changed
        version = service.spec_version
    updated = replace(
        service,
        spec=spec,
        spec_version=version,
        revisions=_remember(service, spec, version, now_ns),
        job=_next_iteration(service, now_ns),
        updated_at_ns=now_ns,
    )
    if keeps:
        previous = service.previous and replace(service.previous, spec=replace(service.previous.spec, mode=spec.mode))
        return replace(updated, previous=previous)
    return replace(updated, previous=_current(service), update_status=None, rollout=None)


def keeps_rollout(service: Service, spec: ServiceSpec) -> bool:
    """Tell whether an update leaves the rollout as it stands: a mere scale, while it is paused or is a watched one."""
    if not is_mere_scale(service.spec, spec) or service.update_status is None:
        return False
    watched = isinstance(service.spec.strategy, Canary | BlueGreen) and service.update_status.state.is_under_way
    return watched or service.update_status.state.is_paused


def is_mere_scale(old: ServiceSpec, new: ServiceSpec) -> bool:
    """Tell whether only the number of replicas differs."""
    return (
        isinstance(old.mode, Replicated)
        and isinstance(new.mode, Replicated)
        and old.mode != new.mode
        and replace(old, mode=new.mode) == new
    )


def accept_rollback(service: Service, *, now_ns: int) -> Service:
    """Return the service after a person's rollback: previous and current spec change places.

    Raises InvalidParameter if there is nothing to go back to.
    """
    if service.previous is None:
        raise InvalidParameter(f"service {service.id} does not have a previous spec")
    status = UpdateStatus(UpdateState.ROLLBACK_STARTED, "manually requested rollback", started_at_ns=now_ns)
    return restore_previous(service, status, keep_left=True, now_ns=now_ns)


def accept_rollback_to(service: Service, number: int, *, now_ns: int) -> Service:
    """Return the service after `rollback --to number`.

    Raises NotFound if that revision is not remembered (any more).
    """
    wanted = next((revision for revision in service.revisions if revision.number == number), None)
    if wanted is None:
        known = ", ".join(str(revision.number) for revision in service.revisions) or "none"
        raise NotFound(f"service {service.id} has no revision {number}; it remembers {known}")
    return accept_rollback(replace(service, previous=wanted), now_ns=now_ns)


def restore_previous(service: Service, status: UpdateStatus, *, keep_left: bool, now_ns: int) -> Service:
    """Put the previous spec in force. `keep_left`: the spec just left becomes the previous one, else there is none."""
    target = service.previous
    if target is None:
        return service
    return replace(
        service,
        spec=target.spec,
        spec_version=target.spec_version,
        previous=_current(service) if keep_left else None,
        revisions=_remember(service, target.spec, target.spec_version, now_ns),
        update_status=None if service.is_job else status,
        rollout=None,
        job=_next_iteration(service, now_ns),
        updated_at_ns=now_ns,
    )


def as_before(service: Service) -> Service:
    """Return the service with the spec that a rollback would restore; the same if there is none."""
    before = service.previous
    return replace(service, spec=before.spec, spec_version=before.spec_version) if before else service


def _current(service: Service) -> Revision:
    number = service.revisions[-1].number if service.revisions else 1
    return Revision(number, service.spec, service.spec_version, service.updated_at_ns)


def _remember(service: Service, spec: ServiceSpec, version: int, now_ns: int) -> tuple[Revision, ...]:
    known = service.revisions or (_current(service),)
    return (*known, Revision(known[-1].number + 1, spec, version, now_ns))[-MAX_REVISIONS:]


def _first_iteration(spec: ServiceSpec, now_ns: int) -> JobStatus | None:
    service = Service(id=ServiceId(""), spec=spec)
    return JobStatus(0, now_ns) if service.is_job else None


def _next_iteration(service: Service, now_ns: int) -> JobStatus | None:
    return JobStatus(service.iteration + 1, now_ns) if service.is_job else None
