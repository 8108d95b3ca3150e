"""How fast the dead come back, what a crowd of crash loops costs, and how long a daemon takes to find its feet."""

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence

from bench.engines import Engine
from bench.events import recorded
from bench.measure import cpu_of_everything
from bench.rows import SLEEP, Row

DEATHS = 50
LOOPS, LOOP_S = 100, 60
POLICY_DELAY_MS = 100.0


def come_back(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """SIGKILL from outside until the engine says it started again, less the policy's 100 ms."""
    print("… death to life", flush=True)
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for number in range(DEATHS):
        for engine in engines:
            taken[engine.name].append(one_death(engine, f"phoenix{number}"))
    for engine in engines:
        engine.cli("rm", "-f", *(f"phoenix{number}" for number in range(DEATHS)), timeout_s=300)
    fast = {name: statistics.median(values) for name, values in taken.items()}
    slow = {name: statistics.quantiles(values, n=100, method="inclusive")[98] for name, values in taken.items()}
    return [
        Row("SIGKILL → running again, less 100 ms, p50", "ms", fast, "0.25 of dockerd's"),
        Row("SIGKILL → running again, less 100 ms, p99", "ms", slow, "0.25 of dockerd's"),
    ]


def one_death(engine: Engine, name: str) -> float:
    engine.cli("run", "-d", "--restart=always", "--name", name, *SLEEP)
    pid = int(engine.cli("inspect", "-f", "{{.State.Pid}}", name).line)
    with recorded(engine) as events:
        killed_ns = time.time_ns()
        os.kill(pid, signal.SIGKILL)
        started = events.wait("start", name, killed_ns)
    return (started.at_ns - killed_ns) / 1e6 - POLICY_DELAY_MS


def crash_loops(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """CPU of the engine, and of all it starts, while many containers die at once again and again."""
    used: dict[str, float] = {}
    each: dict[str, float] = {}
    for engine in engines:
        print(f"… {LOOPS} crash loops on {engine.name}", flush=True)
        names = [f"loop{number}" for number in range(LOOPS)]
        for name in names:
            engine.cli("create", "--restart=always", "--name", name, "busybox", "false")
        before = cpu_of_everything(engine)
        with engine.cli.running("start", *names, stdout=subprocess.DEVNULL):
            time.sleep(LOOP_S)
            used[engine.name] = cpu_of_everything(engine) - before
            each[engine.name] = used[engine.name] / starts(engine, names) * 1000
        engine.cli("rm", "-f", *names, timeout_s=300)
    return [
        Row(f"{LOOPS} containers started into a crash loop: CPU of everything in {LOOP_S} s", "s", used),
        Row("… by start", "ms", each),
    ]


def starts(engine: Engine, names: Sequence[str]) -> int:
    """How often they were started so far."""
    lines = engine.cli("inspect", "-f", "{{.RestartCount}} {{.State.StartedAt}}", *names, timeout_s=300).lines
    return sum(int(count) + (not began.startswith("0001")) for count, began in map(str.split, lines))
