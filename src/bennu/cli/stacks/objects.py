"""The networks, secrets and configs of a stack, as the API takes them."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bennu.cli.failure import Failure
from bennu.cli.stacks.composefile import Compose

Dict = dict[str, Any]
NAMESPACE: Final = "com.docker.stack.namespace"
DEFAULT_NETWORK: Final = "default"
HOST_NETWORKS: Final = frozenset({"bridge", "host", "none", "default"})


def scoped(stack: str, name: str) -> str:
    return f"{stack}_{name}"


def labelled(stack: str, labels: Mapping[str, str] | None) -> dict[str, str]:
    return {**(labels or {}), NAMESPACE: stack}


def real_name(stack: str, key: str, declared: Dict) -> str:
    """The object's name in the swarm: its own, that of an external one, or the key within the stack."""
    external = declared.get("external")
    if isinstance(external, dict) and external.get("name"):
        return str(external["name"])
    return str(declared.get("name") or (key if external else scoped(stack, key)))


def used_networks(compose: Compose) -> list[str]:
    used: dict[str, None] = {}
    for service in compose.services.values():
        used.update(dict.fromkeys(service.get("networks") or (DEFAULT_NETWORK,)))
    return list(used)


def networks(stack: str, compose: Compose) -> tuple[list[Dict], list[str]]:
    """Bodies of the networks that services use, and the names of those that must be there already."""
    made: list[Dict] = []
    external: list[str] = []
    for key in used_networks(compose):
        declared = compose.networks.get(key) or {}
        name = real_name(stack, key, declared)
        if declared.get("external"):
            external.append(name)
            continue
        if key not in compose.networks and key != DEFAULT_NETWORK:
            continue  # the service that names it will complain
        body: Dict = {
            "Name": name,
            "Driver": declared.get("driver") or "overlay",
            "Labels": labelled(stack, declared.get("labels")),
            "Internal": bool(declared.get("internal")),
            "Attachable": bool(declared.get("attachable")),
            "Options": {option: str(value) for option, value in (declared.get("driver_opts") or {}).items()},
            "Scope": "swarm",
        }
        if ipam := declared.get("ipam"):
            pools = [{"Subnet": part["subnet"]} for part in ipam.get("config") or () if part.get("subnet")]
            body["IPAM"] = {"Driver": ipam.get("driver") or "default", "Config": pools}
        made.append(body)
    return made, external


def files(stack: str, kind: str, declared: Mapping[str, Dict]) -> list[Dict]:
    """Bodies of the secrets or configs that are not external. Raises: Failure when a file cannot be read."""
    bodies = []
    for key, item in declared.items():
        if item.get("external"):
            continue
        body: Dict = {"Name": real_name(stack, key, item), "Labels": labelled(stack, item.get("labels"))}
        if item.get("driver"):
            body["Driver"] = {"Name": item["driver"], "Options": item.get("driver_opts") or {}}
        else:
            body["Data"] = base64.b64encode(contents(kind, key, item)).decode()
        if item.get("template_driver"):
            body["Templating"] = {"Name": item["template_driver"]}
        bodies.append(body)
    return bodies


def contents(kind: str, key: str, item: Dict) -> bytes:
    if not item.get("file"):
        raise Failure(f"{kind} {key}: a {kind} needs a file, or has to be external")
    try:
        return Path(item["file"]).read_bytes()
    except OSError as error:
        raise Failure(f"open {item['file']}: {(error.strerror or str(error)).lower()}") from None
