"""The values that the runtime is given and answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bennu.logwriter.words import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequest:
    """What a container is created from. `spec` comes from `build_spec`; `log` None keeps no log."""

    spec: Mapping[str, Any]
    log: Job | None
    open_stdin: bool = False
    stdin_once: bool = False  # its standard input ends with the first client's


@dataclass(frozen=True, slots=True)
class Created:
    """Host pids. The container's process exists and waits for `start`."""

    pid: int
    conmon_pid: int


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a container's process ended, as its conmon saw it. `exit_code` None: conmon could not know."""

    exit_code: int | None
    finished_at_ns: int  # wall clock


@dataclass(frozen=True, slots=True)
class Recovered:
    """What there is of a container whose daemon died. Pids are 0 when that process is gone."""

    conmon_pid: int
    pid: int
    exit: ExitRecord | None
