"""What a network costs a start, and a published port the bytes that go through it."""

import contextlib
import http.client
import json
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
GOAL_BRIDGE = "at least 0.97"
HTTP_PORT, IPERF_PORT = 8000, 5201
# Answers each request with a few bytes and keeps connections: as little as Python can do, for the path to count.
SERVER = """
import asyncio
class Answer(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok" * data.count(b"\\r\\n\\r\\n"))
async def main():
    async with await asyncio.get_running_loop().create_server(Answer, "0.0.0.0", 8000) as server:
        await server.serve_forever()
asyncio.run(main())
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
    published: dict[int, int]

    def near(self, *words: str) -> list[str]:
        """A command where the container is."""
        return ["nsenter", "-t", str(self.pid), "-n", *words]

    def outside(self, *words: str) -> list[str]:
        """A command where the engine is, and ports are published."""
        return ["nsenter", "-t", str(self.engine.daemon_pid), "-n", *words]

    def routes(self, port: int) -> dict[str, tuple[str, int]]:
        return {"published": ("127.0.0.1", self.published[port]), "bare": (self.bare, port)}


Measure = Callable[[Target, str, int], float]


def throughput(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """localhost → published port → container, and the container's own address; passes in turn."""
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
    got: dict[str, dict[str, list[float]]] = {target.engine.name: {"published": [], "bare": []} for target in targets}
    for turn in range(PASSES):
        for target in targets:
            routes = list(target.routes(port).items())
            for kind, (address, number) in routes if turn % 2 else reversed(routes):
                got[target.engine.name][kind].append(measure(target, address, number))
    return [
        Row(
            f"{tool} to a published port", unit, {name: statistics.median(by["published"]) for name, by in got.items()}
        ),
        Row(
            f"{tool} to the container's address",
            unit,
            {name: statistics.median(by["bare"]) for name, by in got.items()},
        ),
        Row(f"{tool}: published ÷ container's address", "", {name: share(by) for name, by in got.items()}, GOAL_BRIDGE),
    ]


def share(by: dict[str, list[float]]) -> float:
    """Of neighbouring passes, so that a busy minute hits both."""
    return statistics.median(one / other for one, other in zip(by["published"], by["bare"], strict=True))


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
    target = Target(engine, facts["State"]["Pid"], settings["Networks"]["bridge"]["IPAddress"], ports)
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
