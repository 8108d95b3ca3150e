"""node: the machines of the swarm."""

from typing import Any, Final

from bennu.cli.client import Client, segment
from bennu.cli.command import command, several, switch, text
from bennu.cli.commands.life import for_each
from bennu.cli.commands.tasks import natural, print_tasks
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import say
from bennu.cli.values import as_mapping, encode_filters, parse_filter

FILTER: Final = several("-f, --filter", "Filter output based on conditions provided", kind="filter", parse=parse_filter)
LISTING: Final = Listing(
    headers={"ManagerStatus": "MANAGER STATUS", "EngineVersion": "ENGINE VERSION"},
    columns="ID Hostname Status Availability ManagerStatus EngineVersion",
    quiet="ID",
)


def describe(node: dict[str, Any], now: float) -> dict[str, Any]:
    manager = node.get("ManagerStatus") or {}
    return {
        "ID": node["Shown"],
        "Hostname": node["Description"]["Hostname"],
        "Status": node["Status"]["State"].title(),
        "Availability": node["Spec"]["Availability"].title(),
        "ManagerStatus": "Leader" if manager.get("Leader") else manager.get("Reachability", "").title(),
        "EngineVersion": node["Description"]["Engine"]["EngineVersion"],
    }


@command(
    "", FILTER, text("--format", "Format output using a Go template"), switch("-q, --quiet", "Only display IDs"), most=0
)
def ls(client: Client, words: list[str], *, filter: list[str], format: str | None, quiet: bool) -> None:
    found = client.json("GET", "/nodes", query={"filters": encode_filters(filter)})
    own = client.json("GET", "/info")["Swarm"]["NodeID"]
    for node in found:
        node["Shown"] = f"{node['ID']} *" if node["ID"] == own and not quiet and format is None else node["ID"]
    print_list(LISTING, sorted(found, key=lambda one: natural(one["Description"]["Hostname"])), describe, format, quiet)


@command(
    "[NODE...]",
    FILTER,
    switch("--no-trunc", "Do not truncate output"),
    switch("-q, --quiet", "Only display task IDs"),
    text("--format", "Format output using a Go template"),
)
def ps(client: Client, words: list[str], *, filter: list[str], no_trunc: bool, quiet: bool, format: str | None) -> None:
    """Of this node, unless others are named."""
    names = ["self" if word == "self" else word for word in words] or ["self"]
    own = client.json("GET", "/info")["Swarm"]["NodeID"]
    wanted = [*filter, *(f"node={own if name == 'self' else name}" for name in names)]
    print_tasks(client, wanted, full=no_trunc, quiet=quiet, form=format)


@command(
    "NODE",
    text("--availability", "active, pause or drain"),
    several("--label-add", "Add or update a node label (key=value)"),
    several("--label-rm", "Remove a node label if exists"),
    text("--role", "worker or manager"),
    least=1,
    most=1,
)
def update(
    client: Client,
    words: list[str],
    *,
    availability: str | None,
    label_add: list[str],
    label_rm: list[str],
    role: str | None,
) -> None:
    node = client.json("GET", f"/nodes/{segment(words[0])}")
    spec = node["Spec"]
    labels = {name: value for name, value in (spec.get("Labels") or {}).items() if name not in label_rm}
    spec["Labels"] = labels | as_mapping(label_add)
    spec["Availability"] = availability or spec["Availability"]
    spec["Role"] = role or spec["Role"]
    client.do("POST", f"/nodes/{node['ID']}/update", query={"version": node["Version"]["Index"]}, json_body=spec)
    say(words[0])


@command("NODE [NODE...]", switch("-f, --force", "Force remove a node from the swarm"), least=1)
def rm(client: Client, words: list[str], *, force: bool) -> None:
    def remove(name: str) -> str:
        client.do("DELETE", f"/nodes/{segment(name)}", query={"force": force})
        return name

    for_each(words, remove)


def _set_role(role: str, words: list[str], client: Client, already: str, done: str) -> None:
    def one(name: str) -> str:
        node = client.json("GET", f"/nodes/{segment(name)}")
        if node["Spec"]["Role"] == role:
            say(already.format(node["ID"]))
            return ""
        spec = node["Spec"] | {"Role": role}
        client.do("POST", f"/nodes/{node['ID']}/update", query={"version": node["Version"]["Index"]}, json_body=spec)
        return done.format(name)

    for_each(words, one)


@command("NODE [NODE...]", least=1)
def promote(client: Client, words: list[str]) -> None:
    _set_role("manager", words, client, "Node {} is already a manager.", "Node {} promoted to a manager in the swarm.")


@command("NODE [NODE...]", least=1)
def demote(client: Client, words: list[str]) -> None:
    _set_role("worker", words, client, "Node {} is already a worker.", "Manager {} demoted in the swarm.")
