"""Conversion of a task to the container that makes it real: names, labels, templates, every field of the spec. Pure."""

import base64
from collections.abc import Sequence
from typing import Final

import msgspec

from bennu.cluster.api_types import ContainerSpec, SELinuxContext, TaskTemplate
from bennu.cluster.convert import read_template
from bennu.cluster.tables import NodeRow, TaskRow
from bennu.model import (
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    LogConfig,
    Mount,
    NetworkingConfig,
    PortBinding,
)
from bennu.network import Network
from bennu.orchestration.model.states import PublishMode
from bennu.orchestration.tasks.templates import TemplateContext, expand, expand_env

TASK_LABEL: Final = "com.docker.swarm.task"
TASK_ID_LABEL: Final = "com.docker.swarm.task.id"
SECOND_NS: Final = 10**9
INGRESS_PRIORITY: Final = 1


def container_request(
    row: TaskRow, node: NodeRow, files: Sequence[Mount], networks: Sequence[Network]
) -> tuple[ContainerConfig, HostConfig, NetworkingConfig]:
    """Make the create request of a task's container.

    `files`: the mounts of its secrets and configs. `networks`: all it is to be on, the ingress network included.
    Raises: InvalidParameter for a template that cannot be expanded for this task.
    """
    template = read_template(row.task.spec.container)
    spec = template.container_spec or ContainerSpec()
    context = template_context(row, node)
    return (
        _config(row, spec, context),
        _host(row, template, spec, context, files, networks),
        _networking(template, networks),
    )


def template_context(row: TaskRow, node: NodeRow) -> TemplateContext:
    return TemplateContext(
        service_id=row.task.service_id,
        service_name=row.service_name,
        service_labels=row.service_labels,
        node_id=node.id,
        node_hostname=node.node.hostname,
        node_os=node.node.os,
        node_architecture=node.node.architecture,
        task_id=row.id,
        slot=row.task.slot,
    )


def _config(row: TaskRow, spec: ContainerSpec, context: TemplateContext) -> ContainerConfig:
    config = ContainerConfig(
        image=spec.image,
        hostname=expand(spec.hostname, context),
        user=spec.user,
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        env=expand_env(spec.env or (), context),
        cmd=spec.args,
        entrypoint=spec.command,
        working_dir=spec.dir,
        labels=dict(spec.labels or {}) | _labels(row),
    )
    if spec.healthcheck is not None:
        config.healthcheck = spec.healthcheck
    if spec.stop_signal:
        config.stop_signal = spec.stop_signal
    if spec.stop_grace_period is not None:
        config.stop_timeout = spec.stop_grace_period // SECOND_NS
    return config


def _labels(row: TaskRow) -> dict[str, str]:
    return {
        TASK_LABEL: "",
        TASK_ID_LABEL: row.id,
        "com.docker.swarm.task.name": row.name,
        "com.docker.swarm.node.id": row.task.node_id or "",
        "com.docker.swarm.service.id": row.task.service_id,
        "com.docker.swarm.service.name": row.service_name,
    }


def _host(
    row: TaskRow,
    template: TaskTemplate,
    spec: ContainerSpec,
    context: TemplateContext,
    files: Sequence[Mount],
    networks: Sequence[Network],
) -> HostConfig:
    dns = spec.dns_config
    host = HostConfig(
        network_mode=networks[0].name if networks else "bridge",
        mounts=[expand_mount(mount, context) for mount in spec.mounts or ()] + list(files),
        readonly_rootfs=spec.read_only,
        cap_add=spec.capability_add,
        cap_drop=spec.capability_drop,
        dns=dns.nameservers if dns else None,
        dns_search=dns.search if dns else None,
        dns_options=dns.options if dns else None,
        extra_hosts=[host for entry in spec.hosts or () for host in _extra_hosts(entry)] or None,
        group_add=spec.groups,
        ulimits=spec.ulimits,
        oom_score_adj=spec.oom_score_adj,
        security_opt=_security(spec),
        port_bindings=_host_ports(row),
    )
    if spec.init is not None:
        host.init = spec.init
    if spec.sysctls:
        host.sysctls = spec.sysctls
    if template.log_driver is not None:
        host.log_config = LogConfig(type=template.log_driver.name, config=template.log_driver.options)
    _limit(host, template)
    return host


