"""`GET /containers/{id}/logs`: what a container has written, and with `follow` what it goes on to write."""

from collections.abc import Iterable
from contextlib import aclosing
from urllib.parse import quote_plus

from aiohttp import web

from bennu.api.http.query import flag, instant_ns, text
from bennu.api.http.streams import STDERR, STDOUT, ends_with_client, frame, open_chunks, stream_type
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.engine.logs.reader import LogQuery, LogRecord, check_readable, read_logs
from bennu.errors import Conflict, InvalidParameter
from bennu.go.rfc3339 import format_rfc3339_padded
from bennu.lifecycle.status import State


def routes(engine: Engine) -> list[web.RouteDef]:
    return [web.route("GET", "/containers/{id}/logs", LogRoutes(engine).logs)]


class LogRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @ends_with_client
    async def logs(self, request: web.Request) -> web.StreamResponse:
        container = self._engine.find(request.match_info["id"])
        query = read_query(request)
        check_has_log(container)
        encoder = LogEncoder(
            tty=container.record.config.tty,
            timestamps=flag(request, "timestamps"),
            details=flag(request, "details"),
        )
        response = await open_chunks(request, stream_type(request, multiplexed=not encoder.tty))
        path = self._engine.services.log_path(container.id)
        async with aclosing(read_logs(path, query, ended=container.exited)) as batches:
            async for records in batches:
                await response.write(encoder.encode(records))
        return response


class LogEncoder:
    """Encodes log records for the wire."""

    def __init__(self, *, tty: bool, timestamps: bool = False, details: bool = False) -> None:
        self.tty = tty
        self._timestamps = timestamps
        self._details = details

    def encode(self, records: Iterable[LogRecord]) -> bytes:
        return b"".join(self._one(record) for record in records)

    def _one(self, record: LogRecord) -> bytes:
        stamp = f"{format_rfc3339_padded(record.at_ns)} ".encode() if self._timestamps else b""
        data = stamp + (_details(record) if self._details else b"") + record.data
        return data if self.tty else frame(STDERR if record.stream == "stderr" else STDOUT, data)


def _details(record: LogRecord) -> bytes:
    """Write what the log's options tell of the container: `a=1,b=2 `, with the escapes of a URL's query."""
    attrs = sorted(record.attrs.items())
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in attrs).encode() + b" "


def read_query(request: web.Request) -> LogQuery:
    """Read what is asked for. Raises: InvalidParameter."""
    stdout, stderr = flag(request, "stdout"), flag(request, "stderr")
    if not (stdout or stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    return LogQuery(
        stdout=stdout,
        stderr=stderr,
        tail=parse_tail(text(request, "tail")),
        since_ns=instant_ns(request, "since") or 0,
        until_ns=instant_ns(request, "until") or 0,
        follow=flag(request, "follow"),
    )


def parse_tail(value: str) -> int | None:
    """Read a number of lines; None, which is all of them, for anything else."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None


def check_has_log(container: Container) -> None:
    """Refuse containers whose log cannot be read. Raises: NotImplementedHere, Conflict."""
    check_readable(container.record.host_config.log_config.type)
    if container.removing or container.record.state in (State.REMOVING, State.DEAD):
        raise Conflict("can not get logs from container which is dead or marked for removal")
