"""Services of many tasks: how soon all run, what a dead one costs, and what the daemon costs when all is quiet."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime

from bench.engines import Engine
from bench.measure import cpu_seconds
from bench.rollout import swarm_of_one
from bench.rows import SLEEP, Row
from support.cli import Cli
from support.waiting import wait_for

MANY, FEW, MOST = 50, 10, 60
IDLE_TASKS, IDLE_S = 100, 30
RESTART_DELAY_S = 1.0
FACTOR = "0.4 of dockerd's"


def serve(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """The engines in turn, so that a busy minute of the machine hits all alike; the best round of each counts."""
    few = max(1, rounds // 5)
    with ExitStack() as swarms:
        for engine in engines:
            swarms.enter_context(swarm_of_one(engine.cli))
        up, down = scale(engines, few)
        return [
            Row(f"service create --replicas {MANY} until all run", "s", create(engines, few), FACTOR),
            Row(f"service scale {FEW} → {MOST} until all run", "s", up, FACTOR),
            Row(f"service scale {MOST} → {FEW} until the others are gone", "s", down, FACTOR),
            Row("a killed task until its replacement runs, less the restart delay", "s", replace(engines, few), FACTOR),
            Row(f"daemon with {IDLE_TASKS} quiet tasks, of one core", "%", idle(engines), "1 %"),
        ]


def create(engines: Sequence[Engine], rounds: int) -> dict[str, float]:
    print(f"… services of {MANY} tasks", flush=True)
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for _ in range(rounds):
        for engine in engines:
            began = time.monotonic()
            with service(engine.cli, MANY):
                taken[engine.name].append(time.monotonic() - began)
    return {name: min(values) for name, values in taken.items()}


def scale(engines: Sequence[Engine], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    print("… scaling", flush=True)
    up: dict[str, list[float]] = {engine.name: [] for engine in engines}
    down: dict[str, list[float]] = {engine.name: [] for engine in engines}
    with services(engines, FEW):
        for _ in range(rounds):
            for engine in engines:
                began = time.monotonic()
                engine.cli("service", "scale", "-d", f"bench={MOST}")
                await_tasks(engine.cli, MOST)
                up[engine.name].append(time.monotonic() - began)
                began = time.monotonic()
                engine.cli("service", "scale", "-d", f"bench={FEW}")
                await_containers(engine.cli, FEW)
                down[engine.name].append(time.monotonic() - began)
    return {name: min(values) for name, values in up.items()}, {name: min(values) for name, values in down.items()}


def replace(engines: Sequence[Engine], rounds: int) -> dict[str, float]:
    """The median of several."""
    print("… killed tasks", flush=True)
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    with services(engines, FEW):
        for _ in range(5 * rounds):
            for engine in engines:
                taken[engine.name].append(replace_one(engine.cli))
    return {name: statistics.median(values) for name, values in taken.items()}


def replace_one(cli: Cli) -> float:
    """From SIGKILL to the instant that the engine puts on the replacement's `running`."""
    before = running(cli)
    pid = int(cli("inspect", "-f", "{{.State.Pid}}", cli("ps", "-q").lines[0]).line)
    killed_ns = time.time_ns()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(running(cli) - before) == 1, timeout_s=30, what="the replacement")
    (new,) = running(cli) - before
    stamp = cli("inspect", "--type=task", "-f", "{{json .Status.Timestamp}}", new).line
    return (read_ns(stamp) - killed_ns) / 1e9 - RESTART_DELAY_S


def idle(engines: Sequence[Engine]) -> dict[str, float]:
    """Percent of one core; the containers and the client are left out."""
    print(f"… {IDLE_TASKS} quiet tasks", flush=True)
    used: dict[str, float] = {}
    for engine in engines:
        with service(engine.cli, IDLE_TASKS):
            time.sleep(10)
            before = cpu_seconds([engine.daemon_pid])
            time.sleep(IDLE_S)
            used[engine.name] = (cpu_seconds([engine.daemon_pid]) - before) / IDLE_S * 100
    return used


@contextmanager
def services(engines: Sequence[Engine], replicas: int) -> Iterator[None]:
    with ExitStack() as each:
        for engine in engines:
            each.enter_context(service(engine.cli, replicas))
        yield


@contextmanager
def service(cli: Cli, replicas: int) -> Iterator[None]:
    """All tasks run at the beginning of the block and are gone after it."""
    image, *command = SLEEP[1:]
    options = ("--name=bench", f"--replicas={replicas}", f"--restart-delay={RESTART_DELAY_S}s", SLEEP[0])
    cli("service", "create", "-d", "--no-resolve-image", *options, image, *command)
    try:
        await_tasks(cli, replicas)
        yield
    finally:
        cli("service", "rm", "bench")
        await_containers(cli, 0)


def await_tasks(cli: Cli, count: int) -> None:
    shown = f"{count}/{count}"
    wait_for(
        lambda: cli("service", "ls", "--format={{.Replicas}}").lines == [shown], timeout_s=180, what=f"{count} tasks"
    )


def await_containers(cli: Cli, count: int) -> None:
    wait_for(lambda: len(cli("ps", "-aq").lines) == count, timeout_s=180, what=f"{count} containers to be left")


def running(cli: Cli) -> set[str]:
    """The ids of the tasks that run and are meant to."""
    form = "{{.ID}} {{.CurrentState}}"
    lines = cli("service", "ps", "--no-trunc", "--filter=desired-state=running", f"--format={form}", "bench").lines
    return {line.split()[0] for line in lines if line.split()[1] == "Running"}


def read_ns(stamp: str) -> int:
    """Nanoseconds since the epoch of a quoted RFC 3339 instant in UTC."""
    seconds, _, fraction = stamp.strip('"Z').partition(".")
    whole = int(datetime.fromisoformat(f"{seconds}+00:00").timestamp())
    return whole * 10**9 + int(fraction.ljust(9, "0"))


def run_cluster(services: int) -> dict[str, float]:
    """In a process of its own, for its memory."""
    argv = [
        sys.executable,
        "-m",
        "bennu.simulate",
        "--nodes=1000",
        f"--services={services}",
        "--replicas=1000",
        "--json",
    ]
    report: dict[str, float] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return report


def simulate(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """The shipped core on a virtual clock: what it costs to place many tasks and to replace one of them."""
    print("… 100,000 simulated tasks on 1,000 nodes", flush=True)
    name = engines[0].name
    few, many = run_cluster(1), run_cluster(100)
    return [
        Row("100,000 tasks on 1,000 nodes: decisions a second", "/s", {name: many["decisions"] / many["core_cpu_s"]}),
        Row("… memory of core and simulator", "MB", {name: many["peak_mb"]}),
        Row("… one failure beside 99 other services of 1,000 tasks, core", "ms", {name: many["one_failure_ms"]}),
        Row("… one failure beside no other service, core", "ms", {name: few["one_failure_ms"]}),
    ]
