"""The probes of a container's health and readiness, and the meaning of their answers. Pure.

A command, by Docker's `Config.Healthcheck`; or, by Bennu's labels, an HTTP request or a connection, which need no
process and nothing in the image. `PREFIX` is `bennu.health` (which takes the place of Docker's command) or
`bennu.ready`:

    PREFIX.http=http://:8080/health    PREFIX.http.method=HEAD    PREFIX.http.status=200-299,304
    PREFIX.http.header.NAME=VALUE      PREFIX.tcp=:5432           bennu.ready.cmd=SCRIPT

Without a host it is the container's 127.0.0.1. A label with nothing in it is no label, so that one of an image can be
taken back.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.errors import InvalidParameter

OUTPUT_BYTES: Final = 4096
NUMBER: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
URL: Final = re.compile(
    r"(?:http://)?(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]*)(?::(?P<port>[0-9]{1,5}))?(?P<path>[/?][!-~]*)?"
)
METHOD: Final = re.compile(r"[A-Z]{1,20}")
HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE: Final = re.compile(r"[\t -~]*")
HEALTH, READY = "bennu.health", "bennu.ready"
KNOWN: Final = {
    HEALTH: ("http", "tcp"),
    READY: ("http", "tcp", "cmd", "within"),  # `within` is of services: how long one waits for it at most
}


@dataclass(frozen=True, slots=True)
class CommandProbe:
    """A command run in the container; exit code 0 is a success."""

    args: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.args)


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """An HTTP request from the daemon, inside the container's network namespace. `host` is an address."""

    host: str
    port: int
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    expected: tuple[tuple[int, int], ...] = ((200, 399),)  # ranges of status codes

    def __str__(self) -> str:
        return f"{self.method} http://{join_address(self.host, self.port)}{self.path}"


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A connection, whose acceptance is a success. `host` is an address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"connect to {join_address(self.host, self.port)}"


Probe = CommandProbe | HttpProbe | TcpProbe


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def command_probe(test: Sequence[str] | None, shell: Sequence[str] | None = None) -> CommandProbe | None:
    """Parse `["CMD", …]` or `["CMD-SHELL", script]`; None for NONE, nothing, and words Docker does not know."""
    match list(test or ()):
        case ["CMD", first, *rest]:
            return CommandProbe((first, *rest))
        case ["CMD-SHELL", *script]:
            return CommandProbe((*(shell or ("/bin/sh", "-c")), *script))
    return None


# --- labels -----------------------------------------------------------------------------------------------------------


def probe_from_labels(prefix: str, labels: Mapping[str, str]) -> Probe | None:
    """Make the probe described by the labels below `prefix`; None: they describe none. Raises: InvalidParameter."""
    mine = {name: value for name, value in labels.items() if name.startswith(f"{prefix}.") and value}
    asked = [f"{prefix}.{kind}" for kind in ("http", "tcp", "cmd") if f"{prefix}.{kind}" in mine]
    for label in mine:
        _check_known(prefix, label, asked)
    if len(asked) > 1:
        raise InvalidParameter(f"label {asked[1]}: there is {asked[0]}, too, but only one probe can decide")
    if not asked:
        return None
    label, value = asked[0], mine[asked[0]]
    match label.rpartition(".")[2]:
        case "http":
            return _http_probe(label, value, mine)
        case "tcp":
            return TcpProbe(*_address(label, value))
        case _:
            return CommandProbe(("/bin/sh", "-c", value))


def _check_known(prefix: str, label: str, asked: Sequence[str]) -> None:
    kind, *detail = label.removeprefix(f"{prefix}.").split(".", 2)
    is_detail = kind == "http" and (detail in (["method"], ["status"]) or (len(detail) == 2 and detail[0] == "header"))
    if kind not in KNOWN[prefix] or (detail and not is_detail):
        known = ", ".join(f"{prefix}.{name}" for name in KNOWN[prefix])
        raise InvalidParameter(f"label {label}: there is no such label (known are {known})")
    if is_detail and f"{prefix}.http" not in asked:
        raise InvalidParameter(f"label {label}: there is no {prefix}.http that it could be about")


