"""swarm: this machine as the manager of services."""

import sys
from typing import Any, Final

from bennu.cli.client import Client
from bennu.cli.command import command, integer, several, switch, text
from bennu.cli.failure import Failure
from bennu.cli.output import complain, say
from bennu.cli.service_options import duration

ADDRESS: Final = "[::]:2377"
ADVERTISE: Final = text("--advertise-addr", "Advertised address (format: <ip|interface>[:port])", default="")
LISTEN: Final = text("--listen-addr", "Listen address (format: <ip|interface>[:port])", default=ADDRESS)
AVAILABILITY: Final = text("--availability", "Availability of the node: active, pause or drain", default="active")
# Flags of `init` and `update` alike, and where they go in the swarm's settings.
SETTINGS: Final = (
    (integer("--task-history-limit", "Task history retention limit"), "Orchestration", "TaskHistoryRetentionLimit"),
    (duration("--cert-expiry", "Validity period for node certificates"), "CAConfig", "NodeCertExpiry"),
    (duration("--dispatcher-heartbeat", "Dispatcher heartbeat period"), "Dispatcher", "HeartbeatPeriod"),
    (switch("--autolock", "Enable manager autolocking"), "EncryptionConfig", "AutoLockManagers"),
)
OPTIONS: Final = tuple(option for option, _, _ in SETTINGS)


def apply_settings(spec: dict[str, Any], values: dict[str, Any], given: set[str]) -> bool:
    """Whether any was given."""
    changed = False
    for option, section, name in SETTINGS:
        if option.key in given:
            spec.setdefault(section, {})[name] = values[option.key]
            changed = True
    return changed


@command(
    "",
    ADVERTISE,
    LISTEN,
    AVAILABILITY,
    several("--default-addr-pool", "Default address pool in CIDR format"),
    integer("--default-addr-pool-mask-length", "Default address pool subnet mask length", default=24),
    integer("--data-path-port", "Port number to use for data path traffic", default=0),
    switch("--force-new-cluster", "Force create a new cluster from current state"),
    *OPTIONS,
    most=0,
)
def init(client: Client, words: list[str], *, given: set[str], **values: Any) -> None:
    spec: dict[str, Any] = {}
    apply_settings(spec, values, given)
    body = {
        "AdvertiseAddr": values["advertise_addr"],
        "ListenAddr": values["listen_addr"],
        "ForceNewCluster": values["force_new_cluster"],
        "Availability": values["availability"],
        "DefaultAddrPool": values["default_addr_pool"],
        "SubnetSize": values["default_addr_pool_mask_length"],
        "DataPathPort": values["data_path_port"],
        "AutoLockManagers": values["autolock"],
        "Spec": spec,
    }
    node = client.json("POST", "/swarm/init", json_body=body)
    say(f"Swarm initialized: current node ({node}) is now a manager.\n")
    say_how_to_join(client, "worker", client.json("GET", "/swarm")["JoinTokens"]["Worker"])
    say("To add a manager to this swarm, run 'bennu swarm join-token manager' and follow the instructions.\n")


def say_how_to_join(client: Client, role: str, token: str) -> None:
    address = client.json("GET", "/info")["Swarm"]["RemoteManagers"][0]["Addr"]
    say(f"To add a {role} to this swarm, run the following command:\n")
    say(f"    bennu swarm join --token {token} {address}\n")


@command(
    "HOST:PORT",
    ADVERTISE,
    LISTEN,
    AVAILABILITY,
    text("--token", "Token for entry into the swarm", default=""),
    least=1,
    most=1,
)
def join(
    client: Client, words: list[str], *, advertise_addr: str, listen_addr: str, availability: str, token: str
) -> None:
    body = {
        "AdvertiseAddr": advertise_addr,
        "ListenAddr": listen_addr,
        "Availability": availability,
        "JoinToken": token,
        "RemoteAddrs": words,
    }
    client.do("POST", "/swarm/join", json_body=body)
    say("This node joined a swarm.")


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
    if rotate:
        change(client, {f"rotate{role}Token": True})
        if not quiet:
            say(f"Successfully rotated {words[0]} join token.\n")
    token = client.json("GET", "/swarm")["JoinTokens"][role]
    if quiet:
        say(token)
    else:
        say_how_to_join(client, words[0], token)


def change(client: Client, query: dict[str, Any], spec: dict[str, Any] | None = None) -> None:
    swarm = client.json("GET", "/swarm")
    version = {"version": swarm["Version"]["Index"]}
    client.do("POST", "/swarm/update", query=version | query, json_body=spec or swarm["Spec"])


@command("", *OPTIONS, most=0)
def update(client: Client, words: list[str], *, given: set[str], **values: Any) -> None:
    spec = client.json("GET", "/swarm")["Spec"]
    if not apply_settings(spec, values, given):
        raise Failure("no setting was named; see 'bennu swarm update --help'")
    change(client, {}, spec)
    say("Swarm updated.")


@command("", switch("-q, --quiet", "Only display token"), switch("--rotate", "Rotate unlock key"), most=0)
def unlock_key(client: Client, words: list[str], *, quiet: bool, rotate: bool) -> None:
    if rotate:
        if not client.json("GET", "/swarm")["Spec"]["EncryptionConfig"]["AutoLockManagers"]:
            raise Failure("cannot rotate because autolock is not turned on")
        change(client, {"rotateManagerUnlockKey": True})
    key = client.json("GET", "/swarm/unlockkey")["UnlockKey"]
    if not key:
        raise Failure("no unlock key is set")
    say(key if quiet else f"To unlock a swarm manager after it restarts, run 'bennu swarm unlock' with\n\n    {key}\n")


@command("", most=0)
def unlock(client: Client, words: list[str]) -> None:
    client.do("POST", "/swarm/unlock", json_body={"UnlockKey": sys.stdin.readline().strip()})


@command("", switch("--rotate", "Rotate the swarm CA"), switch("-d, --detach", "Exit immediately"), most=0)
def ca(client: Client, words: list[str], *, rotate: bool, detach: bool) -> None:
    swarm = client.json("GET", "/swarm")
    if rotate:
        spec = swarm["Spec"]
        spec["CAConfig"]["ForceRotate"] = spec["CAConfig"].get("ForceRotate", 0) + 1
        change(client, {}, spec)
    root = (swarm.get("TLSInfo") or {}).get("TrustRoot")
    if not root:
        complain("No CA information available")
    else:
        say(root)
