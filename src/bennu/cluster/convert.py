"""Conversions between the API's shapes of a service and the core's, one each way; the core's value is the truth.

The task template's container, networks, resources, restart policy and log driver travel as one canonical text
(`TaskSpec.container`): what a client made explicit stays visible and stays different from what it left out. Placement
and the counter of forced updates are apart, because the core judges changes of them by other rules.
"""

import functools
from typing import Any

import msgspec

from bennu.cluster.api_types import ContainerSpec, Mode, PlacementWire, ServiceSpecWire, TaskTemplate, UpdateConfigWire
from bennu.cluster.strategy import read_strategy
from bennu.orchestration.model import spec as core
from bennu.orchestration.model.states import (
    EndpointMode,
    FailureAction,
    PublishMode,
    RestartCondition,
    UpdateOrder,
)

Json = dict[str, Any]
_encode = msgspec.json.Encoder(order="deterministic").encode


# --- from the wire to the core ----------------------------------------------------------------------------------


def to_core(wire: ServiceSpecWire, *, registry_auth: str = "") -> core.ServiceSpec:
    """Convert a wire spec, checked before by `check.py`, to the core's spec."""
    return core.ServiceSpec(
        name=wire.name,
        mode=_mode(wire.mode),
        task=_task(wire, registry_auth),
        labels=dict(wire.labels or {}),
        update=_update(wire.update_config),
        rollback=_update(wire.rollback_config),
        endpoint=_endpoint(wire),
        strategy=read_strategy(wire.labels or {}),
        networks_beside=bool(wire.networks and not wire.task_template.networks),
    )


def _mode(mode: Mode | None) -> core.Mode:
    if mode is None:
        return core.Replicated(1)
    if mode.global_ is not None:
        return core.Global()
    if mode.global_job is not None:
        return core.GlobalJob()
    if mode.replicated_job is not None:
        most = mode.replicated_job.max_concurrent
        most = 1 if most is None else most
        total = mode.replicated_job.total_completions
        return core.ReplicatedJob(most, most if total is None else total)
    replicas = mode.replicated.replicas if mode.replicated else None
    return core.Replicated(1 if replicas is None else replicas)


def _task(wire: ServiceSpecWire, registry_auth: str) -> core.TaskSpec:
    template = wire.task_template
    spec = template.container_spec or ContainerSpec()
    kept = msgspec.structs.replace(
        template,
        container_spec=msgspec.structs.replace(spec, isolation=spec.isolation or "default"),
        networks=template.networks or wire.networks,
        placement=None,
        force_update=0,
        runtime="container",
    )
    reserved = template.resources.reservations if template.resources else None
    generic = [
        (entry.discrete_resource_spec.kind, entry.discrete_resource_spec.value)
        for entry in (reserved.generic_resources if reserved else None) or []
        if entry.discrete_resource_spec
    ]
    return core.TaskSpec(
        container=_encode(kept),
        restart=_restart(template),
        placement=_placement(template.placement),
        reservation=core.Reservation(
            nano_cpus=reserved.nano_cpus if reserved else 0,
            memory_bytes=reserved.memory_bytes if reserved else 0,
            generic=tuple(generic),
        ),
        plugins=_plugins(template, spec),
        force_update=template.force_update,
        registry_auth=registry_auth,
    )


def _plugins(template: TaskTemplate, spec: ContainerSpec) -> frozenset[tuple[str, str]]:
    """List the volume and log drivers that a node must have.

    Every node has `local` volumes and can keep no logs, so these two are left out.
    """
    configs = [mount.volume_options.driver_config for mount in spec.mounts or () if mount.volume_options]
    needed = {("Volume", config.name) for config in configs if config and config.name not in ("", "local")}
    if template.log_driver and template.log_driver.name not in ("", "none"):
        needed.add(("Log", template.log_driver.name))
    return frozenset(needed)


def _restart(template: TaskTemplate) -> core.TaskRestartPolicy | None:
    policy = template.restart_policy
    if policy is None:
        return None
    return core.TaskRestartPolicy(
        condition=RestartCondition(policy.condition or "any"),
        delay_ns=core.DEFAULT_RESTART_DELAY_NS if policy.delay is None else policy.delay,
        max_attempts=policy.max_attempts or 0,
        window_ns=policy.window or 0,
    )


def _placement(placement: PlacementWire | None) -> core.Placement:
    if placement is None:
        return core.Placement(given=False)
    return core.Placement(
        constraints=tuple(placement.constraints or ()),
        spread=tuple(item.spread.spread_descriptor for item in placement.preferences or () if item.spread),
        max_replicas=placement.max_replicas,
        platforms=tuple(core.Platform(item.os, item.architecture) for item in placement.platforms or ()),
    )


def _update(config: UpdateConfigWire | None) -> core.UpdateConfig | None:
    if config is None:
        return None
    return core.UpdateConfig(
        parallelism=config.parallelism,
        delay_ns=config.delay,
        failure_action=FailureAction(config.failure_action or "pause"),
        monitor_ns=config.monitor or core.DEFAULT_MONITOR_NS,
        max_failure_ratio=config.max_failure_ratio,
        order=UpdateOrder(config.order or "stop-first"),
    )