def _http_probe(label: str, url: str, labels: Mapping[str, str]) -> HttpProbe:
    parts = URL.fullmatch(url)
    if parts is None:
        raise InvalidParameter(f"label {label}: {url!r} is not an http:// address")
    host, port = _address(label, f"{parts['host']}:{parts['port'] or 80}")
    path = parts["path"] or "/"
    headers = tuple(
        (name.removeprefix(f"{label}.header."), value)
        for name, value in sorted(labels.items())
        if name.startswith(f"{label}.header.")
    )
    method = labels.get(f"{label}.method", "GET").upper()
    expected = _status_ranges(f"{label}.status", labels.get(f"{label}.status", "200-399"))
    if not METHOD.fullmatch(method):
        raise InvalidParameter(f"label {label}.method: {method!r} is not a method")
    for name, value in headers:
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise InvalidParameter(f"label {label}.header.{name}: not a header that can be sent")
    return HttpProbe(host, port, path if path.startswith("/") else f"/{path}", method, headers, expected)


def _address(label: str, text: str) -> tuple[str, int]:
    """Parse an IP address and port; an empty host and `localhost` are 127.0.0.1.

    Other names are refused, because no process in the container is asked for their meaning there.
    """
    host, _, port = text.rpartition(":")
    if not NUMBER.fullmatch(port) or not 0 < int(port) < 65536:
        raise InvalidParameter(f"label {label}: {text!r} names no port")
    host = host.removeprefix("[").removesuffix("]")
    if host in ("", "localhost"):
        return "127.0.0.1", int(port)
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        raise InvalidParameter(
            f"label {label}: {host!r} is not an IP address; leave it out to mean the container itself"
        ) from None


def _status_ranges(label: str, text: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for word in text.split(","):
        first, _, last = word.strip().partition("-")
        if not NUMBER.fullmatch(first) or not NUMBER.fullmatch(last or first):
            raise InvalidParameter(f"label {label}: {text!r} is not a list of status codes such as 200-299,304")
        low, high = int(first), int(last or first)
        if not 100 <= low <= high <= 599:
            raise InvalidParameter(f"label {label}: {word.strip()!r} holds no status code from 100 to 599")
        ranges.append((low, high))
    return tuple(ranges)


# --- HTTP, as far as a probe needs it ---------------------------------------------------------------------------------


def http_request(probe: HttpProbe) -> bytes:
    """Render the whole request, for a connection of its own."""
    headers = {"Host": join_address(probe.host, probe.port), "User-Agent": "bennu-health", "Connection": "close"}
    asked = {name.lower() for name, _ in probe.headers}
    kept = [(name, value) for name, value in headers.items() if name.lower() not in asked]
    lines = [f"{probe.method} {probe.path} HTTP/1.1", *(f"{name}: {value}" for name, value in (*kept, *probe.headers))]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def is_whole(probe: HttpProbe, answer: bytes) -> bool:
    """Tell whether the answer is complete although the server keeps the connection open against its instruction."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if len(answer) > OUTPUT_BYTES:
        return True
    if not end:
        return False
    if probe.method == "HEAD" or b" 204" in head[:13] or b" 304" in head[:13]:
        return True
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]{1,9})", head)
    if length:
        return len(body) >= int(length[1])
    return body.endswith(b"0\r\n\r\n") and bool(re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head))


def judge_answer(probe: HttpProbe, answer: bytes) -> tuple[int, bytes]:
    """Return exit code and output of an answer. Only the status decides."""
    words = answer.partition(b"\r\n")[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not re.fullmatch(rb"[0-9]{3}", words[1]):
        return 1, b"the answer is not HTTP" if answer else b"the connection was closed without an answer"
    status = int(words[1])
    fits = any(first <= status <= last for first, last in probe.expected)
    body = answer.partition(b"\r\n\r\n")[2]
    return (0 if fits else 1), f"HTTP {status}: ".encode() + body
