"""What typed flags change in a service's specification."""

import shlex
from collections.abc import Collection, Mapping
from typing import Any, Final

from bennu.cli.failure import Failure
from bennu.cli.service_options import CHECK, CONTAINER, LISTS, MAPS, RESTART, SINGLE, Spec
from bennu.cli.values import as_mapping

ROLLOUT: Final = {
    "Parallelism": 1,
    "Delay": 0,
    "FailureAction": "pause",
    "Monitor": 5 * 10**9,
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}
# What docker makes explicit with the first flag of a kind.
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "UpdateConfig": ROLLOUT,
    "RollbackConfig": ROLLOUT,
    RESTART: {"Condition": "any", "Delay": 5 * 10**9, "MaxAttempts": 0},
}


def place(spec: Spec, path: str, value: Any) -> None:
    """Put a value where the dotted path leads, making objects on the way."""
    *way, last = path.split(".")
    for word in way:
        spec = spec.setdefault(word, {}) if spec.get(word) is not None else spec.update({word: {}}) or spec[word]
    spec[last] = value


def look(spec: Spec, path: str) -> Any:
    found: Any = spec
    for word in path.split("."):
        found = (found or {}).get(word)
    return found


def apply_single(spec: Spec, values: Mapping[str, Any], given: Collection[str]) -> None:
    """Every flag that was typed goes to its place. Raises: Failure for flags that exclude each other."""
    for option, path in SINGLE:
        if option.key not in given:
            continue
        if option.key == "replicas":
            set_replicas(spec, values)
            continue
        whole = path.rpartition(".")[0]
        if whole in DEFAULTS and look(spec, whole) is None:
            # An absent part would mean something else than the default: no parallelism is "all at once".
            place(spec, whole, dict(DEFAULTS[whole]))
        place(spec, path, values[option.key])
    if values["entrypoint"] is not None:
        place(spec, f"{CONTAINER}.Command", shlex.split(values["entrypoint"]))
    if values["log_opt"] and look(spec, "TaskTemplate.LogDriver.Name"):
        place(spec, "TaskTemplate.LogDriver.Options", as_mapping(values["log_opt"]))
    if values["no_healthcheck"]:
        if any(key.startswith("health_") for key in given):
            raise Failure("--no-healthcheck conflicts with --health-* options")
        place(spec, CHECK, {"Test": ["NONE"]})
    elif "health_cmd" in given:
        place(spec, f"{CHECK}.Test", ["CMD-SHELL", values["health_cmd"]])


def set_replicas(spec: Spec, values: Mapping[str, Any]) -> None:
    number = values["replicas"]
    if number < 0:
        raise Failure(f"replicas must not be negative: {number}")
    if "Replicated" in spec["Mode"]:
        place(spec, "Mode.Replicated.Replicas", number)
    elif "ReplicatedJob" in spec["Mode"] and "max_concurrent" in values:
        most = values["max_concurrent"]
        place(
            spec, "Mode.ReplicatedJob", {"MaxConcurrent": number if most is None else most, "TotalCompletions": number}
        )
    elif "max_concurrent" in values:
        raise Failure("replicas can only be used with replicated or replicated-job mode")
    else:
        raise Failure("replicas can only be used with replicated mode")


def apply_ports(spec: Spec, values: Mapping[str, Any]) -> None:
    """Ports are known by target, protocol and mode."""
    added = [port for ports in values.get("publish") or values.get("publish_add") or [] for port in ports]
    removed = [port for ports in values.get("publish_rm") or [] for port in ports]
    if added or removed:
        gone = {_port_name(port) for port in removed}
        same = {(*_port_name(port), port["PublishedPort"]) for port in added}
        there = [
            port
            for port in look(spec, "EndpointSpec.Ports") or []
            if _port_name(port) not in gone and (*_port_name(port), port.get("PublishedPort", 0)) not in same
        ]
        place(spec, "EndpointSpec.Ports", [*there, *added])


def _port_name(port: Spec) -> tuple[int, str, str]:
    return port["TargetPort"], port["Protocol"], port["PublishMode"]


def apply_lists(spec: Spec, values: Mapping[str, Any]) -> None:
    """Add and remove what the flags of either command name."""
    apply_ports(spec, values)
    for flag, _, _, path, name_of in LISTS:
        key = flag.replace("-", "_")
        added = values.get(key) or values.get(f"{key}_add") or []
        removed = values.get(f"{key}_rm") or []
        if added or removed:
            gone = {*removed, *map(name_of, added)}
            kept = [entry for entry in look(spec, path) or [] if name_of(entry) not in gone]
            place(spec, path, [*kept, *added])
    for flag, _, path in MAPS:
        key = flag.replace("-", "_")
        named = dict(entry.partition("=")[::2] for entry in values.get(key) or values.get(f"{key}_add") or [])
        removed = values.get(f"{key}_rm") or []
        if named or removed:
            labels = {name: value for name, value in (look(spec, path) or {}).items() if name not in removed}
            place(spec, path, {**labels, **named})
