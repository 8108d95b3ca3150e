"""Finds a container's files and processes. Everything of a container lies in one short-named folder, its bundle.

`config.json`, `pid`, `conmon.pid`, `attach`, `ctl`, `winsz`: as conmon and the OCI runtime want them.
`log`: the pipe that conmon writes the container's lines to; `log.json`: what its log writer is told of it.
`stdin`: the pipe the container reads from, if it has an open standard input that is no terminal.
`facts.json`: what the engine must know about the container after its own death (`BundleFacts`).

Nothing is remembered between calls that is not on disk in a bundle, so a daemon that was just started knows as much as
the one that created the container.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bennu.beneath import entry_of
from bennu.kernel.pidfd import held
from bennu.kernel.procfs import cmdline_of, is_alive
from bennu.logwriter.words import Job
from bennu.runtime.cgroups import is_in_group
from bennu.runtime.failures import NotAlive

BUNDLES: Final = "c"
ID_DIGITS: Final = 24  # of a container's id in its bundle's name


class BundleFacts(msgspec.Struct, omit_defaults=True):
    """Written before the container exists, never changed afterwards."""

    id: str
    cgroup: str  # absolute inside the hierarchy: "/bennu/<id>"
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    keeper_fd: int = -1  # conmon's descriptor that keeps the container's stdin open
    shared_pids: bool = False  # its processes are in a PID namespace that outlives it


@dataclass(frozen=True, slots=True)
class Bundle:
    """The folder of one container under `exec_root`."""

    root: Path
    exit_file: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def facts_file(self) -> Path:
        return self.root / "facts.json"

    @property
    def pid_file(self) -> Path:
        return self.root / "pid"

    @property
    def conmon_pid_file(self) -> Path:
        return self.root / "conmon.pid"

    @property
    def stdin(self) -> Path:
        return self.root / "stdin"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def job_file(self) -> Path:
        return self.root / "log.json"

    @property
    def control(self) -> Path:
        return self.root / "ctl"

    @property
    def orphan_marker(self) -> Path:
        """Exists if conmon is not the parent of the container's process, and so cannot learn its exit status."""
        return self.root / "orphan"

    def read_facts(self) -> BundleFacts | None:
        """Read the facts. None: there is no such container, or its creation was cut short."""
        try:
            return msgspec.json.decode(self.facts_file.read_bytes(), type=BundleFacts)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def read_job(self) -> Job | None:
        """Read what the log writer is told. None: its container keeps no log, or is an earlier version's."""
        try:
            return Job(**msgspec.json.decode(self.job_file.read_bytes()))
        except (FileNotFoundError, msgspec.DecodeError, TypeError):
            return None

    def write_job(self, job: Job) -> None:
        self.job_file.write_bytes(msgspec.json.encode(job._asdict()))

    def write_facts(self, facts: BundleFacts) -> None:
        self.facts_file.write_bytes(msgspec.json.encode(facts))


def read_pid(path: Path) -> int:
    """Read the number in a pid file; 0 if there is none."""
    try:
        return int(path.read_text().strip())
    except (FileNotFoundError, ValueError):
        return 0


class Bundles:
    """The bundles of one engine's containers; `exec_root` is the engine's alone."""

    def __init__(self, exec_root: Path) -> None:
        self.exits = exec_root / "exits"
        self._folder = exec_root / BUNDLES
        for folder in (self._folder, self.exits):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.of = functools.lru_cache(1024)(self._of)  # a life asks for its bundle a dozen times

    def _of(self, container_id: str) -> Bundle:
        """Name the container's bundle, whether it exists or not. Raises: InvalidParameter for what is no id."""
        return Bundle(entry_of(self._folder, container_id[:ID_DIGITS]), entry_of(self.exits, container_id))

    def find(self, container_id: str) -> tuple[Bundle, BundleFacts]:
        """Find the bundle and its facts. Raises: NotAlive if there are none."""
        bundle = self.of(container_id)
        facts = bundle.read_facts()
        if facts is None:
            raise NotAlive(f"container {container_id} is not running")
        return bundle, facts

    def ids(self) -> list[str]:
        """List the ids of all containers that have a bundle, ascending; also of those whose creation was cut short."""
        return sorted(facts.id for _, facts in _bundles_in(self._folder))

    def jobs(self) -> list[Job]:
        """List the logs of all containers that have a bundle."""
        return [job for bundle, _ in _bundles_in(self._folder) if (job := bundle.read_job()) is not None]

    def open_process(self, container_id: str) -> int:
        """Open a pidfd of the container's first process; the caller closes it. Raises: NotAlive."""
        return open_process(*self.find(container_id))

    def conmon_pid(self, container_id: str) -> int:
        """Answer the pid of the container's conmon; 0 when it is gone, also if its number is another's now."""
        pid = read_pid(self.of(container_id).conmon_pid_file)
        return pid if pid and conmon_mark(container_id) in cmdline_of(pid) else 0

    @contextlib.contextmanager
    def held_conmon(self, container_id: str) -> Iterator[int]:
        """Hold a pidfd of the container's conmon for the block; -1 when it is gone."""
        with contextlib.ExitStack() as stack:
            pid, pidfd = self.conmon_pid(container_id), -1
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    pidfd = stack.enter_context(held(pid, lambda pid: conmon_mark(container_id) in cmdline_of(pid)))
            yield pidfd


def open_process(bundle: Bundle, facts: BundleFacts) -> int:
    """Open a pidfd of the container's first process, and of no other that has its number. Raises: NotAlive."""
    pid = read_pid(bundle.pid_file)
    if pid:
        ours = held(pid, lambda pid: is_in_group(pid, facts.cgroup))
        with contextlib.suppress(ProcessLookupError), ours as pidfd:
            return os.dup(pidfd)
    raise NotAlive(f"container {facts.id} is not running")


def conmon_mark(container_id: str) -> str:
    """Answer the argument by which a container's conmon is recognised."""
    return f"--cid={container_id}"


def living_pid(bundle: Bundle, facts: BundleFacts | None) -> int:
    """Answer the pid of the container's first process; 0 when it does not live."""
    pid = read_pid(bundle.pid_file)
    return pid if facts is not None and pid and is_in_group(pid, facts.cgroup) and is_alive(pid) else 0


def find_living(exec_root: Path) -> dict[str, int]:
    """Answer the pids of all containers that live, by id; for callers that have no `Runtime`."""
    found = {facts.id: living_pid(bundle, facts) for bundle, facts in _bundles_in(exec_root / BUNDLES)}
    return {container_id: pid for container_id, pid in found.items() if pid}


def _bundles_in(folder: Path) -> Iterator[tuple[Bundle, BundleFacts]]:
    for path in folder.iterdir() if folder.exists() else ():
        bundle = Bundle(path, path)  # the exit file's name is not asked for here
        if (facts := bundle.read_facts()) is not None:
            yield bundle, facts
