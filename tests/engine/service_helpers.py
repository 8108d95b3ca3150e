"""What tests of services on networks share: a server, a caller, and questions about addresses, names and rules."""

import json
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support import traces
from support.swarm import SwarmNode
from support.waiting import wait_for

# Answers every connection with its host's name and its caller's address; so does port 8001 by UDP.
SERVER = """
import os, socket, socketserver, threading
name = os.environ["HOSTNAME"].encode()
class Tcp(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(name + b" " + self.client_address[0].encode())
        if self.request.recv(4) == b"wait":
            self.request.recv(1)
class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(name, self.client_address)
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128
    allow_reuse_address = True
threading.Thread(target=socketserver.UDPServer(("", 8001), Udp).serve_forever).start()
Server(("", 8000), Tcp).serve_forever()
"""
# Connects again and again until it is told to end, and says how often it failed and who answered.
CALLER = """
import collections, json, socket, sys, time
host, port, seconds, wanted = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int([*sys.argv, 0][4])
told, end = collections.Counter(), time.monotonic() + seconds
while time.monotonic() < end or len(told) < wanted and time.monotonic() < end + 20:
    try:
        with socket.create_connection((host, port), 5) as link:
            link.settimeout(5)
            told[link.recv(100).decode().split(" ")[0] or "nothing"] += 1
    except OSError as error:
        told["failed: " + str(error)] += 1
print(json.dumps(told))
"""
SERVE = ("python", "python3", "-c", SERVER)
QUICK = ("--stop-grace-period=1s", "--restart-delay=100ms", "--update-monitor=100ms")


def networks(node: SwarmNode, name: str = "") -> list[str]:
    found = node.docker("network", "ls", "--format={{.Name}}", "--filter=scope=swarm").lines
    return [one for one in found if not name or one == name]


def overlay(node: SwarmNode, name: str, *options: str) -> str:
    return node.docker("network", "create", "-d", "overlay", "--attachable", *options, name).line


def inspect(node: SwarmNode, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.docker("service", "inspect", service).out)[0]
    return found


def vips(node: SwarmNode, service: str) -> dict[str, str]:
    """Its virtual addresses, by the name of the network."""
    by_id = {one["Id"]: one["Name"] for one in node.ask("/networks")}
    found = inspect(node, service)["Endpoint"].get("VirtualIPs", [])
    return {by_id[one["NetworkID"]]: one["Addr"].partition("/")[0] for one in found}


def addresses(task: dict[str, Any]) -> dict[str, str]:
    """Of a task, by the name of the network."""
    return {
        one["Network"]["Spec"]["Name"]: one["Addresses"][0].partition("/")[0] for one in task["NetworksAttachments"]
    }


def client(node: SwarmNode, network: str, image: str = "busybox") -> str:
    return node.docker("run", "-d", "--rm", "--network", network, "--stop-timeout=0", image, "sleep", "1000").line


def lookup(node: SwarmNode, container: str, name: str) -> list[str]:
    """What a container is told, sorted."""
    told = node.docker("exec", container, "nslookup", "-type=a", f"{name}.", ok=False).out
    return sorted(re.findall(r"^Address: ([0-9.]+)$", told, re.MULTILINE))


def call(address: str, port: int, *, host: str = "") -> str:
    """Who answers on the host's side; raises OSError."""
    with socket.create_connection((address, port), 5, (host, 0) if host else None) as link:
        link.settimeout(5)
        return link.recv(100).decode()


def calls_from(
    node: SwarmNode, container: str, address: str, port: int, seconds: float = 0.5, wanted: int = 0
) -> Counter[str]:
    """Who answers how often, from inside of a container; for longer, until so many different ones have answered."""
    told = node.docker("exec", container, "python3", "-c", CALLER, address, str(port), str(seconds), str(wanted)).out
    return Counter(json.loads(told))


def assert_nothing_left(node: SwarmNode) -> None:
    """No chain and no address of a service that is gone."""
    bridges = [f"br-{one['Id'][:12]}" for one in node.ask("/networks")]

    def left() -> list[str]:
        found: list[str] = []
        for table in traces.tables(node.daemon):
            told = subprocess.run(["nft", "list", "table", *table.split()], capture_output=True, text=True, check=True)
            found += re.findall(r".*(?:goto|chain (?:vip|port)_).*", told.stdout)
        told = subprocess.run(["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True)
        return found + [line for line in told.stdout.splitlines() if "/32 " in line and line.split()[1] in bridges]

    wait_for(lambda: not left(), what="rules and addresses of services to be gone", describe=lambda: "\n".join(left()))


@contextmanager
def another_host(address: str) -> Iterator[list[str]]:
    """How to begin a command on a host at the other end of a wire; this end is `address`."""
    name = "bennu-another"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        script = f"""
            link add {name[:13]}0 type veth peer name eth0 netns {name}
            address add {address}/24 dev {name[:13]}0
            link set {name[:13]}0 up"""
        subprocess.run(["ip", "-batch", "-"], input=script, text=True, check=True)
        script = f"""
            address add {address.rpartition(".")[0]}.99/24 dev eth0
            link set eth0 up"""
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=script, text=True, check=True)
        yield ["ip", "netns", "exec", name]
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])
