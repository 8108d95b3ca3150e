"""How long commands take, and how much memory an engine's processes hold."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.engines import Engine
from support.traces import command_lines

Step = Callable[[Engine], None]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, one a round."""

    seconds: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)


def alternate(engines: Sequence[Engine], step: Step, rounds: int) -> dict[str, Times]:
    """Run the step on each engine in turn, so that a busy minute of the machine hits all alike. One warm-up round."""
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for turn in range(rounds + 1):
        for engine in engines:
            started = time.perf_counter()
            step(engine)
            taken = time.perf_counter() - started
            if turn:
                seconds[engine.name].append(taken)
    return {name: Times(taken) for name, taken in seconds.items()}


def engine_pids(engine: Engine) -> list[int]:
    """The daemon and every helper of it; not what runs inside of containers."""
    marked = [pid for pid, line in command_lines() if any(mark in line for mark in engine.marks)]
    return sorted({*marked, engine.daemon_pid})


def helper_pids(engine: Engine, before: Sequence[int]) -> list[int]:
    """Helpers that came up since."""
    return [pid for pid in engine_pids(engine) if pid not in before]


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU that these processes, and the children they have reaped, have used so far."""
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(int(field) for field in stat[stat.rindex(")") + 2 :].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_of_everything(engine: Engine) -> float:
    """CPU seconds of the engine's processes, also of those that have come and gone; containers do not count."""
    return sum(map(_cpu_of_group, engine.groups))


def _cpu_of_group(group: Path) -> float:
    usage = group / "cpuacct.usage"
    if usage.exists():
        return int(usage.read_text()) / 1e9
    stat = group / "cpu.stat"
    return int(stat.read_text().split()[1]) / 1e6 if stat.exists() else 0.0


def pss(pids: Sequence[int]) -> int:
    """Proportional set size in bytes: shared pages count once among those who share them."""
    return sum(_field(pid, "smaps_rollup", "Pss:") for pid in pids)


def rss(pid: int) -> int:
    return _field(pid, "status", "VmRSS:")


def _field(pid: int, file: str, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
