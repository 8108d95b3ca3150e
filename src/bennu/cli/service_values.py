"""How single words of `service create` and `service update` are read. All raise `ValueError` with what is wrong."""

import csv
from typing import Any, Final

from bennu.cli.ports import parse_range

Spec = dict[str, Any]
PUBLISH_MODES: Final = ("ingress", "host")


def _fields(entry: str, known: frozenset[str], what: str) -> dict[str, str]:
    """`a=1,b=2`; names in any case."""
    found: dict[str, str] = {}
    for part in next(csv.reader([entry]), []):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"invalid field '{part}' must be a key=value pair")
        if name.lower() not in known:
            raise ValueError(f"invalid {what} key {name}")
        found[name.lower()] = value
    return found


def parse_publish(entry: str) -> list[Spec]:
    """`8080:80/tcp`, `80`, `9000-9001:90-91`, or `published=8080,target=80,protocol=tcp,mode=host`."""
    if "=" in entry:
        return [_long_publish(entry)]
    ports, _, protocol = entry.partition("/")
    *before, target = ports.split(":")
    if len(before) > 1:
        raise ValueError("hostip is not supported")
    first, last = parse_range(target, "container")
    published = [0] * (last - first + 1)
    if before and before[0]:
        begin, end = parse_range(before[0], "host")
        if end - begin != last - first:
            raise ValueError(f"invalid ranges specified for container and host Ports: {target} and {before[0]}")
        published = list(range(begin, end + 1))
    return [port(first + number, published[number], protocol or "tcp", "ingress") for number in range(len(published))]


def _long_publish(entry: str) -> Spec:
    given = _fields(entry, frozenset({"published", "target", "protocol", "mode"}), "publish")
    if "target" not in given:
        raise ValueError("missing mandatory field 'target'")
    mode = given.get("mode", "ingress")
    if mode not in PUBLISH_MODES:
        raise ValueError(f"invalid publish mode value ({mode}): must be either 'ingress' or 'host'")
    for name in ("target", "published"):
        if not given.get(name, "0").isdecimal():
            raise ValueError(f"invalid {name} port ({given[name]}): must be an integer")
    return port(int(given["target"]), int(given.get("published", "0")), given.get("protocol", "tcp").lower(), mode)


def port(target: int, published: int, protocol: str, mode: str) -> Spec:
    return {"Protocol": protocol, "TargetPort": target, "PublishedPort": published, "PublishMode": mode}


def parse_reference(entry: str) -> Spec:
    """A secret or config: `name`, or `source=name,target=file,uid=0,gid=0,mode=0440`."""
    known = frozenset({"source", "src", "target", "uid", "gid", "mode"})
    given = _fields(entry, known, "reference") if "=" in entry else {"source": entry}
    source = given.get("source") or given.get("src")
    if not source:
        raise ValueError(f"source is required: {entry}")
    file = {"Name": given.get("target", source), "UID": given.get("uid", "0"), "GID": given.get("gid", "0")}
    return {"Name": source, "File": {**file, "Mode": int(given.get("mode", "0444"), 8)}}


def parse_network(entry: str) -> Spec:
    """`name`, or `name=n,alias=a,driver-opt=k=v`, the latter two repeatable."""
    if "=" not in entry:
        return {"Target": entry}
    found: Spec = {"Target": ""}
    for part in next(csv.reader([entry]), []):
        name, _, value = part.partition("=")
        if name == "name":
            found["Target"] = value
        elif name == "alias":
            found.setdefault("Aliases", []).append(value)
        elif name == "driver-opt":
            option, _, setting = value.partition("=")
            found.setdefault("DriverOpts", {})[option] = setting
        else:
            raise ValueError(f"invalid field key {name}")
    if not found["Target"]:
        raise ValueError("network name is not set")
    return found


def parse_host(entry: str) -> str:
    """`name:address` as services have it."""
    name, colon, address = entry.partition(":")
    if not colon or not name or not address:
        raise ValueError(f'bad format for add-host: "{entry}"')
    return f"{address} {name}"


def parse_capability(entry: str) -> str:
    word = entry.upper()
    return word if word in ("ALL", "RESET") or word.startswith("CAP_") else f"CAP_{word}"


def parse_preference(entry: str) -> Spec:
    strategy, _, descriptor = entry.partition("=")
    if strategy != "spread" or not descriptor:
        raise ValueError('placement preference must be of the format "spread=<descriptor>"')
    return {"Spread": {"SpreadDescriptor": descriptor}}


def parse_generic(entry: str) -> Spec:
    kind, _, value = entry.partition("=")
    if not kind or not value:
        raise ValueError(f"invalid generic-resource {entry}: it must look like kind=number")
    if not value.isdecimal():
        raise ValueError("only discrete generic resources can be asked for: kind=number")
    return {"DiscreteResourceSpec": {"Kind": kind, "Value": int(value)}}


def parse_credential(entry: str) -> Spec:
    """`config://name`, `file://name` or `registry://name`."""
    kind, separator, value = entry.partition("://")
    names = {"config": "Config", "file": "File", "registry": "Registry"}
    if not separator or kind not in names:
        raise ValueError("invalid credential spec: must be prefixed with 'file://', 'registry://', or 'config://'")
    return {names[kind]: value}
