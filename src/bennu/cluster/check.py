"""Checks of a service's specification, with errors in the words of the original's control layer."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from bennu.cluster.api_types import (
    ContainerSpec,
    FileTarget,
    Mode,
    Resources,
    SeccompOptions,
    ServiceSpecWire,
    TaskTemplate,
    UpdateConfigWire,
)
from bennu.cluster.convert import to_core
from bennu.cluster.errors import invalid, unknown
from bennu.cluster.limits import check_numbers
from bennu.cluster.task_container import expand_mount
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.go.duration import parse_duration
from bennu.images.reference import parse_reference
from bennu.model import Healthcheck
from bennu.orchestration.model.constraints import BadConstraint
from bennu.orchestration.model.validate import validate_amounts, validate_name, validate_spec
from bennu.orchestration.tasks.templates import BadTemplate, TemplateContext, expand, expand_env
from bennu.runtime import SeccompProfile

MILLISECOND: Final = 10**6
DURATION_LABELS: Final = ("bennu.drain.deadline", "bennu.ready.within")
VOLUME_KINDS: Final = ("bind", "volume", "tmpfs")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
MAX_NUMBER: Final = 2**32  # of users, groups and modes
Reference = tuple[str, str, FileTarget | None]  # id and name of the secret or config, and its file


def check_spec(wire: ServiceSpecWire) -> None:
    """Refuse a specification that is wrong.

    Raises: BennuError with the status and words clients know; NotImplementedHere naming a field.
    """
    with _in_words_of_control_layer():
        validate_name(wire.name)
    _check_wire(wire)
    spec = to_core(wire)
    with _in_words_of_control_layer():
        validate_spec(spec)


@contextmanager
def _in_words_of_control_layer() -> Iterator[None]:
    """Turn a broken constraint into a 500, as the control layer does."""
    try:
        yield
    except BadConstraint as error:
        raise unknown(str(error)) from None
    except InvalidParameter as error:
        raise invalid(str(error)) from None


def _check_wire(wire: ServiceSpecWire) -> None:
    """Check words, numbers and the container's part, so that the core's spec can be made of what passes."""
    _check_unsigned(wire)
    spec = wire.task_template.container_spec
    _check_labels(dict(wire.labels or {}) | dict((spec.labels if spec else None) or {}))
    _check_mode(wire.mode)
    _check_template(wire.task_template)
    for config in (wire.update_config, wire.rollback_config):
        if config is not None:
            _check_update(config)
    _check_endpoint(wire)
    for alias in (alias for one in wire.task_template.networks or wire.networks or () for alias in one.aliases or ()):
        if CONTROL.search(alias):
            raise invalid(f"TaskSpec: network alias {alias!r} has a control character")


def _check_unsigned(wire: ServiceSpecWire) -> None:
    for name, number in _unsigned(wire):
        if number is not None and number < 0:
            raise InvalidParameter(f"json: cannot unmarshal number {number} into Go struct field {name} of type uint64")


def _unsigned(wire: ServiceSpecWire) -> Iterator[tuple[str, int | None]]:
    """List the numbers that have no sign in the API, where no other check sees them."""
    template = wire.task_template
    yield "TaskSpec.ForceUpdate", template.force_update
    yield "Placement.MaxReplicas", template.placement.max_replicas if template.placement else None
    yield "RestartPolicy.MaxAttempts", template.restart_policy.max_attempts if template.restart_policy else None
    for config in (wire.update_config, wire.rollback_config):
        yield "UpdateConfig.Parallelism", config.parallelism if config else None


def _check_labels(labels: Mapping[str, str]) -> None:
    for name in DURATION_LABELS:
        if name in labels:
            try:
                parse_duration(labels[name])
            except ValueError:
                raise invalid(f"label {name}={labels[name][:40]} is not a duration such as 10s or 1m30s") from None


def _check_mode(mode: Mode | None) -> None:
    if mode is None:
        return
    named = [part for part in (mode.replicated, mode.global_, mode.replicated_job, mode.global_job) if part is not None]
    if len(named) > 1:
        raise InvalidParameter("must specify only one service mode")
    numbers: list[int | None] = []
    if mode.replicated:
        numbers = [mode.replicated.replicas]
    if mode.replicated_job:
        numbers = [mode.replicated_job.max_concurrent, mode.replicated_job.total_completions]
    for number in numbers:
        if number is not None and number < 0:
            raise InvalidParameter(
                f"json: cannot unmarshal number {number} into Go struct field ReplicatedService of type uint64"
            )
    check_numbers(mode)


def _check_template(template: TaskTemplate) -> None:
    if template.runtime not in ("", "container"):
        known = template.runtime in ("plugin", "attachment")
        raise (
            NotImplementedHere(f"services of runtime {template.runtime} are not implemented")
            if known
            else (InvalidParameter("unsupported runtime"))
        )
    if template.plugin_spec is not None:
        raise NotImplementedHere("TaskTemplate.PluginSpec is not implemented")
    if template.network_attachment_spec is not None or template.container_spec is None:
        raise InvalidParameter("mismatched Runtime and *Spec fields")
    policy = template.restart_policy
    if policy is not None and policy.condition not in ("", "none", "on-failure", "any"):
        raise InvalidParameter(f'invalid RestartCondition: "{policy.condition}"')
    _check_resources(template.resources)
    _check_container(template.container_spec)


def _check_resources(resources: Resources | None) -> None:
    if resources is None:
        return
    if resources.limits is not None:
        with _in_words_of_control_layer():
            validate_amounts(resources.limits.nano_cpus, resources.limits.memory_bytes)
    reserved = resources.reservations
    if reserved and any(item.named_resource_spec for item in reserved.generic_resources or ()):
        raise invalid("cannot use generic resources with a name in a reservation")


def _check_container(spec: ContainerSpec) -> None:
    if not spec.image:
        raise invalid("ContainerSpec: image reference must be provided")
    try:
        parse_reference(spec.image)
    except InvalidParameter:
        raise invalid(f'ContainerSpec: "{spec.image}" is not a valid repository/tag') from None
    _check_targets(spec)
    _check_files(spec)
    if spec.healthcheck is not None:
        _check_health(spec.healthcheck)
    if spec.stop_grace_period is not None and spec.stop_grace_period < 0:
        raise invalid("ContainerSpec: stop-grace-period cannot be negative")
    _check_unsupported(spec)
    check_templates(spec)


def _check_targets(spec: ContainerSpec) -> None:
    seen: set[str] = set()
    for mount in spec.mounts or ():
        if mount.type == "cluster":
            raise NotImplementedHere("cluster volumes (CSI) are not implemented")
        if mount.type not in VOLUME_KINDS:
            raise InvalidParameter(f'invalid MountType: "{mount.type}"')
        if not mount.target:
            raise invalid("ContainerSpec: mount target must be provided")
        if mount.target in seen:
            raise invalid(f"ContainerSpec: duplicate mount point: {mount.target}")
        seen.add(mount.target)


def _check_health(check: Healthcheck) -> None:
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if value != 0 and value < MILLISECOND:
            raise invalid(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if check.retries < 0:
        raise invalid("ContainerSpec: Retries in HealthConfig cannot be negative")


def _check_unsupported(spec: ContainerSpec) -> None:
    if spec.isolation not in ("", "default"):
        raise NotImplementedHere(f"ContainerSpec.Isolation {spec.isolation} is not implemented")
    privileges = spec.privileges
    if privileges is None:
        return
    if privileges.credential_spec:
        raise NotImplementedHere("ContainerSpec.Privileges.CredentialSpec is not implemented")
    _check_seccomp(privileges.seccomp or SeccompOptions())
    if privileges.app_armor and privileges.app_armor.mode not in ("", "default", "disabled"):
        raise invalid(f"unrecognized AppArmor mode {privileges.app_armor.mode}")


def _check_seccomp(seccomp: SeccompOptions) -> None:
    mode, profile = seccomp.mode or "default", seccomp.profile
    if mode not in ("default", "unconfined", "custom"):
        raise invalid(f"unrecognized seccomp mode {mode}")
    if (mode == "custom") != bool(profile):
        raise invalid("a seccomp profile belongs to mode custom, and mode custom needs one")
    if profile:
        try:
            text = base64.b64decode(profile, validate=True).decode()
        except (ValueError, TypeError):
            raise invalid("the seccomp profile is not base64 of a text") from None
        try:
            SeccompProfile.parse(text)
        except InvalidParameter as error:
            raise invalid(str(error)) from None


def check_templates(spec: ContainerSpec) -> None:
    """Refuse templates that no task could expand, when the service is made. Raises: BennuError."""
    context = TemplateContext(
        service_id="serviceid", service_name="servicename", node_id="nodeid", node_hostname="nodeHostname", slot=1
    )
    try:
        expand_env(spec.env or (), context)
        hostname = expand(spec.hostname, context)
        for mount in spec.mounts or ():
            expand_mount(mount, context)
    except BadTemplate as error:
        if "map has no entry" not in str(error):
            raise invalid(str(error)) from None
        return
    if CONTROL.search(hostname):
        raise invalid(f"ContainerSpec: hostname {hostname!r} has a control character")


def _check_update(config: UpdateConfigWire) -> None:
    if config.failure_action not in ("", "pause", "continue", "rollback"):
        raise InvalidParameter(f"unrecognized update failure action {config.failure_action}")
    if config.order not in ("", "stop-first", "start-first"):
        raise InvalidParameter(f"unrecognized update order {config.order}")


def _check_endpoint(wire: ServiceSpecWire) -> None:
    endpoint = wire.endpoint_spec
    if endpoint is None:
        return
    if endpoint.mode not in ("", "vip", "dnsrr"):
        raise InvalidParameter(f'invalid resolution mode: "{endpoint.mode}"')
    for port in endpoint.ports or ():
        if not 0 < port.target_port <= 65535 or not 0 <= port.published_port <= 65535:
            raise invalid("EndpointSpec: port numbers must be between 1 and 65535")
        if port.protocol == "sctp":
            raise NotImplementedHere("publishing SCTP ports is not implemented")


def _check_files(spec: ContainerSpec) -> None:
    """Check the secrets and configs of a container's specification. Raises: BennuError in the words clients know."""
    _check_references("secret", [(one.secret_id, one.secret_name, one.file) for one in spec.secrets or ()])
    for config in spec.configs or ():
        if config.file is None and config.runtime is None:
            raise InvalidParameter("invalid Config: either File or Runtime should be set")
        if config.runtime is not None:
            raise NotImplementedHere("configs as credential specs (Runtime) are not implemented")
    _check_references("config", [(one.config_id, one.config_name, one.file) for one in spec.configs or ()])


