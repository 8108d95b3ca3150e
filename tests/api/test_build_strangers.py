"""Strangers on the connections of BuildKit's protocol: whatever they send, the daemon goes on and keeps nothing."""

import contextlib
import random
import socket
import time
from pathlib import Path

import pytest

from bennu.build.wire.http2 import PREFACE
from bennu.build.wire.messages import ControlSolveRequest, ExporterMessage
from support.daemon import Daemon
from support.waiting import wait_for

pytestmark = pytest.mark.slow
HEAD = "POST /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{more}\r\n"
OFFERS = "X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/DiffCopy\r\n"
SESSION = "X-Docker-Expose-Session-Uuid: {id}\r\n" + OFFERS
METHODS = (
    *("Control/Solve", "Control/Status", "Control/Session", "Control/Prune"),
    *("frontend.LLBBridge/Solve", "frontend.LLBBridge/Return"),
)
SEED = 20261201
SPAN_S = 6


def upgraded(daemon: Daemon, path: str, more: str = "") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(str(daemon.socket))
    connection.sendall(HEAD.format(path=path, more=more).encode())
    answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), answer
    assert b"\r\nUpgrade: h2c\r\n" in answer and b"\r\nConnection: Upgrade\r\n" in answer
    return connection


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def literal(name: str, value: str) -> bytes:
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call(chance: random.Random, stream: int) -> bytes:
    """Make a call of a service of ours with a message that may be one."""
    path = f"/moby.buildkit.v1.{chance.choice(METHODS)}"
    exporter = ExporterMessage(chance.choice(["moby", "local", "x"]))
    request = ControlSolveRequest("r", session=chance.choice(["", "none", "s"]), exporters=[exporter])
    message = chance.choice([request.encode(), chance.randbytes(chance.randint(0, 60))])
    length = chance.choice([len(message), len(message) + 9, 2**32 - 1])
    headers = b"\x83\x86" + literal(":path", path) + literal("buildkit-controlapi-buildid", chance.choice(["", "r"]))
    data = bytes([chance.choice([0, 0, 0, 1])]) + length.to_bytes(4) + message
    return frame(1, 4, stream, headers) + frame(0, chance.choice([0, 1]), stream, data)


def noise(chance: random.Random) -> bytes:
    pieces = [frame(4, 0, 0)]
    for number in range(chance.randint(1, 6)):
        pieces.append(call(chance, 2 * number + 1))
        kind = chance.choice([0, 1, 3, 4, 6, 7, 8, 9, 200])
        if chance.random() < 0.5:
            payload = chance.randbytes(chance.choice([0, 4, 6, 8, 30]))
            pieces.append(frame(kind, chance.randint(0, 255), chance.randint(0, 9), payload))
    return b"".join(pieces)


@pytest.mark.parametrize("path", ["grpc", "session"])
def test_a_connection_that_is_not_upgraded_is_refused(daemon: Daemon, path: str) -> None:
    assert daemon.request("POST", f"/{path}")[0] == 400
    assert daemon.request("POST", f"/{path}", None, {"Connection": "Upgrade", "Upgrade": "tcp"})[0] == 400
    assert daemon.request("POST", "/session", None, {"Connection": "Upgrade", "Upgrade": "h2c"})[0] == 400  # without id


def test_whatever_comes_on_these_connections_the_daemon_goes_on(daemon: Daemon) -> None:
    chance = random.Random(SEED)
    until = time.monotonic() + SPAN_S
    count = 0
    while time.monotonic() < until:
        count += 1
        path = chance.choice(["grpc", "session"])
        more = SESSION.format(id=f"s{count}") if path == "session" else ""
        with contextlib.closing(upgraded(daemon, path, more)) as connection, contextlib.suppress(OSError):
            connection.sendall((PREFACE if path == "grpc" else b"") + noise(chance))
            connection.settimeout(0.02)
            connection.recv(65536)
    assert daemon.request("GET", "/_ping")[0] == 200
    assert count > 20
    log = daemon.log()
    assert "Traceback" not in log, log[-4000:]
    wait_for(lambda: not leftovers(daemon.data_root / "build"), what="an end of all that was begun")


def leftovers(root: Path) -> list[Path]:
    """List what builds under way have of folders."""
    found = [path for name in ("work", "contexts") for path in (root / name).glob("*")]
    return [path for path in found if not (path / "told").exists()]
