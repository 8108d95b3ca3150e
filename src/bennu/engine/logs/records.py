"""Conversion of the lines of a log file to Docker's log records. Pure.

A line of a `json-file` log is a record. A line of a `local` log, or of any log that an earlier version wrote, is
conmon's; both kinds may follow each other in one file.

conmon writes `TIME stdout|stderr F|P CONTENT`, one line each: F ends a line of the container, P is a piece of one.
Docker's record is a line, newline included, cut into pieces of 16384 bytes that share the time of the first; a last
line without a newline is a record without one. A line with the tag E is ours: it marks the end of a run, and
unfinished lines stay unfinished.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

RECORD_BYTES: Final = 16384
END_OF_RUN: Final = b"E"
STREAMS: Final = {b"stdout": "stdout", b"stderr": "stderr"}
JSON: Final = b"{"  # where others have a tag
LINE: Final = re.compile(
    rb"^(?:(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|[+-]\d\d:\d\d) (stdout|stderr) ([FPE]) |(?=(\{)))(.*)\n",
    re.MULTILINE,
)


class LogRecord(NamedTuple):
    """One record. `at_ns`: wall clock, ns since epoch; `stream`: "stdout" or "stderr"; `data` may hold no newline.

    `attrs`: what the log's options have each line tell of its container.
    """

    at_ns: int
    stream: str
    data: bytes
    attrs: Mapping[str, str] = MappingProxyType({})


class _JsonLine(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}


_decode_json = msgspec.json.Decoder(_JsonLine).decode


@dataclass(slots=True)
class _Unfinished:
    at_ns: int
    data: bytes  # what is not yet handed out; may be empty after a piece was


class Assembler:
    """An assembler that takes lines in order and answers Docker's records in order of their completion."""

    def __init__(self) -> None:
        self._unfinished: dict[bytes, _Unfinished] = {}
        self._second = b""
        self._second_ns = 0

    def feed(self, lines: bytes) -> Iterator[LogRecord]:
        """Take whole lines of the log. Lines that are neither kind (a torn write after a crash) are skipped."""
        unfinished = self._unfinished
        for second, fraction, zone, stream, tag, json, content in LINE.findall(lines):
            if json:
                record = self._decode(content)
                if record is not None:
                    yield record
                continue
            if tag == END_OF_RUN:
                yield from self.finish()
                continue
            at_ns = self._instant(second + zone) + int(fraction)
            if tag == b"F" and len(content) < RECORD_BYTES and stream not in unfinished:
                yield LogRecord(at_ns, STREAMS[stream], content + b"\n")  # nearly all of them
            else:
                yield from self._add(at_ns, stream, content, ends=tag == b"F")

    def finish(self) -> Iterator[LogRecord]:
        """Finish the unfinished lines as records, because no further input follows."""
        left = sorted(self._unfinished.items(), key=lambda item: item[1].at_ns)
        self._unfinished.clear()
        for stream, held in left:
            if held.data:
                yield LogRecord(held.at_ns, STREAMS[stream], held.data)

    def _add(self, at_ns: int, stream: bytes, content: bytes, *, ends: bool) -> Iterator[LogRecord]:
        held = self._unfinished.pop(stream, None)
        if held is not None:
            at_ns, content = held.at_ns, held.data + content
        start = 0
        while len(content) - start >= RECORD_BYTES:
            yield LogRecord(at_ns, STREAMS[stream], content[start : start + RECORD_BYTES])
            start += RECORD_BYTES
        rest = content[start:] if start else content
        if ends:
            yield LogRecord(at_ns, STREAMS[stream], rest + b"\n")
        else:
            self._unfinished[stream] = _Unfinished(at_ns, rest)

    def last_instant(self, lines: bytes) -> int:
        """Return the instant at which the last of whole lines was written; 0 if it does not tell."""
        match = LINE.match(lines, lines.rfind(b"\n", 0, -1) + 1)
        if match is None:
            return 0
        if match[6]:
            record = self._decode(match[7])
            return record.at_ns if record is not None else 0
        return self._instant(match[1] + match[3]) + int(match[2])

    def _decode(self, line: bytes) -> LogRecord | None:
        try:
            read = _decode_json(line)
        except msgspec.DecodeError:
            return None
        second, _, fraction = read.time.removesuffix("Z").partition(".")
        at_ns = self._instant(second.encode() + b"Z") + int(fraction.ljust(9, "0")[:9] or 0)
        return LogRecord(at_ns, read.stream, read.log.encode(), read.attrs)

    def _instant(self, second: bytes) -> int:
        if second != self._second:  # most lines share it with their neighbour
            try:
                self._second_ns = int(datetime.fromisoformat(second.decode()).timestamp()) * 10**9
            except ValueError:  # a day that does not exist: a damaged line
                self._second_ns = 0
            self._second = second
        return self._second_ns
