"""A small blocking HTTP/1.1 client for the engine's socket.

`http.client` would cost a fifth of the start-up budget and hides the socket that attach and exec take over, so the few
rules that are needed live here: one connection a request, chunked bodies both ways, and the raw socket after a 101.
"""

import errno
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from bennu.cli.failure import ApiFailure, CannotConnect, Failure

if TYPE_CHECKING:
    from bennu.cli.tls import TlsFiles

DEFAULT_HOST: Final = "unix:///run/bennu/bennu.sock"
API_PREFIX: Final = "/v1.47"
READ_SIZE: Final = 65536
MAX_HEAD: Final = 1 << 20

Query = Mapping[str, "str | int | bool | list[str] | None"]
Body = bytes | Iterable[bytes]


def find_host(given: str | None) -> str:
    """The daemon's address: the option, then BENNU_HOST, then DOCKER_HOST, then the default socket."""
    host = given or os.environ.get("BENNU_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    return host if "://" in host else f"tcp://{host}"


def segment(text: str) -> str:
    """Quote `text` as one segment of a path."""
    return quote(text, safe=":@")


def decode(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Failure(f"cannot understand the daemon's answer: {text[:200]!r}") from None


class Answer:
    """One response. The head has been read; the body is read by exactly one of the methods below."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""  # received and not yet consumed
        self.status = 0
        self.headers: dict[str, str] = {}

    def read_head(self) -> None:
        while b"\r\n\r\n" not in self.rest:
            data = self._receive()
            if not data or len(self.rest) > MAX_HEAD:
                raise Failure("the daemon closed the connection without an answer")
            self.rest += data
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ", 2)[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        if self.status == 100:
            self.read_head()

    def chunks(self) -> Iterator[bytes]:
        """The body in the pieces in which it arrives. Closes the connection at its end."""
        try:
            if self.status in (204, 304):
                return
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                yield from self._chunked()
            else:
                yield from self._plain(int(self.headers.get("content-length", "-1")))
        finally:
            self.close()

    def _plain(self, left: int) -> Iterator[bytes]:
        """`left` bytes, or everything up to the end of the stream when negative."""
        while left != 0:
            data = self._some(left if left > 0 else READ_SIZE)
            if not data:
                return
            left -= len(data)
            yield data

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = int(self._line().split(b";")[0] or b"0", 16)
            if size == 0:
                return
            while size > 0:
                data = self._some(size)
                if not data:
                    raise Failure("the daemon's answer ended too early")
                size -= len(data)
                yield data
            self._line()

    def _some(self, most: int) -> bytes:
        if not self.rest:
            self.rest = self._receive()
        data, self.rest = self.rest[:most], self.rest[most:]
        return data

    def _receive(self) -> bytes:
        """What has arrived; b"" at the end of the stream."""
        try:
            return self.sock.recv(READ_SIZE)
        except OSError as error:
            raise Failure(f"lost the connection to the daemon: {error.strerror or error}") from None

    def _line(self) -> bytes:
        while b"\r\n" not in self.rest:
            data = self._receive()
            if not data:
                raise Failure("the daemon's answer ended too early")
            self.rest += data
        line, self.rest = self.rest.split(b"\r\n", 1)
        return line

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> Any:
        text = self.read()
        return decode(text) if text.strip() else None

    def objects(self) -> Iterator[Any]:
        """The body as a stream of JSON values, one a line."""
        held = b""
        for data in self.chunks():
            *lines, held = (held + data).split(b"\n")
            yield from (decode(line) for line in lines if line.strip())
        if held.strip():
            yield decode(held)

    def close(self) -> None:
        self.sock.close()


class Client:
    """Asks the daemon at `host`. Every failure comes out as a `Failure`."""

    def __init__(self, host: str, tls: "TlsFiles | None" = None) -> None:
        self.host = host
        self.tls = tls
        self._tls_problems: list[Exception] = []  # of the last connection

    def connect(self) -> socket.socket:
        parts = urlsplit(self.host)
        try:
            if parts.scheme == "unix":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(parts.netloc + parts.path)
                return sock
            if parts.scheme == "tcp" and self.tls is not None:
                from bennu.cli import tls

                self._tls_problems = []
                address = (parts.hostname or "127.0.0.1", parts.port or tls.DEFAULT_PORT)
                return tls.connect(*address, self.tls, self._tls_problems)
            if parts.scheme in ("tcp", "http"):
                return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 2375))
        except OSError as error:
            raise CannotConnect(explain_connect(self.host, error)) from None
        except ValueError:  # of a port that is no number, of a name that cannot be one
            pass
        raise Failure(f"unable to parse docker host `{self.host}`: use unix:///path or tcp://host:port")

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json_body: Any = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and read the head of its answer. Raises: ApiFailure for a status of 400 and above."""
        target = API_PREFIX + path + encode_query(query)
        fields = {"Host": "bennu", "User-Agent": "bennu", "Connection": "close", **(headers or {})}
        if json_body is not None:
            body = json.dumps(json_body, separators=(",", ":")).encode()
            fields["Content-Type"] = "application/json"
        if isinstance(body, bytes) or (body is None and method != "GET"):
            fields["Content-Length"] = str(len(body or b""))
        elif body is not None:
            fields["Transfer-Encoding"] = "chunked"
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        answer = Answer(self.connect())
        try:
            self._send(answer.sock, f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode(), body)
            answer.read_head()
        except (OSError, Failure) as error:
            answer.close()
            raise self._explain(error) from None
        if answer.status >= 400:
            raise ApiFailure(answer.status, read_message(answer))
        return answer

    def _explain(self, error: OSError | Failure) -> Failure:
        if self._tls_problems:
            from bennu.cli import tls

            return Failure(tls.explain(self.host, self._tls_problems[-1]))
        if isinstance(error, Failure):
            return error
        return Failure(f"error during connect to {self.host}: {error.strerror or error}")

    def _send(self, sock: socket.socket, head: bytes, body: Body | None) -> None:
        if body is None or isinstance(body, bytes):
            sock.sendall(head + (body or b""))
            return
        sock.sendall(head)
        try:
            for data in body:
                if data:
                    sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # the daemon refused before it read everything: its answer says why

    def json(self, method: str, path: str, *, query: Query | None = None, json_body: Any = None) -> Any:
        return self.call(method, path, query=query, json_body=json_body).json()

    def do(self, method: str, path: str, *, query: Query | None = None, json_body: Any = None) -> int:
        """Send a request whose answer has no body of interest; its status."""
        answer = self.call(method, path, query=query, json_body=json_body)
        answer.read()
        return answer.status

    def hijack(self, path: str, *, query: Query | None = None, json_body: Any = None) -> Answer:
        """Send a POST that turns the connection into a raw stream. `rest` holds what arrived with the head."""
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = self.call("POST", path, query=query, json_body=json_body, headers=upgrade)
        if answer.status != 101:
            answer.close()
            raise Failure(f"unable to upgrade to tcp, received {answer.status}")
        return answer


def encode_query(query: Query | None) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        if value is None or value is False:
            continue
        for one in value if isinstance(value, list) else [value]:
            pairs.append((name, "1" if one is True else str(one)))
    return "?" + urlencode(pairs) if pairs else ""


def read_message(answer: Answer) -> str:
    text = answer.read().decode("utf-8", "replace").strip()
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    return str(message).strip() or f"status {answer.status} without a message"


def explain_connect(host: str, error: OSError) -> str:
    start = "Cannot connect to the Bennu daemon at " + host
    if error.errno == errno.EACCES:
        return f"{start}: permission denied. Use sudo, or join the group that owns the socket."
    hint = "Start it with: sudo bennud"
    if host != DEFAULT_HOST:
        hint += f" -H {host}  (the address comes from -H, BENNU_HOST or DOCKER_HOST)"
    return f"{start}: {(error.strerror or str(error)).lower()}. Is bennud running?\n{hint}"
