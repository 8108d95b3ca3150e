"""What a build tells, kept for whoever listens, and written as BuildKit's StatusResponse."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Final

from bennu.build.vertices import Vertex, VertexLog, VertexStatus, VertexWarning
from bennu.build.wire.messages import (
    OutputRecord,
    Position,
    Range,
    SourceInfo,
    StatusRecord,
    StatusResponse,
    Timestamp,
    VertexRecord,
    WarningRecord,
)

AT_ONCE: Final = 256  # things told in one message
MAX_LOG_BYTES: Final = 16 << 20  # of output that nobody has heard yet; what is older is dropped then

Event = Vertex | VertexStatus | VertexLog | VertexWarning


class Recorder:
    """A `Progress` that keeps what it hears until it has been told, and as long as there may be others to tell."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._log_bytes = 0
        self._ended = False
        self._more = asyncio.Event()

    def vertex(self, vertex: Vertex) -> None:
        self._add(vertex)

    def status(self, status: VertexStatus) -> None:
        self._add(status)

    def log(self, log: VertexLog) -> None:
        self._log_bytes += len(log.data)
        self._add(log)
        if self._log_bytes > MAX_LOG_BYTES:
            self._drop_half()

    def warning(self, warning: VertexWarning) -> None:
        self._add(warning)

    def end(self) -> None:
        """Say that nothing more comes. Idempotent."""
        self._ended = True
        self._more.set()

    def _add(self, event: Event) -> None:
        self._events.append(event)
        self._more.set()

    def _drop_half(self) -> None:
        left = self._log_bytes // 2
        for place, event in enumerate(self._events):
            if left <= 0:
                break
            if isinstance(event, VertexLog) and event.data:
                left -= len(event.data)
                self._log_bytes -= len(event.data)
                self._events[place] = VertexLog(event.vertex, event.stream, b"", event.timestamp_ns)

    async def responses(self) -> AsyncIterator[StatusResponse]:
        """Yield all that was and will be told, to the end of the build."""
        at = 0
        while True:
            self._more.clear()
            while at < len(self._events):
                events = list(islice(self._events, at, at + AT_ONCE))
                at += len(events)
                yield response(events)
            if self._ended:
                return
            await self._more.wait()


def response(events: Sequence[Event]) -> StatusResponse:
    """Write events as a message."""
    told = StatusResponse()
    for event in events:
        match event:
            case Vertex():
                told.vertexes.append(_vertex(event))
            case VertexStatus():
                told.statuses.append(_status(event))
            case VertexLog():
                if event.data:
                    when = Timestamp.of(event.timestamp_ns)
                    told.logs.append(OutputRecord(event.vertex, when, event.stream, event.data))
            case VertexWarning():
                told.warnings.append(_warning(event))
    return told


def _time(ns: int | None) -> Timestamp | None:
    return None if ns is None else Timestamp.of(ns)


def _vertex(vertex: Vertex) -> VertexRecord:
    return VertexRecord(
        digest=vertex.digest,
        inputs=list(vertex.inputs),
        name=vertex.name,
        cached=vertex.cached,
        started=_time(vertex.started_ns),
        completed=_time(vertex.completed_ns),
        error=vertex.error,
    )


def _status(status: VertexStatus) -> StatusRecord:
    return StatusRecord(
        id=status.id,
        vertex=status.vertex,
        name=status.name,
        current=status.current,
        total=status.total,
        timestamp=_time(status.timestamp_ns),
        started=_time(status.started_ns),
        completed=_time(status.completed_ns),
    )


def _warning(warning: VertexWarning) -> WarningRecord:
    return WarningRecord(
        vertex=warning.vertex,
        level=warning.level,
        short=warning.short.encode(),
        detail=[line.encode() for line in warning.detail],
        url=warning.url,
        info=SourceInfo(warning.file_name, warning.source, language="Dockerfile") if warning.source else None,
        ranges=[Range(Position(warning.lines[0]), Position(warning.lines[1]))] if warning.lines else [],
    )
