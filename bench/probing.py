"""What health checks cost, and whether they keep their schedule."""

import json
import statistics
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from bench.engines import Engine
from bench.events import recorded
from bench.measure import cpu_seconds, engine_pids
from bench.rows import Row

PROBED, PROBES = 30, 1000
COMMAND = ("--health-cmd=true", "--health-interval=1s")
REQUEST = ("-l", "bennu.health.http=http://:8080/", "-l", "bennu.health.http.status=200-499", "--health-interval=1s")
SLEEPER = ("--stop-signal=SIGKILL", "busybox", "sleep", "1000000")
SERVER = ("--stop-signal=SIGKILL", "busybox", "httpd", "-f", "-p", "8080")


def cost(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """CPU seconds per 1,000 probes of 30 containers probed each second; idle cost of the engine included."""
    commands = {engine.name: cpu_of(engine, COMMAND, SLEEPER) for engine in engines}
    first = engines[0]
    requests = {**commands, first.name: cpu_of(first, REQUEST, SERVER)}
    return [
        Row("1,000 exec probes: CPU of everything", "s", commands, "0.3 of dockerd's"),
        Row("1,000 HTTP probes (dockerd: exec probes): CPU of everything", "s", requests, "0.05 of dockerd's"),
    ]


def cpu_of(engine: Engine, options: Sequence[str], command: Sequence[str]) -> float:
    print(f"… {PROBED} containers with {options[0]} on {engine.name}", flush=True)
    names = [f"probed{number}" for number in range(PROBED)]
    for name in names:
        engine.cli("run", "-d", "--name", name, *options, *command)
    before = cpu_seconds(engine_pids(engine))
    time.sleep(PROBES / PROBED)
    used = cpu_seconds(engine_pids(engine)) - before
    engine.cli("rm", "-f", *names, timeout_s=300)
    return used


def lateness(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """How much later than one interval after the end of the last probe the next one begins."""
    first = engines[0]
    late = {engine.name: late_p99(engine, 50, COMMAND, SLEEPER) for engine in engines}
    more = {first.name: late_p99(first, 100, COMMAND, SLEEPER)}
    many = {first.name: late_p99(first, 500, REQUEST, SERVER)}
    return [
        Row("50 containers with an exec check each second: late by, p99", "ms", late),
        Row("100 containers with an exec check each second: late by, p99", "ms", more),
        Row("500 containers with an HTTP check each second: late by, p99", "ms", many),
    ]


def late_p99(engine: Engine, count: int, options: Sequence[str], command: Sequence[str]) -> float:
    """From the last five results of every container, as inspect shows them."""
    print(f"… schedule of {count} checks on {engine.name}", flush=True)
    ids = [engine.cli("run", "-d", *options, *command).line for _ in range(count)]
    time.sleep(8)
    logs = [json.loads(line) for line in engine.cli("inspect", "-f", "{{json .State.Health.Log}}", *ids).lines]
    engine.cli("rm", "-f", *ids, timeout_s=600)
    gaps = [
        (datetime.fromisoformat(later["Start"]) - datetime.fromisoformat(former["End"])).total_seconds() - 1
        for log in logs
        for former, later in pairwise(log)
    ]
    return statistics.quantiles(gaps, n=100)[98] * 1000


def revival(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """From the third failure in a row to running again under `bennu.on-unhealthy=restart`, less the policy's delay."""
    engine = engines[0]
    print("… revival of the unhealthy", flush=True)
    options = ("--health-cmd=test ! -e /bad", "--health-interval=200ms", "-l", "bennu.on-unhealthy=restart")
    taken = []
    for number in range(max(3, rounds // 2)):
        name = f"ill{number}"
        engine.cli("run", "-d", "--name", name, *options, *SLEEPER)
        with recorded(engine) as events:
            began_ns = time.time_ns()
            engine.cli("exec", name, "touch", "/bad")
            ill = events.wait("health_status: unhealthy", name, began_ns)
            again = events.wait("start", name, ill.at_ns)
        taken.append((again.at_ns - ill.at_ns) / 1e6 - 100)
        engine.cli("rm", "-f", name)
    return [
        Row("third failed probe → running again, less 100 ms", "ms", {engine.name: statistics.median(taken)}, "1 s")
    ]
