"""The API over TCP: real certificates, the unmodified docker command, and clients that are not let in."""

import contextlib
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.tls import TLSConfig

from bennu.api.http.tls_front import HANDSHAKE_S, MOST_HANDSHAKES
from bennu.cli import tls
from bennu.daemon.hosts import Tls, open_context
from bennu.tls import show_subject
from support import images
from support.certificates import Authority
from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for

MakeDaemon = Callable[..., Daemon]
ALICE = "/O=Operations/CN=alice"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki") / "ours")
    authority.server("127.0.0.1")
    authority.client("alice", ALICE)
    return authority


def tls_options(folder: Path) -> list[str]:
    return ["--tlsverify", *(f"--tls{what}={folder}/{file}.pem" for what, file in FILES.items())]


FILES = {"cacert": "ca", "cert": "cert", "key": "key"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Remote:
    """A bennud on a unix socket and on TCP, and clients of the latter."""

    def __init__(self, daemon: Daemon, port: int, authority: Authority) -> None:
        self.daemon = daemon
        self.port = port
        self.authority = authority
        self.host = f"tcp://127.0.0.1:{port}"

    def client(self, cli: Cli, folder: Path) -> Cli:
        certificates = {"DOCKER_HOST": self.host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
        return Cli(cli.program, {**cli.environment, **certificates})

    def alice(self, cli: Cli) -> Cli:
        return self.client(cli, self.authority.folder / "alice")


@pytest.fixture
def remote(make_daemon: MakeDaemon, authority: Authority) -> Iterator[Remote]:
    port = free_port()
    options = [*tls_options(authority.folder / "server"), "-H", f"tcp://127.0.0.1:{port}"]
    daemon = make_daemon(options=options)
    images.import_base(daemon.docker, "busybox")
    yield Remote(daemon, port, authority)
    for container in daemon.docker("ps", "-aq").lines:
        daemon.docker("rm", "-f", container)


def test_a_client_with_a_certificate_does_what_it_does_at_home(remote: Remote) -> None:
    client = remote.alice(remote.daemon.docker)
    assert client("run", "--rm", "--network=none", "busybox", "sh", "-c", "echo hello; exit 3", ok=False).code == 3
    # The client closes its sending side and still reads what comes after it.
    said = client("run", "-i", "--rm", "--network=none", "busybox", "sh", "-c", "cat; sleep 1.5; wc -c", stdin="abc\n")
    assert said.out == "abc\n0\n"
    much = os.urandom(3_000_000).hex()
    assert client("run", "-i", "--rm", "--network=none", "busybox", "cat", stdin=much).out == much
    client("run", "-d", "--name", "web", "--network=none", "busybox", "sh", "-c", "echo up; exec sleep 1000")
    assert client("exec", "web", "echo", "inside").out == "inside\n"
    assert client("exec", "-i", "web", "sha256sum", stdin="x").out.split()[0].startswith("2d711642")
    with client.running("logs", "-f", "web") as following:
        assert following.stdout.readline() == b"up\n"
        client("kill", "web")
        assert following.wait(10) == 0
    assert client("wait", "web").out == "137\n"


def test_the_certificate_of_a_death_names_the_certificate_of_who_asked(remote: Remote) -> None:
    remote.daemon.docker("run", "-d", "--name", "web", "--network=none", "busybox", "sleep", "1000")
    remote.alice(remote.daemon.docker)("kill", "web")
    remote.daemon.docker("wait", "web")
    asked = json.loads(remote.daemon.bennu("why", "--json", "web").out)[0]["AskedBy"]
    subject = "O=Operations, CN=alice"
    assert asked == {"Kind": "client", "Uid": None, "Pid": None, "Command": "", "Subject": subject}
    told = remote.alice(remote.daemon.bennu)("why", "web").out
    assert f"{subject} over TLS" in told
    assert re.search(rf"^Asked by: +{subject} over TLS$", told, re.MULTILINE)


def test_docker_py_and_its_raw_streams(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # these would win over what the client is told
        monkeypatch.delenv(name, raising=False)
    folder = remote.authority.folder / "alice"
    files = (str(folder / "cert.pem"), str(folder / "key.pem"))
    verified = TLSConfig(client_cert=files, ca_cert=str(folder / "ca.pem"), verify=True)
    client = docker.DockerClient(base_url=remote.host, tls=verified)
    try:
        container = client.containers.run("busybox", ["sleep", "1000"], detach=True, network_mode="none")
        assert container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True).output == (b"out\n", b"err\n")
        container.remove(force=True)
    finally:
        client.close()


def test_who_has_no_certificate_of_ours_is_not_let_in(remote: Remote, tmp_path: Path) -> None:
    docker = remote.daemon.docker
    strangers = Authority(tmp_path / "theirs")
    stranger = strangers.client("mallory", "/CN=mallory")
    (stranger / "ca.pem").write_bytes((remote.authority.folder / "ca.pem").read_bytes())
    refused = remote.client(docker, stranger)("ps", ok=False)
    assert refused.code == 1
    assert "unknown certificate authority" in refused.err
    assert "remote error: tls: unknown ca" in remote.client(remote.daemon.bennu, stranger)("why", "web", ok=False).err
    plain = Cli(docker.program, {**docker.environment, "DOCKER_HOST": remote.host})("ps", ok=False)
    assert "Client sent an HTTP request to an HTTPS server." in plain.err
    anonymous = ssl.create_default_context(cafile=str(stranger / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", remote.port)) as tcp,
        pytest.raises(ssl.SSLError),  # with TLS 1.3 the refusal comes after the client's part is done
        anonymous.wrap_socket(tcp, server_hostname="127.0.0.1") as session,
    ):
        session.send(b"GET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not session.recv(1)
    assert remote.alice(docker)("ps", "-q").code == 0


def test_our_client_says_what_is_wrong_with_certificates(remote: Remote, tmp_path: Path) -> None:
    bennu = remote.daemon.bennu
    elsewhere = Authority(tmp_path / "theirs").client("mallory", "/CN=mallory")
    assert "failed to verify certificate" in remote.client(bennu, elsewhere)("why", "web", ok=False).err
    missing = remote.client(bennu, tmp_path / "nothing")("why", "web", ok=False)
    assert f"open {tmp_path}/nothing/ca.pem: no such file or directory" in missing.err
    words = ["-H", remote.host, *tls_options(remote.authority.folder / "alice")]
    assert "No such container: web" in bennu(*words, "why", "web", ok=False).err
    assert bennu(*words, "ps", "-q").out == ""


def test_idle_strangers_and_clients_that_vanish_leave_nothing(remote: Remote) -> None:
    descriptors = Path(f"/proc/{remote.daemon.pid}/fd")
    docker = remote.alice(remote.daemon.docker)
    docker("run", "-d", "--name", "web", "--network=none", "busybox", "sleep", "1000")
    before = len(list(descriptors.iterdir()))
    silent = [socket.create_connection(("127.0.0.1", remote.port)) for _ in range(20)]
    with docker.running("logs", "-f", "web"), docker.running("events"), docker.running("attach", "web"):
        wait_for(lambda: len(list(descriptors.iterdir())) >= before + 20 + 9)
        assert docker("ps", "-q").line
    for connection in silent:
        connection.close()
    wait_for(lambda: len(list(descriptors.iterdir())) <= before, what="all descriptors to be closed")


def test_strangers_that_say_nothing_keep_nobody_out(remote: Remote) -> None:
    silent = [socket.create_connection(("127.0.0.1", remote.port)) for _ in range(MOST_HANDSHAKES + 100)]
    began = time.monotonic()
    assert remote.alice(remote.daemon.docker)("ps", "-q").code == 0
    assert time.monotonic() - began < HANDSHAKE_S / 2
    for connection in silent:
        connection.close()


def test_who_does_not_read_can_still_write(remote: Remote) -> None:
    docker, folder = remote.daemon.docker, remote.authority.folder / "alice"
    docker("create", "-i", "--name", "web", "--network=none", "busybox", "sh", "-c", "yes & exec wc -c >&2")
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with (
        socket.create_connection(("127.0.0.1", remote.port)) as tcp,
        context.wrap_socket(tcp, server_hostname="127.0.0.1") as session,
    ):
        session.sendall(b"POST /containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n")
        session.sendall(b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert session.recv(100).startswith(b"HTTP/1.1 101")
        docker("start", "web")
        time.sleep(1)  # until nothing more fits on the way to us
        session.settimeout(10)
        for _ in range(40):
            session.sendall(bytes(1 << 20))


def test_it_ends_at_once_and_comes_back(remote: Remote) -> None:
    docker = remote.alice(remote.daemon.docker)
    docker("run", "-d", "--name", "web", "--network=none", "busybox", "sleep", "1000")
    with docker.running("logs", "-f", "web"):
        time.sleep(0.3)
        assert remote.daemon.stop(timeout_s=15) == 0
    assert docker("ps", ok=False).code == 1
    remote.daemon.start()
    assert docker("ps", "--format", "{{.Names}}").line == "web"


def test_an_intermediate_authority_alone_can_be_trusted(tmp_path: Path) -> None:
    between = Authority(tmp_path / "pki").intermediate()
    server, client = between.server("127.0.0.1"), between.client("alice", ALICE)
    ours = open_context(Tls(server / "ca.pem", server / "cert.pem", server / "key.pem"))
    theirs = tls.open_context(tls.TlsFiles(client / "ca.pem", client / "cert.pem", client / "key.pem", verify=True))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = ours.wrap_bio(to_server, to_client, server_side=True)
    there = theirs.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for end in (there, here, there):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    here.do_handshake()
    assert show_subject(here.getpeercert() or {}) == "O=Operations, CN=alice"


def test_certificates_that_cannot_be_used_are_named_at_the_start(authority: Authority, tmp_path: Path) -> None:
    from api.test_bennud_process import run_bennud

    server, alice = authority.folder / "server", authority.folder / "alice"
    roots = ["--data-root", tmp_path / "d", "--exec-root", tmp_path / "e", "-H", "tcp://127.0.0.1:1"]
    done = run_bennud(*roots, *tls_options(tmp_path))
    assert (done.returncode, f"cannot read {tmp_path}/ca.pem: No such file" in done.stderr) == (1, True)
    mixed = [*tls_options(server)[:-1], f"--tlskey={alice}/key.pem"]
    assert f"{alice}/key.pem is not the unencrypted key" in run_bennud(*roots, *mixed).stderr