def _endpoint(wire: ServiceSpecWire) -> core.EndpointSpec | None:
    spec = wire.endpoint_spec
    if spec is None:
        return None
    ports = tuple(
        core.PortSpec(
            target=port.target_port,
            published=port.published_port,
            protocol=port.protocol if port.protocol in ("tcp", "udp", "sctp") else "tcp",
            mode=PublishMode.HOST if port.publish_mode == "host" else PublishMode.INGRESS,
            name=port.name,
        )
        for port in spec.ports or ()
    )
    return core.EndpointSpec(EndpointMode(spec.mode or "vip"), ports)


# --- from the core to the wire ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def read_template(container: bytes) -> TaskTemplate:
    """Read the template kept in `TaskSpec.container`. The result is shared: never change it."""
    return msgspec.json.decode(container, type=TaskTemplate)


def container_spec(task: core.TaskSpec) -> ContainerSpec:
    return read_template(task.container).container_spec or ContainerSpec()


def template_json(task: core.TaskSpec) -> Json:
    """Build `TaskTemplate` as clients see it."""
    shown: Json = msgspec.to_builtins(read_template(task.container))
    if task.placement.given:
        shown["Placement"] = placement_json(task.placement)
    shown["ForceUpdate"] = task.force_update
    shown.pop("Runtime", None)
    return shown | {"Runtime": "container"}


def placement_json(placement: core.Placement) -> Json:
    shown: Json = {}
    if placement.constraints:
        shown["Constraints"] = list(placement.constraints)
    if placement.spread:
        shown["Preferences"] = [{"Spread": {"SpreadDescriptor": item}} for item in placement.spread]
    if placement.max_replicas:
        shown["MaxReplicas"] = placement.max_replicas
    if placement.platforms:
        shown["Platforms"] = [
            ({"Architecture": item.architecture} if item.architecture else {}) | ({"OS": item.os} if item.os else {})
            for item in placement.platforms
        ]
    return shown


def spec_json(spec: core.ServiceSpec) -> Json:
    """Build `ServiceSpec` as clients see it."""
    shown: Json = {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": template_json(spec.task),
        "Mode": mode_json(spec.mode),
    }
    if spec.networks_beside:
        shown["Networks"] = shown["TaskTemplate"].pop("Networks")
    if spec.update is not None:
        shown["UpdateConfig"] = update_json(spec.update)
    if spec.rollback is not None:
        shown["RollbackConfig"] = update_json(spec.rollback)
    if spec.endpoint is not None:
        shown["EndpointSpec"] = endpoint_json(spec.endpoint)
    return shown


def mode_json(mode: core.Mode) -> Json:
    match mode:
        case core.Replicated(replicas):
            return {"Replicated": {"Replicas": replicas}}
        case core.ReplicatedJob(most, total):
            return {"ReplicatedJob": {"MaxConcurrent": most, "TotalCompletions": total}}
        case core.Global():
            return {"Global": {}}
        case core.GlobalJob():
            return {"GlobalJob": {}}


def update_json(config: core.UpdateConfig) -> Json:
    shown: Json = {"Parallelism": config.parallelism}
    if config.delay_ns:
        shown["Delay"] = config.delay_ns
    return shown | {
        "FailureAction": config.failure_action.value,
        "Monitor": config.monitor_ns,
        "MaxFailureRatio": int(config.max_failure_ratio)
        if config.max_failure_ratio == int(config.max_failure_ratio)
        else config.max_failure_ratio,
        "Order": config.order.value,
    }


def endpoint_json(endpoint: core.EndpointSpec) -> Json:
    shown: Json = {"Mode": endpoint.mode.value}
    if endpoint.ports:
        shown["Ports"] = [port_json(port) for port in endpoint.ports]
    return shown


def port_json(port: core.PortSpec) -> Json:
    shown: Json = {"Name": port.name} if port.name else {}
    shown |= {"Protocol": port.protocol, "TargetPort": port.target}
    if port.published:
        shown["PublishedPort"] = port.published
    return shown | {"PublishMode": port.mode.value}


def fill_defaults(shown: Json) -> Json:
    """Make explicit what the engine would do (`insertDefaults=true`). Changes and answers `shown`."""
    template = shown["TaskTemplate"]
    spec = template.setdefault("ContainerSpec", {})
    spec.setdefault("StopGracePeriod", 10_000_000_000)
    spec.setdefault("DNSConfig", {})
    template.setdefault("Resources", {"Limits": {}, "Reservations": {}})
    restart = template.setdefault("RestartPolicy", {})
    restart.setdefault("Condition", "any")
    restart.setdefault("Delay", core.DEFAULT_RESTART_DELAY_NS)
    restart.setdefault("MaxAttempts", 0)
    for name in ("UpdateConfig", "RollbackConfig"):
        shown.setdefault(name, update_json(core.UpdateConfig()))
    shown.setdefault("EndpointSpec", {"Mode": "vip"})
    return shown
