"""How long builds take, driven by docker's buildx.

Of several rounds the smallest counts: what else the machine does only adds.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.engines import Engine
from bench.measure import engine_pids, pss
from bench.rows import Row
from support.build_clients import find_build_clients
from support.cli import Cli

FILES, FILE_BYTES, FILES_PER_FOLDER = 3000, 100_000, 100
STEPS = """\
FROM busybox
ENV ONE=1
RUN mkdir -p /app/data
COPY one.txt /app/
RUN echo one > /app/data/one
WORKDIR /app
COPY folder /app/folder
RUN cat one.txt folder/* > data/all
ENV TWO=2 THREE=3
RUN mkdir -p /etc; echo app:x:1000:1000::/:/bin/sh >> /etc/passwd; chmod 644 /etc/passwd
COPY --chown=app one.txt /app/data/own
RUN chmod -R a+rX /app/data
COPY folder/1 /etc/one
RUN ls -lR /app > /listing
RUN rm -r /app/folder
CMD ["cat", "/listing"]
"""
ASIDE = """\
FROM busybox AS one
RUN sleep 2; echo 1 > /one
FROM busybox AS two
RUN sleep 2; echo 2 > /two
FROM busybox
COPY --from=one /one /
COPY --from=two /two /
"""
SAMPLE_S = 0.05


def build(engines: Sequence[Engine], rounds: int) -> list[Row]:
    found = find_build_clients()
    if not found:
        print("no docker command with buildx to build with")
        return []
    with tempfile.TemporaryDirectory(prefix="bench-build-") as name:
        clients = {engine.name: found[-1].at(engine.cli.environment["DOCKER_HOST"], Path(name)) for engine in engines}
        bench = _Bench(engines, clients, min(rounds, 5))
        return [
            *bench.steps(Path(name) / "steps"),
            *bench.context(Path(name) / "large"),
            *bench.aside(Path(name) / "aside"),
        ]


class _Bench:
    """The engines, and the client of each."""

    def __init__(self, engines: Sequence[Engine], clients: dict[str, Cli], rounds: int) -> None:
        self._engines = engines
        self._clients = clients
        self._rounds = rounds

    def _best(self, folder: Path, *, cold: bool) -> dict[str, float]:
        """The shortest build of a folder, in seconds. One warm-up round."""
        taken: dict[str, list[float]] = {engine.name: [] for engine in self._engines}
        for turn in range(self._rounds + 1):
            for engine in self._engines:
                if cold:
                    self._forget(engine)
                seconds = self._build(engine, folder)
                if turn:
                    taken[engine.name].append(seconds)
        return {name: min(seconds) for name, seconds in taken.items()}

    def _build(self, engine: Engine, folder: Path) -> float:
        began = time.perf_counter()
        self._clients[engine.name]("build", "-q", "-t", "bench-build", folder, timeout_s=300)
        return time.perf_counter() - began

    def _forget(self, engine: Engine) -> None:
        """Have the next build begin anew."""
        self._clients[engine.name]("rmi", "-f", "bench-build", ok=False)
        self._clients[engine.name]("buildx", "prune", "-af")

    def steps(self, folder: Path) -> list[Row]:
        (folder / "folder").mkdir(parents=True)
        (folder / "Dockerfile").write_text(STEPS)
        (folder / "one.txt").write_text("one\n")
        for number in range(5):
            (folder / "folder" / str(number)).write_text(f"{number}\n")
        print("… build of 15 steps", flush=True)
        cold = self._best(folder, cold=True)
        cached = self._best(folder, cold=False)
        return [
            _row("15 steps, nothing cached", cold, "0.5 of dockerd's"),
            _row("15 steps, all cached", cached, "0.5 of dockerd's"),
        ]

    def context(self, folder: Path) -> list[Row]:
        print("… build of a large context", flush=True)
        folder.mkdir()
        (folder / "Dockerfile").write_text("FROM busybox\nCOPY . /context\n")
        for number in range(FILES):
            place = folder / str(number // FILES_PER_FOLDER)
            place.mkdir(exist_ok=True)
            (place / str(number)).write_bytes(os.urandom(FILE_BYTES))
        first: dict[str, list[float]] = {engine.name: [] for engine in self._engines}
        growth: dict[str, list[float]] = {engine.name: [] for engine in self._engines}
        for _ in range(2):
            for engine in self._engines:
                self._forget(engine)
                with _growing(engine, growth[engine.name]):
                    first[engine.name].append(self._build(engine, folder))
        again = self._best(folder, cold=False)
        for engine in self._engines:
            self._forget(engine)
        return [
            _row(
                "context of 300 MB in 3,000 files",
                {name: min(found) for name, found in first.items()},
                "1.2 of dockerd's",
            ),
            Row(
                "… growth of all processes of the engine meanwhile (PSS)",
                "MB",
                {name: found[0] for name, found in growth.items()},
                "60 MB",
            ),
            _row("… once more, unchanged", again, "300 ms"),
        ]

    def aside(self, folder: Path) -> list[Row]:
        print("… build of two stages that sleep", flush=True)
        folder.mkdir()
        (folder / "Dockerfile").write_text(ASIDE)
        return [_row("two stages of sleep 2", self._best(folder, cold=True), "2.5 s")]


def _row(name: str, seconds: dict[str, float], goal: str) -> Row:
    return Row(name, "ms", {engine: taken * 1000 for engine, taken in seconds.items()}, goal)


@contextlib.contextmanager
def _growing(engine: Engine, growth: list[float]) -> Iterator[None]:
    """Append by how much the engine's processes grew during the block at most, in MB."""
    before, most, ended = pss(engine_pids(engine)), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(SAMPLE_S):
            most = max(most, pss(engine_pids(engine)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        growth.append(max(0, most - before) / 1e6)
