"""The HTTP layer over real sockets: routing, versions, bodies, half-closes, hijacks, clients that vanish."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from bennu.api.http.body import MAX_BODY_BYTES, read_body, read_bounded
from bennu.api.http.middleware import build_application
from bennu.api.http.responses import json_response, no_content_response
from bennu.api.http.serve import ApiServer
from bennu.api.http.streams import RAW, Hijacked, ends_with_client, open_chunks, refuse_as_text, take_over
from bennu.api.routes import not_implemented
from bennu.errors import BennuError, Conflict, NotFound, NotModified
from bennu.model import HostConfig

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Seen:
    """What the handlers below went through."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.finished = asyncio.Event()
        self.connection_gone = asyncio.Event()
        self.go_on = asyncio.Event()


def test_routes(seen: Seen) -> list[web.RouteDef]:
    async def echo(request: web.Request) -> web.StreamResponse:
        async def work(connection: Hijacked) -> None:
            while (data := await connection.read()) is not None:
                await connection.write(b"<" + data + b">")
            await connection.write(b"end")

        await read_bounded(request)
        return await take_over(request, RAW, work)

    async def silent(request: web.Request) -> web.StreamResponse:
        async def work(connection: Hijacked) -> None:
            await connection.gone.wait()
            seen.connection_gone.set()

        return await take_over(request, RAW, work)

    async def flood(request: web.Request) -> web.StreamResponse:
        async def work(connection: Hijacked) -> None:
            try:
                while True:
                    await connection.write(b"x" * 65536)
            finally:
                seen.connection_gone.set()

        return await take_over(request, RAW, work)

    async def broken_session(request: web.Request) -> web.StreamResponse:
        async def work(connection: Hijacked) -> None:
            raise ValueError("a bug")

        return await take_over(request, RAW, work)

    async def host_config(request: web.Request) -> web.StreamResponse:
        return json_response(await read_body(request, HostConfig))

    @ends_with_client
    async def wait_for_ever(request: web.Request) -> web.StreamResponse:
        response = await open_chunks(request)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.cancelled.set()
            raise
        return response

    async def broken_stream(request: web.Request) -> web.StreamResponse:
        response = await open_chunks(request)
        await response.write(b"some")
        raise NotFound("gone in between")

    async def change(request: web.Request) -> web.StreamResponse:
        await seen.go_on.wait()
        seen.finished.set()
        return no_content_response()

    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return json_response("late")

    async def refused(request: web.Request) -> web.StreamResponse:
        return await refuse_as_text(request, "404 Not Found", "No such container: x")

    def failing(error: Exception) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def fail(request: web.Request) -> web.StreamResponse:
            raise error

        return fail

    return [
        web.post("/echo", echo),
        web.post("/silent", silent),
        web.post("/flood", flood),
        web.post("/broken-session", broken_session),
        web.post("/host-config", host_config),
        web.post("/wait", wait_for_ever),
        web.get("/broken-stream", broken_stream),
        web.post("/change", change),
        web.get("/slow", slow),
        web.post("/refused", refused),
        web.get("/missing", failing(NotFound("No such thing: <x>"))),
        web.get("/conflict", failing(Conflict("no"))),
        web.get("/same", failing(NotModified("as it was"))),
        web.get("/plain-failure", failing(BennuError("it broke"))),
        web.get("/bug", failing(RuntimeError("a bug"))),
        *not_implemented.routes(),
    ]


test_routes.__test__ = False  # type: ignore[attr-defined]


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[ApiServer, Seen]]:
    seen = Seen()
    server = ApiServer(build_application(test_routes(seen)))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    await server.start([listener])
    try:
        yield server, seen
    finally:
        await server.close(0.1)


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator["Http"]:
    path = tmp_path / "s"
    async with serving(path) as (server, seen):
        yield Http(path, server, seen)


