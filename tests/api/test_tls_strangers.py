"""Clients over TCP that are not ours, one kind after the other: none gets a byte of an answer."""

import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.test_tls import ALICE, free_port, tls_options
from bennu.api.http.tls_front import HANDSHAKE_S, MOST_HANDSHAKES
from support import traces
from support.certificates import Authority
from support.daemon import Daemon
from support.waiting import wait_for

REQUEST = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OLD = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
NEW = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@dataclass
class Front:
    daemon: Daemon
    port: int
    ours: Authority


@pytest.fixture(scope="module")
def front(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A bennud that listens on TCP, and the authority it trusts."""
    folder = tmp_path_factory.mktemp("pki")
    ours, theirs = Authority(folder / "ours"), Authority(folder / "theirs")
    server = ours.server("127.0.0.1")
    ours.client("alice", ALICE)
    ours.issue("server-only", ALICE, "extendedKeyUsage=serverAuth\n")
    ours.issue("expired", ALICE, "extendedKeyUsage=clientAuth\n", days=-1)
    theirs.client("alice", ALICE)  # of an authority that has the name of ours
    port = free_port()
    daemon = Daemon(options=[*tls_options(server), "-H", f"tcp://127.0.0.1:{port}"])
    try:
        yield Front(daemon.start(), port, ours)
    finally:
        traces.discard(daemon)


def ask(front: Front, folder: Path | None, versions: tuple[ssl.TLSVersion, ssl.TLSVersion], ciphers: str = "") -> bytes:
    """All that it says to a request. Raises: OSError."""
    context = ssl.create_default_context(cafile=str(front.ours.folder / "ca.pem"))
    context.minimum_version, context.maximum_version = versions
    if ciphers:
        context.set_ciphers(ciphers)
    if folder:
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with (
        socket.create_connection(("127.0.0.1", front.port), timeout=HANDSHAKE_S) as tcp,
        context.wrap_socket(tcp, server_hostname="127.0.0.1") as session,
    ):
        session.sendall(REQUEST)
        said = b""
        while piece := session.recv(1000):
            said += piece
        return said


@pytest.mark.parametrize("version", NEW)
def test_a_client_of_ours_is_answered_in_either_version(front: Front, version: ssl.TLSVersion) -> None:
    assert ask(front, front.ours.folder / "alice", (version, version)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("version", NEW)
@pytest.mark.parametrize("who", ["", "ours/server-only", "ours/expired", "theirs/alice"])
def test_a_certificate_that_is_not_a_clients_of_ours_gets_no_byte(
    front: Front, who: str, version: ssl.TLSVersion
) -> None:
    folder = front.ours.folder.parent / who if who else None
    with pytest.raises(OSError):  # SSLError, or a reset
        ask(front, folder, (version, version))


@pytest.mark.parametrize(
    ("versions", "ciphers"),
    [
        pytest.param(OLD, "ALL:@SECLEVEL=0", id="TLS 1.0 and 1.1"),
        pytest.param((NEW[0], NEW[0]), "eNULL:@SECLEVEL=0", id="without encryption"),
        pytest.param((NEW[0], NEW[0]), "aNULL:@SECLEVEL=0", id="without authentication"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_protects_nothing_is_not_spoken(
    front: Front, versions: tuple[ssl.TLSVersion, ssl.TLSVersion], ciphers: str
) -> None:
    with pytest.raises(ssl.SSLError) as refused:
        ask(front, front.ours.folder / "alice", versions, ciphers)
    assert "ALERT" in (refused.value.reason or ""), "refused by the server, not by what is tested with"


def test_nobody_negotiates_anew(front: Front) -> None:
    folder = front.ours.folder / "alice"
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{front.port}", "-tls1_2", "-CAfile", "ca.pem"]
    client = subprocess.Popen(
        [*argv, "-cert", "cert.pem", "-key", "key.pem"],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert client.stdin is not None and client.stdout is not None
    line = ""
    while "Verify return code" not in line:
        line = client.stdout.readline()
        assert line, "it ended before it began"
    client.stdin.write("R\n")
    client.stdin.flush()
    said, _ = client.communicate(timeout=HANDSHAKE_S)
    assert "no renegotiation" in said


def test_a_flood_of_strangers_takes_few_descriptors_and_keeps_nobody_out(front: Front) -> None:
    before, over = traces.open_files(front.daemon), threading.Event()
    silent = [socket.create_connection(("127.0.0.1", front.port)) for _ in range(MOST_HANDSHAKES * 2)]

    def flood() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", front.port)) as tcp:
                tcp.send(os.urandom(50))

    floods = [threading.Thread(target=flood) for _ in range(2)]
    for one in floods:
        one.start()
    try:
        for _ in range(5):
            began = time.monotonic()
            assert ask(front, front.ours.folder / "alice", NEW).startswith(b"HTTP/1.1 200")
            assert time.monotonic() - began < HANDSHAKE_S / 2
            assert traces.open_files(front.daemon) <= before + MOST_HANDSHAKES + 40
    finally:
        over.set()
        for one in floods:
            one.join()
        for connection in silent:
            connection.close()
    wait_for(lambda: traces.open_files(front.daemon) <= before, what="all descriptors to be closed")
