"""What a build tells while it runs: its nodes as vertices, in the terms of BuildKit's `StatusResponse`. Values alone.

All times are nanoseconds since 1970. A vertex is told again whenever something about it changes, always as a whole and
always with the `started_ns` it began with: displays know its intervals by that.
"""

from dataclasses import dataclass
from typing import Final, Protocol

STDOUT: Final = 1
STDERR: Final = 2


@dataclass(frozen=True, slots=True)
class Vertex:
    """One node of the graph, or one step of the daemon's own; neither started nor completed: it is only announced."""

    digest: str  # "sha256:…"; the same for all that is told of it
    name: str  # what is shown: "[stage-1 2/5] RUN make"
    inputs: tuple[str, ...] = ()  # digests
    started_ns: int | None = None
    completed_ns: int | None = None
    cached: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class VertexStatus:
    """One of the things that a vertex is doing, and how far it is: a layer that comes, a file that is sent."""

    id: str  # "extracting sha256:…"; one line of the display each
    vertex: str
    name: str
    current: int
    total: int  # 0: not known
    timestamp_ns: int
    started_ns: int | None = None
    completed_ns: int | None = None


@dataclass(frozen=True, slots=True)
class VertexLog:
    """What a step printed; pieces are as they came, not lines."""

    vertex: str
    stream: int  # STDOUT or STDERR
    data: bytes
    timestamp_ns: int


@dataclass(frozen=True, slots=True)
class VertexWarning:
    """Something to look at that fails nothing. `source` and `lines`: where in which file, if that is known."""

    vertex: str
    level: int
    short: str
    detail: tuple[str, ...] = ()
    url: str = ""
    file_name: str = ""
    source: bytes = b""
    lines: tuple[int, int] | None = None  # first and last


class Progress(Protocol):
    """Who hears of a build. Called in the event loop; must not wait."""

    def vertex(self, vertex: Vertex) -> None: ...

    def status(self, status: VertexStatus) -> None: ...

    def log(self, log: VertexLog) -> None: ...

    def warning(self, warning: VertexWarning) -> None: ...
