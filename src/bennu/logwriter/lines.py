"""Conversion of conmon's lines to the lines of a log file. Pure.

conmon writes `TIME stdout|stderr F|P CONTENT`, one line each: F ends a line of the container, P is a piece of one, and
all lines of one read share their time. A container's line is cut into records of 16384 bytes that share the time of
the first; one without a newline at its end is a record without one.

`JsonLines` makes of each record the line that dockerd's `json-file` driver writes, to the byte. `PlainLines` keeps
conmon's lines as they are.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final, Protocol

RECORD_BYTES: Final = 16384
HEAD: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP]) ")
ESCAPED: Final = bytes(range(0x0A)) + bytes(range(0x0B, 0x20)) + b'"\\<>&'  # of ASCII, but newlines
SHORT_ESCAPES: Final = (
    (b"\\", b"\\\\"),  # first, for the others make more of them
    (b'"', b'\\"'),
    (b"\r", b"\\r"),
    (b"\t", b"\\u0009"),
    (b"\x1b", b"\\u001b"),
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
)
ALL_BUT_RARE: Final = bytes(set(range(256)) - (set(range(0x20)) - set(b"\n\r\t\x1b")))
LINE_SEPARATORS: Final = (("\u2028", "\\u2028"), ("\u2029", "\\u2029"))
NOT_UTF8: Final = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of each such byte


class Lines(Protocol):
    """A conversion; `feed` takes whole lines of conmon's in order."""

    def feed(self, data: bytes) -> bytes:
        """Answer the lines for the log file that are complete with `data`."""
        ...

    def finish(self) -> bytes:
        """Answer the lines for what is unfinished, because the run has ended."""
        ...

    def held(self) -> Any:
        """Answer what is unfinished as a value of JSON, for `resume` of another writer."""
        ...

    def resume(self, held: Any) -> None:
        """Go on from what another writer held."""
        ...


class JsonLines:
    """Docker's `json-file`."""

    def __init__(self, attrs: str = "") -> None:
        """`attrs`: an object in JSON that each line has, or nothing."""
        self._attrs = f',"attrs":{attrs}'.encode() if attrs else b""
        self._unfinished: dict[bytes, tuple[bytes, bytes]] = {}  # stream → time of its first piece, bytes left over
        self._second = b""
        self._second_utc = b""

    def feed(self, data: bytes) -> bytes:
        """Convert whole lines; lines not written by conmon are skipped."""
        made: list[bytes] = []
        start = 0
        while start < len(data):
            head = HEAD.match(data, start)
            if head is None:
                start = _after_line(data, start)
                continue
            second, fraction, zone, stream, tag = head.groups()
            time = self._time(second + zone, fraction)
            if tag == b"F" and stream not in self._unfinished:
                body, start = _take_alike(data, head[0], start)
                if len(body) < RECORD_BYTES:
                    made.append(self._convert(body, stream, time))
                else:  # there may be a long line among them
                    for content in body.split(b"\n"):
                        self._add(made, stream, time, content, ends=True)
            else:
                end = _after_line(data, start)
                self._add(made, stream, time, data[head.end() : end - 1], ends=tag == b"F")
                start = end
        return b"".join(made)

    def finish(self) -> bytes:
        """Convert what is unfinished to records without a newline."""
        left = sorted(self._unfinished.items(), key=lambda item: item[1][0])
        self._unfinished.clear()
        return b"".join(self._record(rest, stream, time) for stream, (time, rest) in left if rest)

    def held(self) -> Any:
        return [
            (stream.decode(), time.decode(), rest.decode("latin-1"))
            for stream, (time, rest) in self._unfinished.items()
        ]

    def resume(self, held: Any) -> None:
        self._unfinished = {stream.encode(): (time.encode(), rest.encode("latin-1")) for stream, time, rest in held}

    def _add(self, made: list[bytes], stream: bytes, time: bytes, content: bytes, *, ends: bool) -> None:
        """Take a line that is a piece of one, or continues it."""
        held = self._unfinished.pop(stream, None)
        if held is not None:
            time, content = held[0], held[1] + content
        while len(content) >= RECORD_BYTES:
            made.append(self._record(content[:RECORD_BYTES], stream, time))
            content = content[RECORD_BYTES:]
        if ends:
            made.append(self._convert(content, stream, time))
        else:
            self._unfinished[stream] = (time, content)

    def _convert(self, body: bytes, stream: bytes, time: bytes) -> bytes:
        """Convert records, newlines between them, that end with a newline and share stream and time."""
        end = b'\\n","stream":"%b"%b,"time":"%b"}\n' % (stream, self._attrs, time)
        return b'{"log":"' + escape(body).replace(b"\n", end + b'{"log":"') + end

    def _record(self, content: bytes, stream: bytes, time: bytes) -> bytes:
        """Convert one record without a newline."""
        return b'{"log":"%b","stream":"%b"%b,"time":"%b"}\n' % (escape(content), stream, self._attrs, time)

    def _time(self, second: bytes, fraction: bytes) -> bytes:
        """Convert conmon's local time to UTC, the fraction without zeros at its end."""
        if second != self._second:
            try:
                local = datetime.fromisoformat(second.decode())
            except ValueError:  # a day that does not exist: a damaged line
                local = datetime.fromtimestamp(0, UTC)
            self._second_utc = local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
            self._second = second
        fraction = fraction.rstrip(b"0")
        return self._second_utc + (b"." + fraction if fraction else b"") + b"Z"


class PlainLines:
    """conmon's own lines, any byte included: the format of the `local` driver."""

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""

    def held(self) -> Any:
        return []

    def resume(self, held: Any) -> None:
        """Do nothing: all that was read was written."""


def escape(text: bytes) -> bytes:
    """Escape for a string in JSON as Go does; newlines stay. What is no UTF-8 becomes U+FFFD, byte by byte."""
    if len(text.translate(None, ESCAPED)) != len(text):
        for plain, escaped in SHORT_ESCAPES:
            text = text.replace(plain, escaped)
        for byte in set(text.translate(None, ALL_BUT_RARE)):
            text = text.replace(b"%c" % byte, b"\\u%04x" % byte)
    if text.isascii():
        return text
    try:
        shown = text.decode()
    except UnicodeDecodeError:
        shown = NOT_UTF8.sub(r"\\ufffd", text.decode(errors="surrogateescape"))
    for separator, shown_as in LINE_SEPARATORS:
        shown = shown.replace(separator, shown_as)
    return shown.encode()


def _after_line(data: bytes, start: int) -> int:
    return data.find(b"\n", start) + 1 or len(data)


def _take_alike(data: bytes, head: bytes, start: int) -> tuple[bytes, int]:
    """Take the lines from `start` on that begin with the same `head`, without it; and where the next one begins.

    What conmon got with one read shares its head, and nothing else begins a line: so thousands of lines are found at
    once.
    """
    mark = b"\n" + head
    last = data.rfind(mark, start)
    end = _after_line(data, last + 1 if last >= 0 else start)
    body = data[start + len(head) : end - 1].replace(mark, b"\n")
    if last >= 0 and body.count(b"\n") != data.count(mark, start, end):  # others lie between
        end = _after_line(data, start)
        body = data[start + len(head) : end - 1]
    return body, end
