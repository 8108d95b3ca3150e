"""swarm: this machine as the manager of services."""

from bennu.cli.client import Client
from bennu.cli.command import command, integer, switch, text
from bennu.cli.failure import Failure
from bennu.cli.output import say

ADDRESS = "[::]:2377"


@command(
    "",
    text("--advertise-addr", "Advertised address (format: <ip|interface>[:port])", default=""),
    text("--listen-addr", "Listen address", default=ADDRESS),
    text("--availability", "active, pause or drain", default="active"),
    switch("--force-new-cluster", "Force create a new cluster from current state"),
    most=0,
)
def init(
    client: Client,
    words: list[str],
    *,
    advertise_addr: str,
    listen_addr: str,
    availability: str,
    force_new_cluster: bool,
) -> None:
    body = {
        "AdvertiseAddr": advertise_addr,
        "ListenAddr": listen_addr,
        "ForceNewCluster": force_new_cluster,
        "Availability": availability,
        "Spec": {},
    }
    node = client.json("POST", "/swarm/init", json_body=body)
    say(f"Swarm initialized: current node ({node}) is now a manager.")


@command("", switch("-f, --force", "Force this node to leave the swarm, ignoring warnings"), most=0)
def leave(client: Client, words: list[str], *, force: bool) -> None:
    client.do("POST", "/swarm/leave", query={"force": force})
    say("Node left the swarm.")


@command(
    "(worker|manager)",
    switch("-q, --quiet", "Only display token"),
    switch("--rotate", "Rotate join token"),
    least=1,
    most=1,
)
def join_token(client: Client, words: list[str], *, quiet: bool, rotate: bool) -> None:
    role = words[0].title()
    if role not in ("Worker", "Manager"):
        raise Failure(f"unknown role {words[0]}")
    swarm = client.json("GET", "/swarm")
    if rotate:
        query = {"version": swarm["Version"]["Index"], f"rotate{role}Token": True}
        client.do("POST", "/swarm/update", query=query, json_body=swarm["Spec"])
        swarm = client.json("GET", "/swarm")
    token = swarm["JoinTokens"][role]
    say(token if quiet else f"To add a {role.lower()} to this swarm, run: bennu swarm join --token {token}")


@command("", integer("--task-history-limit", "Task history retention limit"), most=0)
def update(client: Client, words: list[str], *, task_history_limit: int | None) -> None:
    swarm = client.json("GET", "/swarm")
    spec = swarm["Spec"]
    if task_history_limit is not None:
        spec.setdefault("Orchestration", {})["TaskHistoryRetentionLimit"] = task_history_limit
    client.do("POST", "/swarm/update", query={"version": swarm["Version"]["Index"]}, json_body=spec)
    say("Swarm updated.")
