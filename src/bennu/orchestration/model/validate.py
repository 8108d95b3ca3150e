"""The control layer's checks of a service's spec, in Docker's words.

Law: what passes here can be reconciled and placed without an error. Messages are bare; the API puts the prefix of the
control layer in front of them. What only the shell can read (the container's part, words and numbers of the wire) is
checked there (`cluster/check.py`), and what needs other objects (a taken name, secrets, networks) where those are.
"""

from __future__ import annotations

import re
from typing import Final

from bennu.errors import InvalidParameter
from bennu.orchestration.model.constraints import parse_constraints
from bennu.orchestration.model.spec import (
    EndpointSpec,
    GlobalJob,
    ReplicatedJob,
    Reservation,
    ServiceSpec,
    TaskRestartPolicy,
    UpdateConfig,
)
from bennu.orchestration.model.states import EndpointMode, PublishMode

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
MAX_NAME: Final = 63
MIN_NANO_CPUS: Final = 1_000_000
MIN_MEMORY_BYTES: Final = 4 << 20


def validate_spec(spec: ServiceSpec) -> None:
    """Refuse a spec that is not acceptable.

    Raises InvalidParameter for the first thing that is wrong; BadConstraint (a plain error, 500) for constraints.
    """
    validate_name(spec.name)
    if spec.task.restart is not None:
        _validate_restart(spec.task.restart)
    _validate_reservation(spec.task.reservation)
    parse_constraints(spec.task.placement.constraints)
    is_job = isinstance(spec.mode, ReplicatedJob | GlobalJob)
    for word, config in (("update", spec.update), ("rollback", spec.rollback)):
        if config is not None:
            _validate_config(word, config)
            if is_job:
                raise InvalidParameter(f"Jobs may not have {'an' if word == 'update' else 'a'} {word} config")
    if spec.endpoint is not None:
        _validate_endpoint(spec.endpoint)


def validate_name(name: str) -> None:
    """Check a service's name: a DNS name component of at most 63 characters."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter("name must be valid as a DNS name component")
    if len(name) > MAX_NAME:
        raise InvalidParameter("name must be 63 characters or fewer")


def validate_amounts(nano_cpus: int, memory_bytes: int) -> None:
    """Check amounts that a task may use at most, or reserves; 0 stands for none given."""
    if 0 != nano_cpus < MIN_NANO_CPUS:
        raise InvalidParameter(f"invalid cpu value {nano_cpus / 1e9:g}: Must be at least {MIN_NANO_CPUS / 1e9:g}")
    if 0 != memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidParameter(f"invalid memory value {memory_bytes}: Must be at least 4MiB")


def _validate_reservation(wanted: Reservation) -> None:
    validate_amounts(wanted.nano_cpus, wanted.memory_bytes)
    for kind, number in wanted.generic:
        if number < 1 or not kind:
            raise InvalidParameter(f"invalid argument for resource {kind}")


def _validate_restart(policy: TaskRestartPolicy) -> None:
    for word, duration_ns in (("delay", policy.delay_ns), ("window", policy.window_ns)):
        if duration_ns < 0:
            raise InvalidParameter(f"TaskSpec: restart-{word} cannot be negative")


def _validate_config(word: str, config: UpdateConfig) -> None:
    if config.delay_ns < 0:
        raise InvalidParameter(f"TaskSpec: {word}-delay cannot be negative")
    if config.monitor_ns < 0:
        raise InvalidParameter(f"TaskSpec: {word}-monitor cannot be negative")
    if not 0 <= config.max_failure_ratio <= 1:
        raise InvalidParameter(f"TaskSpec: {word}-maxfailureratio cannot be less than 0 or bigger than 1")


def _validate_endpoint(endpoint: EndpointSpec) -> None:
    ingress = [port for port in endpoint.ports if port.mode is PublishMode.INGRESS]
    if ingress and endpoint.mode is EndpointMode.DNSRR:
        raise InvalidParameter("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
    published = [(port.published, port.protocol, port.mode) for port in endpoint.ports if port.published]
    if len(published) != len(set(published)):
        raise InvalidParameter("EndpointSpec: duplicate published ports provided")
