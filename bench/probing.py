"""What health checks cost, whether they keep their schedule, and how soon an unhealthy container is back."""

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise

from bench.engines import Engine
from bench.events import recorded
from bench.measure import cpu_seconds, engine_pids
from bench.rows import Row

PROBED, WINDOW_S = 30, 35
SETTLE_S = 3
SAMPLES, GAPS, BETWEEN_LOOKS_S = 800, 4, 4.5  # the log holds five results, so a look shows four gaps
COMMAND = ("--health-cmd=true", "--health-interval=1s")
REQUEST = ("-l", "bennu.health.http=http://:8080/", "-l", "bennu.health.http.status=200-499", "--health-interval=1s")
SLEEPER = ("--stop-signal=SIGKILL", "busybox", "sleep", "1000000")
SERVER = ("--stop-signal=SIGKILL", "busybox", "httpd", "-f", "-p", "8080")
PROGRAM = ("busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000000 & wait; done")
POLICY_DELAY_MS = 100


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
    with running(engine, PROBED, options, command) as ids:
        began, before = time.monotonic(), cpu_seconds(engine_pids(engine))
        time.sleep(WINDOW_S)
        used = cpu_seconds(engine_pids(engine)) - before
        probes = sum((time.monotonic() - began) / period for period in map(period_of, probe_logs(engine, ids)))
    return used / probes * 1000


def lateness(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """How much later than one interval after the end of the last probe the next one begins, and how often they come.

    An engine whose probes take long is not late by this; it only makes fewer of them.
    """
    first = engines[0]
    fifty = {engine.name: schedule(engine, 50, COMMAND, SLEEPER) for engine in engines}
    hundred = {first.name: schedule(first, 100, COMMAND, SLEEPER)}
    many = {first.name: schedule(first, 500, REQUEST, SERVER)}
    rows = []
    for name, found in (("50 exec", fifty), ("100 exec", hundred), ("500 HTTP", many)):
        checks = f"{name} checks each second"
        rows.append(Row(f"{checks}: late by, p99", "ms", {engine: late for engine, (late, _) in found.items()}))
        rows.append(
            Row(f"{checks}: from probe to probe, mean", "s", {engine: mean for engine, (_, mean) in found.items()})
        )
    return rows


def schedule(engine: Engine, count: int, options: Sequence[str], command: Sequence[str]) -> tuple[float, float]:
    """p99 of the lateness in ms, and the mean period in s, of what inspect shows of every container.

    In as few looks as will do, for each look is work for the engine, too.
    """
    print(f"… schedule of {count} checks on {engine.name}", flush=True)
    late: dict[tuple[int, datetime], float] = {}
    periods: list[float] = []
    with running(engine, count, options, command) as ids:
        for _ in range(max(1, SAMPLES // (GAPS * count))):
            time.sleep(BETWEEN_LOOKS_S)
            for number, log in enumerate(probe_logs(engine, ids)):
                periods.append(period_of(log))
                for (_, ended), (began, _) in pairwise(log):
                    late[number, began] = (began - ended).total_seconds() - 1
    return statistics.quantiles(late.values(), n=100)[98] * 1000, statistics.mean(periods)


@contextmanager
def running(engine: Engine, count: int, options: Sequence[str], command: Sequence[str]) -> Iterator[list[str]]:
    """The ids of that many containers, all probed for a while already."""
    ids = [engine.cli("run", "-d", *options, *command).line for _ in range(count)]
    time.sleep(SETTLE_S)
    yield ids
    engine.cli("rm", "-f", *ids, timeout_s=600)


def probe_logs(engine: Engine, ids: Sequence[str]) -> list[list[tuple[datetime, datetime]]]:
    """Beginning and end of the last five probes of each container."""
    lines = engine.cli("inspect", "-f", "{{json .State.Health.Log}}", *ids, timeout_s=120).lines
    instant = datetime.fromisoformat
    return [[(instant(probe["Start"]), instant(probe["End"])) for probe in json.loads(line)] for line in lines]


def period_of(log: Sequence[tuple[datetime, datetime]]) -> float:
    """Seconds from one probe to the next."""
    return (log[-1][0] - log[0][0]).total_seconds() / (len(log) - 1)


def revival(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """From the third failure in a row to running again under `bennu.on-unhealthy=restart`, less the policy's delay."""
    engine = engines[0]
    print("… revival of the unhealthy", flush=True)
    options = ("--health-cmd=test ! -e /bad", "--health-interval=200ms", "-l", "bennu.on-unhealthy=restart")
    taken = []
    for number in range(max(3, rounds // 2)):
        name = f"ill{number}"
        engine.cli("run", "-d", "--name", name, *options, *PROGRAM)
        with recorded(engine) as events:
            began_ns = time.time_ns()
            engine.cli("exec", name, "touch", "/bad")
            ill = events.wait("health_status: unhealthy", name, began_ns)
            again = events.wait("start", name, ill.at_ns)
        taken.append((again.at_ns - ill.at_ns) / 1e6 - POLICY_DELAY_MS)
        engine.cli("rm", "-f", name)
    values = {"p50": statistics.median(taken), "worst": max(taken)}
    return [
        Row(f"third failed probe → running again, less {POLICY_DELAY_MS} ms, {word}", "ms", {engine.name: value}, "1 s")
        for word, value in values.items()
    ]