def _check_references(kind: str, references: Iterable[Reference]) -> None:
    targets: dict[str, str] = {}
    for row_id, name, file in references:
        if not row_id or not name:
            raise invalid(f"malformed {kind} reference")
        if file is None:
            raise invalid(f"malformed {kind} reference, no target provided")
        _check_file(kind, file)
        if file.name in targets:
            raise invalid(
                f"{kind} references '{targets[file.name]}' and '{name}' have a conflicting target: '{file.name}'"
            )
        targets[file.name] = name


def _check_file(kind: str, file: FileTarget) -> None:
    if not _is_file_name(file.name.split("/")) or CONTROL.search(file.name):
        raise invalid(f"malformed file {kind} reference, invalid target file name provided")
    if not 0 <= file.mode < MAX_NUMBER:
        raise InvalidParameter(
            f"json: cannot unmarshal number {file.mode} into Go struct field Mode of type fs.FileMode"
        )
    for what, text in (("UID", file.uid), ("GID", file.gid)):
        if text and not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < MAX_NUMBER):
            raise invalid(f"malformed file {kind} reference, invalid {what} {text[:40]!r}")


def _is_file_name(parts: Sequence[str]) -> bool:
    """Tell whether the path names a file, and names it inside the folder it says."""
    return parts[-1] not in ("", ".") and ".." not in parts
