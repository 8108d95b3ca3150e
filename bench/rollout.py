"""Updates of services: requests lost on the way, what the published port costs, and how long many tasks take."""

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

from bench.engines import Engine
from bench.ingress import weigh_port
from bench.rows import Row
from support import images
from support.cli import Cli
from support.load import Load, Result
from support.waiting import wait_for

RATE = 1200
TASKS = 20
QUICK = ("-d", "--no-resolve-image", "--update-monitor=100ms")


def roll_out(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """Requests only through Bennu: dockerd's mesh needs IPVS, which many kernels of test machines lack."""
    ours = engines[0]
    images.import_base(ours.cli, "python")
    images.build_example(ours.cli, "webserver", "webserver:v1")
    rows: list[Row] = []
    with swarm_of_one(ours.cli):
        rows += lose_requests(ours)
        rows += weigh_port(ours)
    return [*rows, time_update(engines, max(3, rounds // 5))]


@contextmanager
def swarm_of_one(cli: Cli) -> Iterator[None]:
    cli("swarm", "init", "--advertise-addr=127.0.0.1")
    try:
        yield
    finally:
        cli("swarm", "leave", "--force")


def lose_requests(engine: Engine) -> list[Row]:
    print(f"… an update under {RATE} requests a second", flush=True)
    cli = engine.cli
    with serving(cli, 2, 8100):
        fresh = update_under_load(cli, "2", keep_alive=False)
        kept = update_under_load(cli, "3", keep_alive=True)
    name = engine.name
    return [
        Row("update of 2 tasks under load: requests a second over new connections", "/s", {name: fresh.rate}),
        Row("… of which failed", "", {name: float(fresh.failed)}, "0"),
        Row("update of 2 tasks under load: requests a second over kept connections", "/s", {name: kept.rate}),
        Row("… of which failed", "", {name: float(kept.failed)}, "0"),
    ]


def update_under_load(cli: Cli, version: str, *, keep_alive: bool) -> Result:
    with Load("127.0.0.1", 8100, rate=RATE, workers=32, keep_alive=keep_alive) as load:
        time.sleep(2)
        cli("service", "update", *QUICK, f"--env-add=VERSION={version}", "bench")
        await_update(cli)
        time.sleep(2)
    return load.result


def time_update(engines: Sequence[Engine], rounds: int) -> Row:
    """From the request to the last of the new tasks running, parallelism 5, no delay; the engines in turn."""
    print(f"… an update of {TASKS} tasks", flush=True)
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(swarm_of_one(engine.cli))
            stack.enter_context(sleeping(engine.cli))
        for number in range(1, rounds + 1):
            for engine in engines:
                taken[engine.name].append(update_all(engine.cli, f"N={number}"))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return Row(f"update of {TASKS} tasks, 5 at a time", "s", medians, "0.5 of dockerd's")


@contextmanager
def sleeping(cli: Cli) -> Iterator[None]:
    """A service that does nothing, on the host's network: what is timed is the engine's own work."""
    options = (*QUICK, "--name=bench", f"--replicas={TASKS}", "--update-parallelism=5", "--stop-signal=SIGKILL")
    cli("service", "create", *options, "--network=host", "busybox", "sleep", "1000000")
    try:
        wait_for(lambda: len(running(cli)) == TASKS, timeout_s=60, what="the service")
        yield
    finally:
        remove_service(cli)


def update_all(cli: Cli, env: str) -> float:
    """Seconds; the end is when the engine itself says that the last new task began to run."""
    began = time.time()
    cli("service", "update", "-d", "--no-resolve-image", f"--env-add={env}", "bench")
    wait_for(lambda: len(running(cli, env)) == TASKS, timeout_s=120, what="the update")
    ended = max(datetime.fromisoformat(task["Status"]["Timestamp"]).timestamp() for task in running(cli, env))
    await_update(cli)
    return ended - began


@contextmanager
def serving(cli: Cli, replicas: int, port: int) -> Iterator[None]:
    options = ("--name=bench", f"--replicas={replicas}", f"-p={port}:8000", "--env=VERSION=1")
    cli("service", "create", *QUICK, *options, "webserver:v1")
    try:
        wait_for(lambda: len(running(cli)) == replicas, timeout_s=30, what="the service")
        yield
    finally:
        remove_service(cli)


def remove_service(cli: Cli) -> None:
    cli("service", "rm", "bench")
    wait_for(lambda: not cli("ps", "-q").lines, timeout_s=60, what="the tasks to go")


def await_update(cli: Cli) -> None:
    def state() -> bool:
        found = json.loads(cli("service", "inspect", "bench").out)[0]
        return found.get("UpdateStatus", {}).get("State") == "completed"

    wait_for(state, timeout_s=120, what="the update to complete")


def running(cli: Cli, env: str = "") -> list[dict[str, Any]]:
    """Tasks that run and are to run, of the version with this environment."""
    ids = cli("service", "ps", "-q", "--filter=desired-state=running", "bench").lines
    tasks = json.loads(cli("inspect", "--type=task", *ids, ok=False).out or "[]") if ids else []
    return [
        task
        for task in tasks
        if task["Status"]["State"] == "running" and (not env or env in (task["Spec"]["ContainerSpec"].get("Env") or []))
    ]
