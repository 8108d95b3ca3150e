"""What a network costs a start, and a published port the bytes that go through it."""

import contextlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from bench.engines import Engine
from bench.measure import engine_pids
from bench.rows import SLEEP, Row
from support.daemon import UnixConnection
from support.waiting import wait_for

STARTS = 31  # of each kind at least
PASSES, PASS_S = 12, 1
PORTS = 20
GOAL = "at least 0.97"
BARE = "the container's address"
HTTP_PORT, IPERF_PORT = 8000, 5201
# Answers each request with a few bytes and keeps connections: as little as Python can do, for the path to count.
SERVER = """
import select, socket
listener = socket.create_server(("0.0.0.0", 8000), backlog=1024)
poll, clients = select.epoll(), {}
poll.register(listener, select.EPOLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            client, _ = listener.accept()
            clients[client.fileno()] = client
            poll.register(client, select.EPOLLIN)
            continue
        try:
            asked = clients[fd].recv(65536).count(b"\\r\\n\\r\\n")
            clients[fd].sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok" * asked)
        except ConnectionError:
            asked = 0
        if not asked:
            clients.pop(fd).close()
"""


# --- starts -----------------------------------------------------------------------------------------------------


def latency(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """POST /containers/x/start, each in turn with and without a network."""
    print("… start with and without a network", flush=True)
    networks = ("none", "bridge", "bench")
    taken: dict[str, dict[str, list[float]]] = {name: {engine.name: [] for engine in engines} for name in networks}
    for engine in engines:
        engine.cli("network", "create", "bench")
    for turn in range(max(rounds, STARTS) + 1):
        for network in networks:
            for engine in engines:
                seconds = time_start(engine, network)
                if turn:
                    taken[network][engine.name].append(seconds * 1000)
    for engine in engines:
        engine.cli("network", "rm", "bench")
    middle = {name: {one: statistics.median(times) for one, times in by.items()} for name, by in taken.items()}

    def added(network: str) -> dict[str, float]:
        return {engine.name: middle[network][engine.name] - middle["none"][engine.name] for engine in engines}

    return [
        Row("start of a container with --network none, p50", "ms", middle["none"]),
        Row("added by the default bridge, p50", "ms", added("bridge"), "8 ms"),
        Row("added by a user-defined network, p50", "ms", added("bench"), "8 ms"),
    ]


def time_start(engine: Engine, network: str) -> float:
    container = engine.cli("create", "--network", network, *SLEEP).line
    path = Path(engine.cli.environment["DOCKER_HOST"].removeprefix("unix://"))
    with contextlib.closing(UnixConnection(path, 60)) as connection:
        connection.request("GET", "/_ping")
        connection.getresponse().read()
        began = perf_counter()
        connection.request("POST", f"/containers/{container}/start")
        answer = connection.getresponse()
        answer.read()
        taken = perf_counter() - began
    assert answer.status == http.client.NO_CONTENT, answer.status
    engine.cli("rm", "-f", container)
    return taken


# --- bytes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A container with two published ports, and where to find them."""

    engine: Engine
    pid: int
    bare: str
    gateway: str
    published: dict[int, int]

    def near(self, *words: str) -> list[str]:
        """A command where the container is, on the last core."""
        return [*pinned(-1), "nsenter", "-t", str(self.pid), "-n", *words]

    def outside(self, *words: str) -> list[str]:
        """A command where the engine is, and ports are published; on the first core."""
        return [*pinned(0), "nsenter", "-t", str(self.engine.daemon_pid), "-n", *words]

    def routes(self, port: int) -> dict[str, tuple[str, int]]:
        return {
            BARE: (self.bare, port),
            "127.0.0.1": ("127.0.0.1", self.published[port]),
            "the host's address": (self.gateway, self.published[port]),
        }


def pinned(position: int) -> list[str]:
    """Client and server each on a core of its own: where the scheduler puts them changes more than the path does."""
    return ["taskset", "--cpu-list", str(sorted(os.sched_getaffinity(0))[position])]


Measure = Callable[[Target, str, int], float]


def throughput(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """The published port at two addresses, and the container's own address; passes in turn."""
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(open_target(engine)) for engine in engines]
        if shutil.which("wrk"):
            rows += compare("wrk", "thousand requests/s", targets, HTTP_PORT, run_wrk)
        else:
            rows.append(Row("requests/s through a published port: wrk is not installed", "", {}))
        if shutil.which("iperf3"):
            rows += compare("iperf3", "Gbit/s", targets, IPERF_PORT, run_iperf3)
        else:
            rows.append(Row("bytes/s through a published port: iperf3 is not installed", "", {}))
    return rows


def compare(tool: str, unit: str, targets: Sequence[Target], port: int, measure: Measure) -> list[Row]:
    print(f"… {tool} through published ports and past them", flush=True)
    got: dict[str, dict[str, list[float]]] = {
        target.engine.name: {way: [] for way in target.routes(port)} for target in targets
    }
    for turn in range(PASSES):
        for target in targets:
            routes = list(target.routes(port).items())
            for way, (address, number) in routes if turn % 2 else reversed(routes):
                got[target.engine.name][way].append(measure(target, address, number))
    rows = []
    for way in targets[0].routes(port):
        rates = {name: statistics.median(by[way]) for name, by in got.items()}
        rows.append(Row(f"{tool} to {way}", unit, rates))
        if way != BARE:
            rows.append(
                Row(f"{tool}: {way} ÷ {BARE}", "", {n: share(by[way], by[BARE]) for n, by in got.items()}, GOAL)
            )
    return rows


def share(published: Sequence[float], bare: Sequence[float]) -> float:
    """Of neighbouring passes, so that a busy minute hits both."""
    return statistics.median(one / other for one, other in zip(published, bare, strict=True))


def run_wrk(target: Target, address: str, port: int) -> float:
    words = ["wrk", "-t1", "-c16", f"-d{PASS_S}s", f"http://{address}:{port}/"]
    done = subprocess.run(target.outside(*words), capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("Requests/sec"))
    return float(line.split()[1]) / 1000


def run_iperf3(target: Target, address: str, port: int) -> float:
    words = ["iperf3", "--json", f"--time={PASS_S}", "-c", address, "-p", str(port)]
    done = subprocess.run(target.outside(*words), capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextlib.contextmanager
def open_target(engine: Engine) -> Iterator[Target]:
    """Servers run from the host's files, but in the container's network: the path is the same, any image will do."""
    publish = [f"--publish={port}" for port in (HTTP_PORT, IPERF_PORT)]
    container = engine.cli("run", "-d", *publish, *SLEEP).line
    facts = json.loads(engine.cli("inspect", container).out)[0]
    settings = facts["NetworkSettings"]
    ports = {port: int(settings["Ports"][f"{port}/tcp"][0]["HostPort"]) for port in (HTTP_PORT, IPERF_PORT)}
    bridge = settings["Networks"]["bridge"]
    target = Target(engine, facts["State"]["Pid"], bridge["IPAddress"], bridge["Gateway"], ports)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    servers = [subprocess.Popen(target.near(sys.executable, "-c", SERVER), **quiet)]
    if shutil.which("iperf3"):
        servers.append(subprocess.Popen(target.near("iperf3", "-s", "-p", str(IPERF_PORT)), **quiet))
    try:
        for port in ports if len(servers) == 2 else (HTTP_PORT,):
            wait_for(lambda number=port: listens(target, number), what="a server in the container")  # type: ignore[misc]
        yield target
    finally:
        for server in servers:
            server.kill()
            server.wait()
        engine.cli("rm", "-f", container)


def listens(target: Target, port: int) -> bool:
    """Whether /proc of the container's network shows a listener; asking it by a connection would end an iperf3."""
    lines = Path(f"/proc/{target.pid}/net/tcp").read_text() + Path(f"/proc/{target.pid}/net/tcp6").read_text()
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        for line in lines.splitlines()[1:]
        if ":" in line.split()[1]
    )


# --- processes --------------------------------------------------------------------------------------------------


def extra_processes(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """Of a container with many ports, less those of one without."""
    print(f"… processes of {PORTS} published ports", flush=True)
    values = {}
    for engine in engines:
        counts = []
        for options in ((), tuple(f"--publish={port}" for port in range(1, PORTS + 1))):
            container = engine.cli("run", "-d", *options, *SLEEP).line
            counts.append(len({*engine_pids(engine), *descendants(engine.daemon_pid)}))
            engine.cli("rm", "-f", container)
        values[engine.name] = (counts[1] - counts[0]) / PORTS
    return [Row("processes per published port", "", values, "0")]


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)
