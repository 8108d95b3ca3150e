"""What is measured: each row is a line of the table. Add one by writing a function and naming it here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.engines import Engine
from bench.measure import Step, alternate, engine_pids, helper_pids, pss, rss

FEW, MANY = 20, 50
SLEEP = ("--stop-signal=SIGKILL", "busybox", "sleep", "1000000")


@dataclass(frozen=True, slots=True)
class Row:
    """`values` by engine, in `unit`; `goal` is the most that Bennu may have as a part of dockerd's, or in itself."""

    name: str
    unit: str
    values: Mapping[str, float]
    goal: str = ""


def run_with_network(engine: Engine) -> None:
    engine.cli("run", "--rm", "busybox", "true")


def run_without_network(engine: Engine) -> None:
    engine.cli("run", "--rm", "--network=none", "busybox", "true")


def run_with_port(engine: Engine) -> None:
    engine.cli("run", "--rm", "-p", "80", "busybox", "true")


def start_and_stop(engine: Engine) -> None:
    engine.cli("start", "bench")
    engine.cli("stop", "bench")


def exec_true(engine: Engine) -> None:
    engine.cli("exec", "bench", "true")


def list_containers(engine: Engine) -> None:
    engine.cli("ps", "-a")


def time_commands(engines: Sequence[Engine], rounds: int) -> list[Row]:
    rows = [
        timed("docker run --rm busybox true", engines, run_with_network, rounds, "0.4 of dockerd's"),
        timed("docker run --rm --network=none busybox true", engines, run_without_network, rounds),
        timed("docker run --rm -p 80 busybox true", engines, run_with_port, rounds),
    ]
    for engine in engines:
        engine.cli("create", "--name=bench", *SLEEP)
    rows.append(timed("docker start, docker stop", engines, start_and_stop, rounds))
    for engine in engines:
        engine.cli("start", "bench")
    rows.append(timed("docker exec CONTAINER true", engines, exec_true, rounds))
    rows.append(timed("docker ps -a", engines, list_containers, rounds))
    for engine in engines:
        engine.cli("rm", "-f", "bench")
    return rows


def timed(name: str, engines: Sequence[Engine], step: Step, rounds: int, goal: str = "") -> Row:
    print(f"… {name}", flush=True)
    times = alternate(engines, step, rounds)
    return Row(name, "ms", {engine: taken.median * 1000 for engine, taken in times.items()}, goal)


def weigh(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """Memory with nothing, with a few, with many containers."""
    columns = {engine.name: weigh_one(engine) for engine in engines}
    names = {
        "idle": ("daemon, no container (RSS)", ""),
        "helpers": (f"helper processes per container, over {FEW} (PSS)", "0.6 MB"),
        "growth": (f"everything of the engine per container, over {FEW} (PSS)", ""),
        "many": (f"daemon with {MANY} containers (RSS)", "80 MB"),
    }
    return [
        Row(name, "MB", {engine: facts[key] / 1e6 for engine, facts in columns.items()}, goal)
        for key, (name, goal) in names.items()
    ]


def weigh_one(engine: Engine) -> dict[str, float]:
    print(f"… memory of {engine.name}", flush=True)
    before = engine_pids(engine)
    idle, idle_pss = rss(engine.daemon_pid), pss(before)
    ids = run_many(engine, FEW)
    helpers, total = pss(helper_pids(engine, before)), pss(engine_pids(engine))
    ids += run_many(engine, MANY - FEW)
    many = rss(engine.daemon_pid)
    engine.cli("rm", "-f", *ids, timeout_s=300)
    return {"idle": idle, "helpers": helpers / FEW, "growth": (total - idle_pss) / FEW, "many": many}


def run_many(engine: Engine, count: int) -> list[str]:
    return [engine.cli("run", "-d", *SLEEP).line for _ in range(count)]


ROWS: tuple[Callable[[Sequence[Engine], int], list[Row]], ...] = (time_commands, weigh)
