"""The options of `run` and `create` turned into the body of a create request, as the docker command sends it."""

import os
from pathlib import Path
from typing import Any, Final

from bennu.cli.command import Option
from bennu.cli.failure import Failure
from bennu.cli.mounts import parse_device, parse_tmpfs, split_volumes
from bennu.cli.ports import parse_expose, parse_publish
from bennu.cli.run_options import CREATE
from bennu.cli.values import as_mapping, collect_env, collect_labels

Values = dict[str, Any]
NAMESPACES: Final = (
    ("pid", "PID", ("", "host")),
    ("uts", "UTS", ("", "host")),
    ("userns", "USER", ("", "host")),
    ("cgroupns", "CGROUP", ("", "host", "private")),
)
BUILT_IN_NETWORKS: Final = frozenset({"default", "bridge", "host", "none"})


def build_body(values: Values, image: str, words: list[str], *, detach: bool) -> Values:
    """The body of POST /containers/create. Raises: Failure for what cannot be combined."""
    check_conflicts(values)
    config = build_config(values, image, words, detach=detach)
    host = build_host(values)
    config["HostConfig"] = host
    for option in CREATE:
        if option.body:
            put(config, option, values[option.key])
    publish(values, config, host)
    endpoints = build_endpoints(values, host)
    config["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return config


def check_conflicts(values: Values) -> None:
    restart = values["restart"]
    if values["rm"] and restart not in (None, "", "no"):
        raise Failure("conflicting options: cannot specify both --restart and --rm")
    health = ("health_cmd", "health_interval", "health_retries", "health_timeout", "health_start_period")
    if values["no_healthcheck"] and any(values[name] is not None for name in health):
        raise Failure("--no-healthcheck conflicts with --health-* options")
    if values["no_healthcheck"] and values["health_start_interval"] is not None:
        raise Failure("--no-healthcheck conflicts with --health-* options")
    if values["health_retries"] is not None and values["health_retries"] < 0:
        raise Failure("--health-retries cannot be negative")
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if (values["health_" + name] or 0) < 0:
            raise Failure(f"--health-{name.replace('_', '-')} cannot be negative")
    swappiness = values["memory_swappiness"]
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise Failure(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    for option, word, kinds in NAMESPACES:
        mode = values[option] or ""
        if mode not in kinds and not (option == "pid" and mode.startswith("container:")):
            raise Failure(f"--{option}: invalid {word} mode")
    if values["gpus"] is not None:
        raise Failure("--gpus is not implemented")


def put(body: Values, option: Option, value: Any) -> None:
    """Place `value` at the option's path; what was not given stays out, so that the daemon's default holds."""
    if value is None or value == [] or (value is False and not option.kind):
        return
    *path, last = option.body.split(".")
    for name in path:
        body = body[name]
    body[last] = body.get(last, []) + value if option.many else value


def build_config(values: Values, image: str, words: list[str], *, detach: bool) -> Values:
    streams = set(values["attach"])
    if not streams and not detach:
        streams = {"stdout", "stderr"} | ({"stdin"} if values["interactive"] else set())
    config: Values = {
        "Image": image,
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "OpenStdin": values["interactive"],
        "StdinOnce": values["interactive"] and "stdin" in streams,
        "Cmd": words or None,
        "Env": collect_env(values["env_file"], values["env"]) or None,
        "Labels": collect_labels(values["label_file"], values["label"]),
    }
    if values["entrypoint"] is not None:
        config["Entrypoint"] = [values["entrypoint"]]  # "" resets the image's
    health = build_health(values)
    if health:
        config["Healthcheck"] = health
    return config


def build_health(values: Values) -> Values | None:
    if values["no_healthcheck"]:
        return {"Test": ["NONE"]}
    health: Values = {}
    if values["health_cmd"]:
        health["Test"] = ["CMD-SHELL", values["health_cmd"]]
    for option, name in (
        ("health_interval", "Interval"),
        ("health_timeout", "Timeout"),
        ("health_start_period", "StartPeriod"),
        ("health_start_interval", "StartInterval"),
        ("health_retries", "Retries"),
    ):
        if values[option]:
            health[name] = values[option]
    return health or None


def build_host(values: Values) -> Values:
    """What of HostConfig has to be computed."""
    binds, anonymous = split_volumes(values["volume"])
    host: Values = {
        "RestartPolicy": parse_restart(values["restart"] or "no"),
        "NetworkMode": "default",
        "LogConfig": {"Type": values["log_driver"] or "", "Config": as_mapping(values["log_opt"])},
        "MemorySwappiness": -1,
    }
    if binds:
        host["Binds"] = binds
    if values["tmpfs"]:
        host["Tmpfs"] = parse_tmpfs(values["tmpfs"])
    if values["mount"]:
        host["Mounts"] = values["mount"]
    if values["device"]:
        host["Devices"] = [parse_device(entry) for entry in values["device"]]
    if values["ulimit"]:
        by_name = {limit["Name"]: limit for limit in values["ulimit"]}
        host["Ulimits"] = [by_name[name] for name in sorted(by_name)]
    for place, names in zip(("CapAdd", "CapDrop"), settle_capabilities(values), strict=True):
        if names:
            host[place] = names
    if values["init"]:
        host["Init"] = True
    for option, place in (("sysctl", "Sysctls"), ("storage_opt", "StorageOpt"), ("annotation", "Annotations")):
        if values[option]:
            host[place] = as_mapping(values[option])
    if values["security_opt"]:
        host["SecurityOpt"] = [read_security(entry) for entry in values["security_opt"]]
    values["anonymous_volumes"] = anonymous
    return host


def settle_capabilities(values: Values) -> tuple[list[str], list[str]]:
    """(added, dropped) in the kernel's spelling; what is both added and dropped is added."""
    added, dropped = ({spell_capability(name) for name in values[option]} for option in ("cap_add", "cap_drop"))
    return sorted(added), sorted(dropped - added)


def spell_capability(name: str) -> str:
    name = name.strip().upper()
    return name if name == "ALL" or name.startswith("CAP_") else "CAP_" + name


def parse_restart(text: str) -> Values:
    """`on-failure:3`; the names are the daemon's to judge."""
    name, colon, retries = text.partition(":")
    if not name and colon:
        raise Failure("invalid restart policy format: no policy provided before colon")
    try:
        return {"Name": name, "MaximumRetryCount": int(retries) if colon else 0}
    except ValueError:
        raise Failure("invalid restart policy format: maximum retry count must be an integer") from None


def read_security(entry: str) -> str:
    """A seccomp profile is a file of this machine: the daemon gets its content."""
    name, equals, value = entry.partition("=")
    if not equals and ":" in entry:
        name, _, value = entry.partition(":")
    if name != "seccomp" or value in ("unconfined", "builtin"):
        return entry
    try:
        return f"seccomp={Path(value).read_text()}"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Failure(f"opening seccomp profile ({value}) failed: open {value}: {reason}") from None


def publish(values: Values, config: Values, host: Values) -> None:
    bindings = parse_publish(values["publish"])
    exposed = [*bindings, *parse_expose(values["expose"])]
    if bindings:
        host["PortBindings"] = bindings
    if exposed:
        config["ExposedPorts"] = {port: {} for port in exposed}
    if values.get("anonymous_volumes"):
        config["Volumes"] = {path: {} for path in values["anonymous_volumes"]}


def build_endpoints(values: Values, host: Values) -> Values:
    """Networks with what is asked of each. The first one takes `--ip`, `--network-alias` and the like."""
    wanted = [parse_network(entry) for entry in values["net"] + values["network"]]
    first = endpoint_from_options(values)
    if values["link"] and (not wanted or wanted[0][0] in ("default", "bridge")):
        host["Links"] = values["link"]
    if not wanted:
        return {"default": first}
    host["NetworkMode"] = wanted[0][0]
    endpoints: Values = {}
    for number, (name, endpoint) in enumerate(wanted):
        if name in endpoints:
            raise Failure(f'network "{name}" is specified multiple times')
        if number == 0:
            endpoint = combine_endpoint(name, endpoint, first)
            if values["link"] and is_user_defined(name):
                endpoint["Links"] = values["link"]
        if endpoint or len(wanted) > 1:
            endpoints[name] = endpoint
    kinds = {is_user_defined(name) for name, _ in wanted}
    if len(kinds) > 1:
        raise Failure("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return endpoints


def is_user_defined(name: str) -> bool:
    return name not in BUILT_IN_NETWORKS and not name.startswith("container:")


def parse_network(entry: str) -> tuple[str, Values]:
    """`NAME`, or `name=NAME,alias=…,ip=…,driver-opt=…`."""
    if "=" not in entry:
        return entry, {}
    name, endpoint = "", Values()
    for part in entry.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise Failure(f"invalid field {part}")
        if key == "name":
            name = value
        elif key == "alias":
            endpoint.setdefault("Aliases", []).append(value)
        elif key in ("ip", "ip6"):
            place = "IPv4Address" if key == "ip" else "IPv6Address"
            endpoint.setdefault("IPAMConfig", {})[place] = value
        elif key == "link-local-ip":
            endpoint.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
        elif key == "mac-address":
            endpoint["MacAddress"] = value
        elif key == "driver-opt":
            option, _, text = value.partition("=")
            endpoint.setdefault("DriverOpts", {})[option] = text
        elif key == "gw-priority":
            endpoint["GwPriority"] = int(value)
        else:
            raise Failure(f"invalid field key {key}")
    return name, endpoint


def endpoint_from_options(values: Values) -> Values:
    endpoint: Values = {}
    aliases = values["net_alias"] + values["network_alias"]
    if aliases:
        endpoint["Aliases"] = aliases
    addresses = {"IPv4Address": values["ip"], "IPv6Address": values["ip6"], "LinkLocalIPs": values["link_local_ip"]}
    addresses = {name: value for name, value in addresses.items() if value}
    if addresses:
        endpoint["IPAMConfig"] = addresses
    if values["mac_address"]:
        endpoint["MacAddress"] = values["mac_address"]
    return endpoint


def combine_endpoint(name: str, own: Values, options: Values) -> Values:
    both = set(own) & set(options)
    if both:
        what = "/".join(sorted(both))
        raise Failure(f"conflicting options: {what} of network {name} given by an option and in --network")
    if options and not is_user_defined(name) and name != "default" and set(options) != {"MacAddress"}:
        return options
    return {**own, **options}


def write_cid_file(path: str) -> int:
    """Reserve the file before the container exists; a file descriptor."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        message = f"container ID file found, make sure the other container isn't running or delete {path}"
        raise Failure(message) from None
    except OSError as error:
        raise Failure(f"failed to create the container ID file: {error}") from None
