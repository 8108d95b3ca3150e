"""One service of a compose file as the specification that the API takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bennu.cli.failure import Failure
from bennu.cli.stacks import fields
from bennu.cli.stacks.composefile import Compose
from bennu.cli.stacks.mounts import mount
from bennu.cli.stacks.objects import DEFAULT_NETWORK, HOST_NETWORKS, labelled, real_name, scoped
from bennu.cli.values import parse_cpus

Dict = dict[str, Any]
IMAGE_LABEL: Final = "com.docker.stack.image"
MODES: Final = ("replicated", "global", "replicated-job", "global-job")


@dataclass(frozen=True, slots=True)
class Ids:
    """Finds the id of a secret or config by its name in the swarm. Raises: Failure."""

    secret: Callable[[str], str]
    config: Callable[[str], str]


def service_spec(stack: str, name: str, compose: Compose, ids: Ids) -> Dict:
    """Raises: Failure that names the service."""
    service = compose.services[name]
    deploy = service.get("deploy") or {}
    try:
        return _without_nothing(
            {
                "Name": scoped(stack, name),
                "Labels": {**labelled(stack, deploy.get("labels")), IMAGE_LABEL: service["image"]},
                "Mode": mode(deploy),
                "UpdateConfig": update_config(deploy.get("update_config")),
                "RollbackConfig": update_config(deploy.get("rollback_config")),
            }
        ) | {
            "TaskTemplate": task_template(stack, name, compose, ids),
            "EndpointSpec": _without_nothing(
                {"Mode": str(deploy.get("endpoint_mode") or "").lower(), "Ports": sorted_ports(service)}
            ),
        }
    except ValueError as error:
        raise Failure(f"service {name}: {error}") from None


def task_template(stack: str, name: str, compose: Compose, ids: Ids) -> Dict:
    service = compose.services[name]
    deploy = service.get("deploy") or {}
    placement = deploy.get("placement") or {}
    preferences = [{"Spread": {"SpreadDescriptor": part["spread"]}} for part in placement.get("preferences") or ()]
    logging = service.get("logging")
    return _without_nothing(
        {
            "RestartPolicy": restart_policy(service.get("restart"), deploy.get("restart_policy")),
            "LogDriver": logging
            and _without_nothing({"Name": logging.get("driver"), "Options": _texts(logging.get("options"))}),
            "Networks": networks(stack, name, compose),
        }
    ) | {
        "ContainerSpec": container_spec(stack, name, compose, ids),
        "Resources": resources(deploy.get("resources") or {}),
        "Placement": _without_nothing(
            {
                "Constraints": placement.get("constraints"),
                "Preferences": preferences,
                "MaxReplicas": placement.get("max_replicas_per_node"),
            }
        ),
        "ForceUpdate": 0,
    }


# Fields that only have another name.
RENAMED: Final[Mapping[str, str]] = {
    "image": "Image",
    "entrypoint": "Command",
    "command": "Args",
    "hostname": "Hostname",
    "labels": "Labels",
    "working_dir": "Dir",
    "user": "User",
    "stop_signal": "StopSignal",
    "isolation": "Isolation",
    "sysctls": "Sysctls",
    "cap_drop": "CapabilityDrop",
    "cap_add": "CapabilityAdd",
}
CONVERTED: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "stop_grace_period": ("StopGracePeriod", fields.duration),
    "tty": ("TTY", fields.truth),
    "stdin_open": ("OpenStdin", fields.truth),
    "read_only": ("ReadOnly", fields.truth),
    "oom_score_adj": ("OomScoreAdj", fields.number),
    "init": ("Init", fields.truth),
}


def container_spec(stack: str, name: str, compose: Compose, ids: Ids) -> Dict:
    service = compose.services[name]
    spec: Dict = {new: service[old] for old, new in RENAMED.items() if service.get(old)}
    for old, (new, convert) in CONVERTED.items():
        if service.get(old) is not None:
            spec[new] = _at(old, convert, service[old])
    spec["Labels"] = labelled(stack, service.get("labels"))
    mounts = [mount(stack, volume, compose.volumes) for volume in service.get("volumes") or ()]
    mounts += [{"Type": "tmpfs", "Target": target} for target in fields.texts(service.get("tmpfs") or [])]
    environment = sorted(key if value is None else f"{key}={value}" for key, value in service["environment"].items())
    spec |= {
        "Hosts": [
            f"{address} {host}"
            for host, _, address in (entry.partition(":") for entry in service.get("extra_hosts") or ())
        ],
        "Env": environment,
        "DNSConfig": _without_nothing({"Nameservers": service.get("dns"), "Search": service.get("dns_search")}),
        "Healthcheck": healthcheck(service.get("healthcheck")),
        "Mounts": mounts,
        "Ulimits": [limit for _, limit in sorted((service.get("ulimits") or {}).items())],
        "Secrets": references("Secret", stack, service.get("secrets") or (), compose.secrets, ids.secret),
        "Configs": references("Config", stack, service.get("configs") or (), compose.configs, ids.config),
    }
    credential = {key.title(): value for key, value in (service.get("credential_spec") or {}).items()}
    # `init: false` and a grace period of nothing are wishes too; privileges are always sent, as docker does.
    kept = {key: spec[key] for key in ("Init", "StopGracePeriod") if key in spec}
    return _without_nothing(spec) | kept | {"Privileges": {"CredentialSpec": credential} if credential else {}}


def mode(deploy: Dict) -> Dict:
    word = deploy.get("mode") or "replicated"
    if word not in MODES:
        raise ValueError(f"unknown mode: {word}")
    replicas = None if deploy.get("replicas") is None else _at("deploy.replicas", fields.number, deploy["replicas"])
    if word in ("global", "global-job"):
        if replicas is not None:
            raise ValueError("replicas can only be used with replicated or replicated-job mode")
        return {"Global" if word == "global" else "GlobalJob": {}}
    if word == "replicated-job":
        numbers = {"MaxConcurrent": replicas, "TotalCompletions": replicas}
        return {"ReplicatedJob": {} if replicas is None else numbers}
    return {"Replicated": {} if replicas is None else {"Replicas": replicas}}


def sorted_ports(service: Dict) -> list[Dict]:
    return sorted(
        service.get("ports") or (), key=lambda port: (port["TargetPort"], port["PublishedPort"], port["Protocol"])
    )


def update_config(config: Dict | None) -> Dict | None:
    if config is None:
        return None
    found: Dict = {
        "Parallelism": _at("parallelism", fields.number, config.get("parallelism", 1)),
        "MaxFailureRatio": _at("max_failure_ratio", fields.ratio, config.get("max_failure_ratio", 0)),
        "Order": config.get("order") or "",
    }
    if config.get("failure_action"):
        found["FailureAction"] = config["failure_action"]
    for key, name in (("delay", "Delay"), ("monitor", "Monitor")):
        if config.get(key) is not None:
            found[name] = _at(key, fields.duration, config[key])
    return found


def restart_policy(restart: str | None, policy: Dict | None) -> Dict | None:
    """`deploy.restart_policy`, else what `restart` means for tasks."""
    if policy is not None:
        found: Dict = {"Condition": policy.get("condition")}
        for key, name, convert in (
            ("delay", "Delay", fields.duration),
            ("max_attempts", "MaxAttempts", fields.number),
            ("window", "Window", fields.duration),
        ):
            if policy.get(key) is not None:
                found[name] = _at(f"restart_policy.{key}", convert, policy[key])
        return {name: value for name, value in found.items() if value is not None}
    word, _, attempts = str(restart or "no").partition(":")
    if word in ("no", "False", "false"):
        return None
    conditions = {"always": "any", "unless-stopped": "any", "on-failure": "on-failure"}
    if word not in conditions:
        raise ValueError(
            f"invalid restart policy: unknown policy '{word}' (must be one of 'no', 'always', 'on-failure', or "
            "'unless-stopped')"
        )
    found = {"Condition": conditions[word]}
    if attempts:
        found["MaxAttempts"] = _at("restart", fields.number, attempts)
    return found


def resources(given: Dict) -> Dict:
    found: Dict = {}
    for key, name in (("limits", "Limits"), ("reservations", "Reservations")):
        if (part := given.get(key)) is None:
            continue
        sizes: Dict = {}
        if part.get("cpus"):
            sizes["NanoCPUs"] = parse_cpus(str(part["cpus"]))
        if part.get("memory"):
            sizes["MemoryBytes"] = fields.size(part["memory"])
        if part.get("pids"):
            sizes["Pids"] = _at("pids", fields.number, part["pids"])
        if part.get("generic_resources"):
            sizes["GenericResources"] = [
                {
                    "DiscreteResourceSpec": {
                        "Kind": item["discrete_resource_spec"]["kind"],
                        "Value": item["discrete_resource_spec"]["value"],
                    }
                }
                for item in part["generic_resources"]
            ]
        found[name] = sizes
    return found


def healthcheck(check: Dict | None) -> Dict | None:
    if check is None:
        return None
    if fields.truth(check.get("disable") or False):
        if check.get("test"):
            raise ValueError("test and disable can't be set at the same time")
        return {"Test": ["NONE"]}
    found: Dict = {"Test": fields.check_test(check["test"])} if check.get("test") else {}
    for key, name in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ):
        if check.get(key) is not None:
            found[name] = _at(f"healthcheck.{key}", fields.duration, check[key])
    if check.get("retries") is not None:
        found["Retries"] = _at("healthcheck.retries", fields.number, check["retries"])
    return found


def networks(stack: str, name: str, compose: Compose) -> list[Dict]:
    found = []
    for key, given in (compose.services[name].get("networks") or {DEFAULT_NETWORK: {}}).items():
        if key not in compose.networks and key != DEFAULT_NETWORK:
            raise ValueError(f'undefined network "{key}"')
        target = real_name(stack, key, compose.networks.get(key) or {})
        aliases = [*(given.get("aliases") or ()), *([name] if target not in HOST_NETWORKS else ())]
        found.append(
            _without_nothing({"Target": target, "Aliases": aliases, "DriverOpts": _texts(given.get("driver_opts"))})
        )
    return sorted(found, key=lambda attachment: str(attachment["Target"]))


def references(
    word: str, stack: str, used: Any, declared: Mapping[str, Dict], find_id: Callable[[str], str]
) -> list[Dict]:
    """In order of their names, so that another order in the file is no change."""
    found = []
    for item in used:
        source = item.get("source")
        if source not in declared:
            raise ValueError(f'undefined {word.lower()} "{source}"')
        name = real_name(stack, source, declared[source])
        given_mode = item.get("mode", 0o444)
        file = {
            "Name": item.get("target") or source,
            "UID": str(item.get("uid") or "0"),
            "GID": str(item.get("gid") or "0"),
            "Mode": given_mode if isinstance(given_mode, int) else int(str(given_mode), 8),
        }
        found.append({"File": file, f"{word}ID": find_id(name), f"{word}Name": name})
    return sorted(found, key=lambda reference: str(reference[f"{word}Name"]))


def _at(path: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _texts(options: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: fields.text(value) for name, value in (options or {}).items()}


def _without_nothing(values: Dict) -> Dict:
    """What is absent, empty, false or zero is not sent."""
    return {name: value for name, value in values.items() if value}