def _limit(host: HostConfig, template: TaskTemplate) -> None:
    resources = template.resources
    if resources is None:
        return
    if limits := resources.limits:
        host.nano_cpus = limits.nano_cpus
        host.memory = limits.memory_bytes
        host.pids_limit = limits.pids or None
    if reserved := resources.reservations:
        host.memory_reservation = reserved.memory_bytes
    if resources.swap_bytes is not None:
        host.memory_swap = resources.swap_bytes if resources.swap_bytes < 0 else host.memory + resources.swap_bytes
    host.memory_swappiness = resources.memory_swappiness


def expand_mount(mount: Mount, context: TemplateContext) -> Mount:
    """Expand the templates of a mount's source, target, labels and driver options. Raises: BadTemplate."""
    options = mount.volume_options
    if options is not None:
        driver = options.driver_config
        options = msgspec.structs.replace(
            options,
            labels=_expand_values(options.labels, context),
            driver_config=driver and msgspec.structs.replace(driver, options=_expand_values(driver.options, context)),
        )
    return msgspec.structs.replace(
        mount,
        source=expand(mount.source, context),
        target=expand(mount.target, context),
        volume_options=options,
    )


def _expand_values(values: dict[str, str] | None, context: TemplateContext) -> dict[str, str] | None:
    return values and {name: expand(value, context) for name, value in values.items()}


def _extra_hosts(entry: str) -> list[str]:
    """Turn a service's `1.2.3.4 name other` into a container's `name:1.2.3.4` and `other:1.2.3.4`; no name, nothing."""
    words = entry.split()
    return [f"{name}:{words[0]}" for name in words[1:]]


def _security(spec: ContainerSpec) -> list[str] | None:
    privileges = spec.privileges
    if privileges is None:
        return None
    options = ["no-new-privileges"] if privileges.no_new_privileges else []
    if privileges.seccomp and privileges.seccomp.mode == "unconfined":
        options.append("seccomp=unconfined")
    elif privileges.seccomp and privileges.seccomp.mode == "custom":
        options.append("seccomp=" + base64.b64decode(privileges.seccomp.profile).decode())
    if privileges.app_armor and privileges.app_armor.mode == "disabled":
        options.append("apparmor=unconfined")
    return [*options, *_selinux(privileges.se_linux_context or SELinuxContext())] or None


def _selinux(asked: SELinuxContext) -> list[str]:
    parts = (("user", asked.user), ("role", asked.role), ("level", asked.level), ("type", asked.type))
    return [*(["label=disable"] if asked.disable else []), *(f"label={name}:{value}" for name, value in parts if value)]


def _host_ports(row: TaskRow) -> dict[str, list[PortBinding] | None] | None:
    """Bind the ports in host mode as the container's own."""
    bindings: dict[str, list[PortBinding] | None] = {}
    for port in row.task.endpoint.ports if row.task.endpoint else ():
        if port.mode is PublishMode.HOST:
            bound = bindings.setdefault(f"{port.target}/{port.protocol}", [])
            assert bound is not None
            bound.append(PortBinding(host_port=str(port.published or "")))
    return bindings or None


def _networking(template: TaskTemplate, networks: Sequence[Network]) -> NetworkingConfig:
    """Build the networking without the service's names: these answer only while a task serves."""
    asked = {item.target: item for item in template.networks or ()}
    settings: dict[str, EndpointSettings | None] = {}
    for network in networks:
        if network.ingress:
            # Answers to who called a published port have to leave the way the call came.
            settings[network.name] = EndpointSettings(gw_priority=INGRESS_PRIORITY)
        elif network.is_predefined:
            settings[network.name] = EndpointSettings()
        else:
            settings[network.name] = EndpointSettings(driver_opts=asked[network.id].driver_opts or None)
    return NetworkingConfig(endpoints_config=settings)
