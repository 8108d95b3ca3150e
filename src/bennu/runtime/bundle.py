"""Where the files of one running container are. Everything of it lies in one short-named folder, the bundle.

`config.json`, `pid`, `conmon.pid`, `attach`, `ctl`, `winsz`: as conmon and the OCI runtime want them.
`stdin`: the pipe the container reads from, if it has an open standard input that is no terminal.
`facts.json`: what the engine must know about the container after its own death (`BundleFacts`).
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec


class BundleFacts(msgspec.Struct, omit_defaults=True):
    """Written before the container exists and never changed, except `orphaned`."""

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
    def control(self) -> Path:
        return self.root / "ctl"

    @property
    def orphan_marker(self) -> Path:
        """Exists if conmon is not the parent of the container's process, so cannot learn its exit status."""
        return self.root / "orphan"

    def read_facts(self) -> BundleFacts | None:
        """None: there is no such container, or its creation was cut short."""
        try:
            return msgspec.json.decode(self.facts_file.read_bytes(), type=BundleFacts)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write_facts(self, facts: BundleFacts) -> None:
        self.facts_file.write_bytes(msgspec.json.encode(facts))


def read_pid(path: Path) -> int:
    """The number in a pid file; 0 if there is none."""
    try:
        return int(path.read_text().strip())
    except (FileNotFoundError, ValueError):
        return 0
