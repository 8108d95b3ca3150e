"""Asks the daemon over HTTP, one connection a request; every failure is a `CommandFailure`."""

import errno
import http.client
import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from bennu.cli.endpoint import DEFAULT_HOST
from bennu.cli.failure import ApiFailure, CannotConnect, CommandFailure

if TYPE_CHECKING:
    from bennu.cli.tls import TlsFiles

API_PREFIX: Final = "/v1.51"
PLAIN_PORT: Final = 2375

Query = Mapping[str, "str | int | bool | None"]


def segment(text: str) -> str:
    """Quote `text` as one segment of a path."""
    return quote(text, safe=":@")


class ApiClient:
    """Talks to the daemon at `host`: `unix:///path` or `tcp://host:port`."""

    def __init__(self, host: str, tls: "TlsFiles | None" = None) -> None:
        self.host = host
        self.tls = tls

    def call(self, method: str, path: str, *, query: Query | None = None) -> bytes:
        """Answer the body of an answer. Raises: ApiFailure for a status of 400 and above; CannotConnect."""
        connection = http.client.HTTPConnection("bennu")
        connection.sock = self._connect()
        try:
            target = API_PREFIX + path + encode_query(query)
            connection.request(method, target, headers={"User-Agent": "bennu", "Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._explain(error) from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiFailure(answer.status, read_message(answer.status, body))
        return body

    def json(self, method: str, path: str, *, query: Query | None = None) -> Any:
        """Answer the body as decoded JSON; raises as `call`."""
        text = self.call(method, path, query=query)
        try:
            return json.loads(text)
        except ValueError:
            raise CommandFailure(f"cannot understand the daemon's answer: {text[:200]!r}") from None

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.host)
        try:
            if parts.scheme == "unix":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(parts.netloc + parts.path)
                return sock
            if parts.scheme == "tcp" and self.tls is not None:
                from bennu.cli import tls

                return tls.connect(parts.hostname or "127.0.0.1", parts.port or tls.DEFAULT_PORT, self.tls)
            if parts.scheme in ("tcp", "http"):
                return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or PLAIN_PORT))
        except OSError as error:
            raise CannotConnect(explain_connect(self.host, error)) from None
        except ValueError:  # of a port that is no number, of a name that cannot be one
            pass
        raise CommandFailure(f"unable to parse docker host `{self.host}`: use unix:///path or tcp://host:port")

    def _explain(self, error: Exception) -> CommandFailure:
        if self.tls is not None:
            from bennu.cli import tls

            return CommandFailure(tls.explain(self.host, error))
        return CommandFailure(f"error during connect to {self.host}: {error}")


def encode_query(query: Query | None) -> str:
    """Write a query string; None and False are left out, True is 1."""
    given = {name: value for name, value in (query or {}).items() if value is not None and value is not False}
    return "?" + urlencode({name: "1" if value is True else value for name, value in given.items()}) if given else ""


def read_message(status: int, body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    return str(message).strip() or f"status {status} without a message"


def explain_connect(host: str, error: OSError) -> str:
    start = "Cannot connect to the Bennu daemon at " + host
    if error.errno == errno.EACCES:
        return f"{start}: permission denied. Use sudo, or join the group that owns the socket."
    hint = "Start it with: sudo bennud"
    if host != DEFAULT_HOST:
        hint += f" -H {host}  (the address comes from -H, BENNU_HOST or DOCKER_HOST)"
    return f"{start}: {(error.strerror or str(error)).lower()}. Is bennud running?\n{hint}"
