"""What the published port of a service costs: requests through it, and straight to the address of its only task.

Client and server have a core each, ways take turns, and a way is compared with its neighbour in time. Requests are
counted against the processor time that both ends spent on them: that is what a path costs, also while others use the
machine. Rates by the clock stand beside it. Before each pass the kernel forgets all connections: it remembers closed
ones for some seconds, and a client who comes to the task by one way with the address and port that another has just
used makes it search for another port, which would count against whoever comes second.
"""

import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.engines import Engine
from bench.network import BARE, HTTP_PORT, Target, listens, share
from bench.rows import SLEEP, Row
from support.waiting import wait_for

PUBLISHED = 8100
PASSES, PASS_S = 12, 1
GOAL = "at least 0.95"
KINDS = {"kept": (), "new": ("-H", "Connection: close")}
# Lets its clients close, and forgets a connection at once: one that is remembered for a minute would refuse a client
# that comes by another way from the same address and port.
SERVER = f"""
import select, socket, struct
answers = {{close: b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n" + close + b"\\r\\nok"
           for close in (b"", b"Connection: close\\r\\n")}}
listener = socket.create_server(("0.0.0.0", {HTTP_PORT}), backlog=1024)
poll, clients = select.epoll(), {{}}
poll.register(listener, select.EPOLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            client, _ = listener.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            clients[client.fileno()] = client
            poll.register(client, select.EPOLLIN)
            continue
        try:
            said = clients[fd].recv(65536)
            asked = said.count(b"\\r\\n\\r\\n")
            clients[fd].sendall(answers[b"Connection: close\\r\\n" if b"close" in said else b""] * asked)
        except ConnectionError:
            asked = 0
        if not asked:
            clients.pop(fd).close()
"""

FORGET = """
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket
with NFCTSocket() as conntrack:
    conntrack.flush()
"""


@dataclass(slots=True)
class Way:
    """Requests a second, and a second of processor time, in each pass."""

    by_clock: list[float] = field(default_factory=list)
    by_processor: list[float] = field(default_factory=list)


def weigh_port(engine: Engine) -> list[Row]:
    """The engine is in a swarm."""
    if shutil.which("wrk") is None:
        print("no wrk: the cost of a service's port is not measured")
        return []
    print("… the published port of a service", flush=True)
    with served_task(engine) as (target, server):
        return [row for kind, headers in KINDS.items() for row in compare(target, server, kind, headers)]


def compare(target: Target, server: int, kind: str, headers: Sequence[str]) -> list[Row]:
    ways = {way: Way() for way in target.routes(HTTP_PORT)}
    for turn in range(PASSES):
        routes = list(target.routes(HTTP_PORT).items())
        for way, (address, port) in routes if turn % 2 else reversed(routes):
            clock, processor = run_wrk(target, server, f"http://{address}:{port}/", headers)
            ways[way].by_clock.append(clock)
            ways[way].by_processor.append(processor)
    name, bare = target.engine.name, ways[BARE]
    rows = []
    for way, got in ways.items():
        place = "the task's address" if way == BARE else f"a service's port at {way}"
        rows.append(Row(f"wrk to {place}, {kind} connections", "/s", {name: statistics.median(got.by_clock)}))
        if way != BARE:
            part = share(got.by_processor, bare.by_processor)
            rows.append(Row("… requests for the same processor time ÷ the task's address", "", {name: part}, GOAL))
    return rows


def run_wrk(target: Target, server: int, url: str, headers: Sequence[str]) -> tuple[float, float]:
    """Requests a second by the clock, and by the time that client and server computed."""
    subprocess.run(target.outside(sys.executable, "-c", FORGET), check=True)
    before = computed_s(server)
    done = subprocess.run(
        target.outside("wrk", "-t1", "-c16", f"-d{PASS_S}s", *headers, url), capture_output=True, text=True, check=True
    )
    spent = computed_s(server) - before
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    count = re.search(r"([0-9]+) requests in", done.stdout)
    assert rate is not None and count is not None, done.stdout
    return float(rate[1]), int(count[1]) / spent


def computed_s(server: int) -> float:
    """Of the server, and of all clients that have ended."""
    clients = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    return clients.ru_utime + clients.ru_stime + (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served_task(engine: Engine) -> Iterator[tuple[Target, int]]:
    """A service of one task, whose server is a process of the host in the task's network; and the server's pid."""
    cli = engine.cli
    cli("service", "create", "-d", "--name=bench", "--no-resolve-image", f"-p={PUBLISHED}:{HTTP_PORT}", *SLEEP)
    try:
        container = wait_for(lambda: cli("ps", "-q").lines, what="the task")[0]
        facts = json.loads(cli("inspect", container).out)[0]
        place = facts["NetworkSettings"]["Networks"]["ingress"]
        ports = {HTTP_PORT: PUBLISHED}
        target = Target(engine, facts["State"]["Pid"], place["IPAddress"], place["Gateway"], ports)
        with subprocess.Popen(target.near(sys.executable, "-c", SERVER)) as server:
            try:
                wait_for(lambda: listens(target, HTTP_PORT), what="the server")
                wait_for(lambda: "1/1" in cli("service", "ls").out, what="the task to serve")
                yield target, server.pid
            finally:
                server.kill()
    finally:
        cli("service", "rm", "bench")
        wait_for(lambda: not cli("ps", "-q").lines, timeout_s=60, what="the task to go")
