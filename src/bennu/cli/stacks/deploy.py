"""Bring the swarm to what a compose file says, one object after the other."""

from collections.abc import Sequence
from typing import Any, Final

from bennu.cli.client import Client, segment
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.output import complain, say
from bennu.cli.stacks.composefile import Compose
from bennu.cli.stacks.objects import HOST_NETWORKS, NAMESPACE, files, networks, scoped
from bennu.cli.stacks.service import IMAGE_LABEL, Ids, service_spec
from bennu.cli.values import encode_filters

Dict = dict[str, Any]
NOT_FOUND: Final = 404


def of_stack(client: Client, kind: str, stack: str) -> list[Dict]:
    """The stack's objects of one kind (`services`, `networks`, …)."""
    found: list[Dict] = client.json(
        "GET", f"/{kind}", query={"filters": encode_filters([f"label={NAMESPACE}={stack}"])}
    )
    return found


def find(client: Client, path: str) -> Dict | None:
    try:
        found: Dict = client.json("GET", path)
    except ApiFailure as failure:
        if failure.status == NOT_FOUND:
            return None
        raise
    return found


def deploy(client: Client, stack: str, compose: Compose, *, prune: bool) -> list[str]:
    """The ids of the services. Raises: Failure; what was done before stays done."""
    if not client.json("GET", "/info").get("Swarm", {}).get("ControlAvailable"):
        raise Failure(
            'this node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
            "swarm and try again"
        )
    if prune:
        wanted = {scoped(stack, name) for name in compose.services}
        remove(
            client, "service", [one for one in of_stack(client, "services", stack) if one["Spec"]["Name"] not in wanted]
        )
    make_networks(client, stack, compose)
    make_files(client, "secret", files(stack, "secret", compose.secrets))
    make_files(client, "config", files(stack, "config", compose.configs))
    ids = Ids(lambda name: file_id(client, "secret", name), lambda name: file_id(client, "config", name))
    specs = [service_spec(stack, name, compose, ids) for name in compose.services]
    there = {one["Spec"]["Name"]: one for one in of_stack(client, "services", stack)}
    return [make_service(client, spec, there.get(spec["Name"])) for spec in specs]


def make_networks(client: Client, stack: str, compose: Compose) -> None:
    bodies, external = networks(stack, compose)
    for name in external:
        if name in HOST_NETWORKS:
            continue
        found = find(client, f"/networks/{segment(name)}")
        if found is None:
            raise Failure(
                f'network "{name}" is declared as external, but could not be found. You need to create a swarm-scoped '
                "network before the stack is deployed"
            )
        if found["Scope"] != "swarm":
            raise Failure(
                f'network "{name}" is declared as external, but it is not in the right scope: "{found["Scope"]}" '
                'instead of "swarm"'
            )
    there = {network["Name"] for network in of_stack(client, "networks", stack)}
    for body in bodies:
        if body["Name"] not in there:
            say(f"Creating network {body['Name']}")
            _try(f"failed to create network {body['Name']}", client, "POST", "/networks/create", body)


def make_files(client: Client, kind: str, bodies: Sequence[Dict]) -> None:
    for body in bodies:
        name = body["Name"]
        found = find(client, f"/{kind}s/{segment(name)}")
        if found is None:
            say(f"Creating {kind} {name}")
            _try(f"failed to create {kind} {name}", client, "POST", f"/{kind}s/create", body)
        else:
            path = f"/{kind}s/{found['ID']}/update?version={found['Version']['Index']}"
            _try(f"failed to update {kind} {name}", client, "POST", path, body)


def file_id(client: Client, kind: str, name: str) -> str:
    found = find(client, f"/{kind}s/{segment(name)}")
    if found is None:
        raise Failure(f"{kind} not found: {name}")
    return str(found["ID"])


def make_service(client: Client, spec: Dict, there: Dict | None) -> str:
    name = spec["Name"]
    if there is None:
        say(f"Creating service {name}")
        return str(_try(f"failed to create service {name}", client, "POST", "/services/create", spec)["ID"])
    say(f"Updating service {name} (id: {there['ID']})")
    task, before = spec["TaskTemplate"], there["Spec"]["TaskTemplate"]
    # Neither a digest that was pinned to the same image, nor a forced update, is undone by deploying again.
    if there["Spec"]["Labels"].get(IMAGE_LABEL) == spec["Labels"][IMAGE_LABEL]:
        task["ContainerSpec"]["Image"] = before["ContainerSpec"]["Image"]
    task["ForceUpdate"] = before.get("ForceUpdate", 0)
    path = f"/services/{there['ID']}/update?version={there['Version']['Index']}"
    answer = _try(f"failed to update service {name}", client, "POST", path, spec)
    for warning in (answer or {}).get("Warnings") or ():
        complain(warning)
    return str(there["ID"])


def remove(client: Client, kind: str, items: Sequence[Dict]) -> bool:
    """Whether all of them went."""
    all_gone = True
    for name, identity in sorted(
        (item["Spec"]["Name"] if "Spec" in item else item["Name"], item.get("ID") or item["Id"]) for item in items
    ):
        say(f"Removing {kind} {name}")
        try:
            client.do("DELETE", f"/{kind}s/{identity}")
        except ApiFailure as failure:
            complain(f"Failed to remove {kind} {identity}: {failure}")
            all_gone = False
    return all_gone


def _try(what: str, client: Client, method: str, path: str, body: Dict) -> Any:
    try:
        return client.json(method, path, json_body=body)
    except ApiFailure as failure:
        raise Failure(f"{what}: {failure}") from None
