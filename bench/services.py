"""Services of many tasks: how soon all run, what a dead one costs, and what the daemon costs when all is quiet."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    columns: dict[str, dict[str, float]] = {engine.name: {} for engine in engines}
    few = max(1, rounds // 5)
    for engine in engines:
        print(f"… services of {engine.name}", flush=True)
        with swarm_of_one(engine.cli):
            columns[engine.name] = {
                "create": min(create(engine.cli) for _ in range(few)),
                **scale(engine.cli, few),
                "replace": sorted(replace_one(engine.cli, 2 * few))[few],
                "idle": idle(engine),
            }
    words = {
        "create": (f"service create --replicas {MANY} until all run", "s", FACTOR),
        "up": (f"service scale {FEW} → {MOST} until all run", "s", FACTOR),
        "down": (f"service scale {MOST} → {FEW} until the others are gone", "s", FACTOR),
        "replace": ("a killed task until its replacement runs, less the restart delay", "s", FACTOR),
        "idle": (f"daemon with {IDLE_TASKS} quiet tasks, of one core", "%", "1 %"),
    }
    return [
        Row(text, unit, {name: column[key] for name, column in columns.items()}, goal)
        for key, (text, unit, goal) in words.items()
    ]


def create(cli: Cli) -> float:
    began = time.monotonic()
    with service(cli, MANY):
        return time.monotonic() - began


def scale(cli: Cli, rounds: int) -> dict[str, float]:
    up, down = [], []
    with service(cli, FEW):
        for _ in range(rounds):
            began = time.monotonic()
            cli("service", "scale", "-d", f"bench={MOST}")
            await_tasks(cli, MOST)
            up.append(time.monotonic() - began)
            began = time.monotonic()
            cli("service", "scale", "-d", f"bench={FEW}")
            await_containers(cli, FEW)
            down.append(time.monotonic() - began)
    return {"up": min(up), "down": min(down)}


def replace_one(cli: Cli, rounds: int) -> list[float]:
    """From SIGKILL to the instant that the engine puts on the replacement's `running`."""
    taken = []
    with service(cli, FEW):
        for _ in range(rounds):
            before = running(cli)
            pid = int(cli("inspect", "-f", "{{.State.Pid}}", cli("ps", "-q").lines[0]).line)
            killed_ns = time.time_ns()
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda before=before: len(running(cli) - before) == 1, timeout_s=30, what="the replacement")
            (new,) = running(cli) - before
            stamp = cli("inspect", "--type=task", "-f", "{{json .Status.Timestamp}}", new).line
            taken.append((read_ns(stamp) - killed_ns) / 1e9 - RESTART_DELAY_S)
    return taken


def idle(engine: Engine) -> float:
    """Percent of one core, client and containers left out."""
    with service(engine.cli, IDLE_TASKS):
        time.sleep(10)
        before = cpu_seconds([engine.daemon_pid])
        time.sleep(IDLE_S)
        return (cpu_seconds([engine.daemon_pid]) - before) / IDLE_S * 100


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
