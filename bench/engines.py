"""The engines that are compared, each private and fresh, all driven by the same docker command."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support import images, oracle, traces  # noqa: E402
from support.cli import Cli  # noqa: E402
from support.daemon import Daemon  # noqa: E402


@dataclass(frozen=True, slots=True)
class Engine:
    """`marks` are words that every process of the engine has on its command line, and no other process."""

    name: str
    cli: Cli
    marks: tuple[str, ...]
    daemon_pid: int


@contextlib.contextmanager
def all_engines() -> Iterator[list[Engine]]:
    """Bennu, and dockerd where it is installed; both up at the same time, so that their rounds can alternate."""
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(bennu())]
        if reason := oracle.why_not():
            print(f"no dockerd to compare with: {reason}")
        else:
            engines.append(stack.enter_context(dockerd()))
        for engine in engines:
            images.import_base(engine.cli, "busybox")
        yield engines


@contextlib.contextmanager
def bennu() -> Iterator[Engine]:
    daemon = Daemon()
    try:
        daemon.start()
        yield Engine("Bennu", daemon.docker, (str(daemon.exec_root),), daemon.pid)
    finally:
        traces.discard(daemon)


@contextlib.contextmanager
def dockerd() -> Iterator[Engine]:
    with oracle.run_dockerd() as cli:
        root = cli.environment["DOCKER_HOST"].removeprefix("unix://").removesuffix("/s")
        version = cli("version", "-f", "{{.Server.Version}}").line
        pid = int((Path(root) / "pid").read_text())
        yield Engine(f"dockerd {version}", cli, (f"{root}/",), pid)