class Http:
    def __init__(self, path: Path, server: ApiServer, seen: Seen) -> None:
        self.path, self.server, self.seen = path, server, seen

    async def open(self, raw: str | bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(raw.encode() if isinstance(raw, str) else raw)
        return reader, writer

    async def ask(self, method: str, path: str, body: bytes = b"", headers: str = "") -> "Answer":
        """One request on a connection of its own, closed by the server's leave."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n"
        reader, writer = await self.open(head.encode() + body)
        async with asyncio.timeout(5):
            raw = await reader.read()
        writer.close()
        return Answer(raw)

    async def ask_json(self, path: str, body: bytes, content_type: str = "application/json") -> "Answer":
        return await self.ask("POST", path, body, f"Content-Type: {content_type}\r\n")


class Answer:
    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def message(self) -> str:
        message: str = json.loads(self.body)["message"]
        return message


# --- routing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nowhere", "/vfoo/missing", "/v1.44/nowhere"])
async def test_an_unknown_path_is_404_page_not_found_without_api_headers(http: Http, path: str) -> None:
    got = await http.ask("GET", path)
    assert (got.status, got.message) == (404, "page not found")
    assert "api-version" not in got.headers
    assert got.body.endswith(b"\n")


async def test_an_unknown_method_is_404_too(http: Http) -> None:
    got = await http.ask("DELETE", "/v1.44/slow")
    assert (got.status, got.message) == (404, "page not found")


async def test_options_is_200_anywhere(http: Http) -> None:
    assert (await http.ask("OPTIONS", "/nowhere")).status == 200


async def test_double_slashes_lead_to_the_clean_path_with_its_query(http: Http) -> None:
    got = await http.ask("GET", "/v1.44//slow?a=%2Fb")
    assert got.status == 301
    assert got.headers["location"].startswith("/v1.44/slow?a=")


async def test_every_routed_answer_carries_the_api_headers(http: Http) -> None:
    for path in ("/slow", "/v1.24/slow", "/missing", "/bug"):
        headers = (await http.ask("GET", path)).headers
        assert headers["api-version"] == "1.51"
        assert headers["docker-experimental"] == "false"
        assert headers["ostype"] == "linux"
        assert headers["server"].endswith("(linux)")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.99", "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("2.0", "client version 2.0 is too new. Maximum supported API version is 1.51"),
        (
            "1.11",
            "client version 1.11 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        (
            "1",
            "client version 1 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
    ],
)
async def test_versions_not_spoken_are_told_so(http: Http, version: str, message: str) -> None:
    got = await http.ask("GET", f"/v{version}/slow")
    assert (got.status, got.message) == (400, message)


async def test_keep_alive_carries_several_requests(http: Http) -> None:
    reader, writer = await http.open("")
    for _ in range(3):
        writer.write(b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"404" in head.splitlines()[0]
        await reader.readexactly(len('{"message":"No such thing: <x>"}\n'))
    writer.close()


async def test_absent_features_name_themselves(http: Http) -> None:
    got = await http.ask("POST", "/v1.44/containers/c1/checkpoints")
    assert (got.status, got.message) == (501, "checkpointing a container is not implemented")


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/missing", 404, "No such thing: <x>"),
        ("/conflict", 409, "no"),
        ("/plain-failure", 500, "it broke"),
        ("/bug", 500, "internal error: RuntimeError: a bug"),
    ],
)
async def test_errors_are_json_messages(http: Http, path: str, status: int, message: str) -> None:
    got = await http.ask("GET", path)
    assert (got.status, got.message, got.headers["content-type"]) == (status, message, "application/json")


async def test_not_modified_has_no_body(http: Http) -> None:
    got = await http.ask("GET", "/same")
    assert (got.status, got.body) == (304, b"")


async def test_what_is_no_http_gets_a_400_of_the_same_shape(http: Http) -> None:
    reader, writer = await http.open(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
    got = Answer(await asyncio.wait_for(reader.read(), 5))
    assert got.status == 400
    assert got.message.startswith("bad request: ")
    writer.close()
    assert (await http.ask("GET", "/slow")).status == 200


async def test_a_stream_that_fails_breaks_off_instead_of_ending_well(http: Http) -> None:
    reader, writer = await http.open("GET /broken-stream HTTP/1.1\r\nHost: x\r\n\r\n")
    raw = b""
    with contextlib.suppress(ConnectionError):
        raw = await asyncio.wait_for(reader.read(), 5)
    assert raw.count(b"HTTP/1.1") <= 1
    assert not raw.endswith(b"0\r\n\r\n")
    writer.close()


# --- bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"Memory":', "invalid JSON: unexpected EOF"),
        (b'{"Memory":1} x', "unexpected content after JSON"),
        (b"  ", "invalid JSON: got EOF while reading request body"),
        (
            b'{"Memory":"a"}',
            "invalid JSON: json: cannot unmarshal string into Go struct field HostConfig.Memory of type int64",
        ),
        (
            b'{"Memory":99999999999999999999}',
            "invalid JSON: json: cannot unmarshal number 99999999999999999999 into Go value",
        ),
        (b"[" * 200_000, "invalid JSON: exceeded max depth"),
        (b"[]", "invalid JSON: json: cannot unmarshal array into Go value of type HostConfig"),
    ],
    ids=["cut", "trailing", "blank", "type", "number", "depth", "array"],
)
async def test_bad_json_is_400_in_the_apis_words(http: Http, body: bytes, message: str) -> None:
    got = await http.ask_json("/host-config", body)
    assert got.status == 400
    assert got.message.startswith(message)


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (";;", "malformed Content-Type header (;;): mime: no media type"),
    ],
)
async def test_a_wrong_content_type_is_400(http: Http, content_type: str, message: str) -> None:
    got = await http.ask_json("/host-config", b"{}", content_type)
    assert (got.status, got.message) == (400, message)


async def test_a_body_larger_than_any_sensible_one_is_refused_before_it_is_read(http: Http) -> None:
    head = (
        f"POST /host-config HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {10**12}\r\n\r\n"
    )
    reader, writer = await http.open(head)
    first = await asyncio.wait_for(reader.readline(), 5)
    assert b"400" in first
    writer.close()


async def test_a_chunked_body_is_cut_off_at_the_limit(http: Http) -> None:
    head = (
        "POST /host-config HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    reader, writer = await http.open(head)
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for _ in range(MAX_BODY_BYTES // 0x10000 + 2):
        writer.write(piece)
        await writer.drain()
    first = await asyncio.wait_for(reader.readline(), 5)
    assert b"400" in first
    writer.close()


async def test_null_means_not_given_as_in_go(http: Http) -> None:
    body = b'{"Memory":null,"LogConfig":null,"PortBindings":{"80/tcp":null},"Nonsense":1,"RestartPolicy":{"Name":null}}'
    got = await http.ask_json("/host-config", body)
    assert got.status == 200
    config = json.loads(got.body)
    assert config["Memory"] == 0
    assert config["PortBindings"] == {"80/tcp": None}
    assert config["LogConfig"] == {"Type": "", "Config": None}
    assert config["RestartPolicy"]["Name"] == "no"


async def test_no_body_at_all_is_an_empty_object(http: Http) -> None:
    assert (await http.ask("POST", "/host-config")).status == 200


# --- clients that half-close or vanish --------------------------------------------------------------------------


async def test_a_client_that_half_closes_after_its_request_gets_its_answer(http: Http) -> None:
    reader, writer = await http.open("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.write_eof()
    got = Answer(await asyncio.wait_for(reader.read(), 5))
    assert (got.status, got.body) == (200, b'"late"\n')
    writer.close()


async def test_a_half_closed_connection_without_a_request_is_closed(http: Http) -> None:
    reader, writer = await http.open("")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_stream_ends_when_its_client_vanishes(http: Http) -> None:
    reader, writer = await http.open("POST /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    await asyncio.wait_for(http.seen.cancelled.wait(), 5)


async def test_a_stream_ends_when_its_client_half_closed_first_and_vanished_then(http: Http) -> None:
    reader, writer = await http.open("POST /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.write_eof()
    await asyncio.sleep(0.05)
    assert not http.seen.cancelled.is_set()
    writer.close()
    await asyncio.wait_for(http.seen.cancelled.wait(), 5)


async def test_a_change_is_finished_although_its_client_left(http: Http) -> None:
    _, writer = await http.open("POST /change HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    assert not http.seen.finished.is_set()
    http.seen.go_on.set()
    await asyncio.wait_for(http.seen.finished.wait(), 5)


# --- hijacked connections ---------------------------------------------------------------------------------------


async def test_an_upgrade_is_answered_with_nothing_but_the_four_lines(http: Http) -> None:
    reader, writer = await http.open(f"POST /v1.44/echo HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head == (
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    writer.close()


@pytest.mark.parametrize("body", [b"", b"{}"], ids=["no-body", "body"])
async def test_input_sent_with_the_request_is_not_lost(http: Http, body: bytes) -> None:
    head = f"POST /echo HTTP/1.1\r\nHost: x\r\n{UPGRADE}Content-Length: {len(body)}\r\n\r\n".encode()
    reader, writer = await http.open(head + body + b"early")
    writer.write_eof()
    raw = await asyncio.wait_for(reader.read(), 5)
    assert raw.partition(b"\r\n\r\n")[2] == b"<early>end"
    writer.close()


async def test_without_an_upgrade_the_same_raw_stream_follows_a_200(http: Http) -> None:
    reader, writer = await http.open("POST /echo HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    writer.write(b"late")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b"<late>end"
    writer.close()


async def test_a_half_close_ends_the_input_and_the_output_goes_on(http: Http) -> None:
    reader, writer = await http.open(f"POST /echo HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(7), 5) == b"<hello>"
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b"end"
    writer.close()


@pytest.mark.parametrize("half_close_first", [False, True])
async def test_a_vanished_client_of_a_silent_session_is_noticed(http: Http, half_close_first: bool) -> None:
    reader, writer = await http.open(f"POST /silent HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    if half_close_first:
        writer.write_eof()
        await asyncio.sleep(0.05)
        assert not http.seen.connection_gone.is_set()
    writer.close()
    await asyncio.wait_for(http.seen.connection_gone.wait(), 5)


async def test_a_client_that_does_not_read_slows_the_writer_and_nothing_piles_up(http: Http) -> None:
    reader, writer = await http.open(f"POST /flood HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")
    await asyncio.sleep(0.2)
    assert not http.seen.connection_gone.is_set()
    assert (await http.ask("GET", "/slow")).status == 200
    writer.transport.abort()
    await asyncio.wait_for(http.seen.connection_gone.wait(), 5)
    del reader


async def test_a_bug_inside_a_session_closes_it_and_writes_no_http_into_it(http: Http) -> None:
    reader, writer = await http.open(f"POST /broken-session HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")
    raw = await asyncio.wait_for(reader.read(), 5)
    assert raw.partition(b"\r\n\r\n")[2] == b""
    writer.close()


async def test_attach_errors_are_raw_text(http: Http) -> None:
    reader, writer = await http.open(f"POST /refused HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")
    assert await asyncio.wait_for(reader.read(), 5) == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nNo such container: x\r\n"
    )
    writer.close()


async def test_hijacked_connections_are_forgotten_when_they_end(http: Http) -> None:
    for _ in range(5):
        reader, writer = await http.open(f"POST /echo HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
    async with asyncio.timeout(5):
        while http.server.open_connections:
            await asyncio.sleep(0.01)


# --- heads ------------------------------------------------------------------------------------------------------


async def test_request_lines_and_headers_may_be_as_long_as_go_allows(http: Http) -> None:
    labels = "&".join(f"filter=label%3Dcom.example.{number}" for number in range(20_000))
    assert len(labels) > 600_000
    assert (await http.ask("GET", f"/slow?{labels}")).status == 200
    logins = f"X-Registry-Config: {'e' * 900_000}\r\n"
    assert (await http.ask("GET", "/slow", headers=logins)).status == 200
    many = "".join(f"X-{number}: a\r\n" for number in range(300))
    assert (await http.ask("GET", "/slow", headers=many)).status == 200


async def test_a_head_that_is_longer_is_431(http: Http) -> None:
    assert (await http.ask("GET", f"/slow?a={'a' * 1_100_000}")).status == 431
    assert (await http.ask("GET", "/slow", headers=f"X-A: {'a' * 1_100_000}\r\n")).status == 431


async def test_dots_in_paths_are_led_away(http: Http) -> None:
    got = await http.ask("GET", "/v1.44/x/../slow")
    assert (got.status, got.headers["location"]) == (301, "/v1.44/slow")


async def test_a_query_that_go_does_not_parse_is_refused(http: Http) -> None:
    got = await http.ask("GET", "/slow?a=1;b=2")
    assert (got.status, got.message) == (400, "invalid semicolon separator in query")


async def test_a_chunked_body_of_nothing_is_no_json(http: Http) -> None:
    head = "POST /host-config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    reader, writer = await http.open(f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    got = Answer(await asyncio.wait_for(reader.read(), 5))
    writer.close()
    assert (got.status, got.message) == (400, "invalid JSON: got EOF while reading request body")
