"""The engines that are compared, each private and fresh, all driven by the same docker command."""

import contextlib
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bennu.runtime.cgroups import Cgroups
from bennu.runtime.runtime import CONMON_GROUP

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support import images, oracle, traces  # noqa: E402
from support.cli import Cli  # noqa: E402
from support.daemon import Daemon  # noqa: E402


@dataclass(frozen=True, slots=True)
class Engine:
    """`marks` are words that every process of the engine has on its command line, and no other process.

    `groups` are the control groups in which all processes of the engine are, and those of its containers are not.
    """

    name: str
    cli: Cli
    marks: tuple[str, ...]
    daemon_pid: int
    groups: tuple[Path, ...]


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
        with accounted([daemon.pid]) as group:
            conmons = Cgroups().folder("cpuacct", CONMON_GROUP)
            yield Engine("Bennu", daemon.docker, (str(daemon.exec_root),), daemon.pid, (group, conmons))
    finally:
        traces.discard(daemon)


@contextlib.contextmanager
def dockerd() -> Iterator[Engine]:
    with oracle.run_dockerd() as cli:
        root = cli.environment["DOCKER_HOST"].removeprefix("unix://").removesuffix("/s")
        version = cli("version", "-f", "{{.Server.Version}}").line
        pid = int((Path(root) / "pid").read_text())
        daemons = [one for one, line in traces.command_lines() if f"{root}/" in line]
        with accounted([pid, *daemons]) as group:
            yield Engine(f"dockerd {version}", cli, (f"{root}/",), pid, (group,))


@contextlib.contextmanager
def accounted(pids: Sequence[int]) -> Iterator[Path]:
    """A control group with these processes and all that they start, while the block runs."""
    group = Cgroups().folder("cpuacct", f"bench-{secrets.token_hex(4)}")
    group.mkdir()
    try:
        move(pids, group)
        yield group
    finally:
        move((int(pid) for pid in (group / "cgroup.procs").read_text().split()), group.parent)
        group.rmdir()


def move(pids: Iterable[int], group: Path) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(str(pid))
