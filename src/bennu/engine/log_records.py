"""From conmon's log lines to Docker's log records. Pure.

conmon writes `TIME stdout|stderr F|P CONTENT`, one line each: F ends a line of the container, P is a piece of one.
Docker's record is a line, newline included, cut into pieces of 16384 bytes that share the time of the first; a last
line without a newline is a record without one. A line with the tag E is ours: a run has ended, what is unfinished
stays so.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

RECORD_BYTES: Final = 16384
END_OF_RUN: Final = b"E"
LINE: Final = re.compile(
    rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|[+-]\d\d:\d\d) (stdout|stderr) ([FPE]) (.*)\n", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """`at_ns`: wall clock, ns since the epoch; `stream`: "stdout" or "stderr"; `data` may hold no newline."""

    at_ns: int
    stream: str
    data: bytes


@dataclass(slots=True)
class _Unfinished:
    at_ns: int
    data: bytes  # what is not yet handed out; may be empty after a piece was


class Assembler:
    """Feed it conmon's lines in order; it answers Docker's records in order of their completion."""

    def __init__(self) -> None:
        self._unfinished: dict[str, _Unfinished] = {}
        self._second = b""
        self._second_ns = 0

    def feed(self, lines: bytes) -> Iterator[LogRecord]:
        """Whole lines of the log. What is no line of conmon's (a torn write after a crash) is passed over."""
        for match in LINE.finditer(lines):
            second, fraction, zone, stream, tag, content = match.groups()
            if tag == END_OF_RUN:
                yield from self.finish()
                continue
            at_ns = self._instant(second + zone) + int(fraction)
            yield from self._add(at_ns, stream.decode(), content, ends=tag == b"F")

    def finish(self) -> Iterator[LogRecord]:
        """Nothing follows: lines without an end are records too."""
        left, self._unfinished = self._unfinished, {}
        for stream, held in sorted(left.items(), key=lambda item: item[1].at_ns):
            if held.data:
                yield LogRecord(held.at_ns, stream, held.data)

    def _add(self, at_ns: int, stream: str, content: bytes, *, ends: bool) -> Iterator[LogRecord]:
        held = self._unfinished.pop(stream, None)
        if held is not None:
            at_ns, content = held.at_ns, held.data + content
        start = 0
        while len(content) - start >= RECORD_BYTES:
            yield LogRecord(at_ns, stream, content[start : start + RECORD_BYTES])
            start += RECORD_BYTES
        rest = content[start:] if start else content
        if ends:
            yield LogRecord(at_ns, stream, rest + b"\n")
        else:
            self._unfinished[stream] = _Unfinished(at_ns, rest)

    def _instant(self, second: bytes) -> int:
        if second != self._second:  # most lines share it with their neighbour
            try:
                self._second_ns = int(datetime.fromisoformat(second.decode()).timestamp()) * 10**9
            except ValueError:  # a day that does not exist: a damaged line
                self._second_ns = 0
            self._second = second
        return self._second_ns
