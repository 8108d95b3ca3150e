"""Whatever happens to containers and clients, a removed container leaves nothing: no mount, process, group or file."""

import contextlib
import signal
import socket
import time
from collections.abc import Callable

import pytest

from support import images, traces
from support.daemon import Daemon
from support.waiting import wait_for

MakeDaemon = Callable[..., Daemon]
ROUNDS = 3


@pytest.fixture
def engine(make_daemon: MakeDaemon) -> Daemon:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    return daemon


def live_a_little(engine: Daemon) -> set[str]:
    """A container of every kind that differs in what it takes from the machine; the ids."""
    docker = engine.docker
    ids = {
        docker("run", "-d", "busybox", "sleep", "1000").line,
        docker("run", "-d", "-p", "80", "-p", "53/udp", "busybox", "sleep", "1000").line,
        docker("run", "-d", "--network=none", "--tmpfs=/scratch", "-v", "/data", "busybox", "sleep", "1000").line,
        docker("run", "-dit", "busybox").line,
        docker("run", "-d", "--network=host", "--pid=host", "busybox", "sleep", "1000").line,
        docker("run", "-d", "busybox", "true").line,
        docker("create", "busybox").line,
    }
    docker("run", "busybox", "no-such-program", ok=False)
    docker("exec", "-d", next(iter(ids & set(docker("ps", "-q", "--no-trunc").lines))), "sleep", "1000")
    return ids | set(docker("ps", "-aq", "--no-trunc").lines)


def remove_all(engine: Daemon) -> None:
    engine.docker("rm", "-fv", *engine.docker("ps", "-aq").lines)


def test_removed_containers_leave_nothing_behind(engine: Daemon) -> None:
    ids = live_a_little(engine)
    remove_all(engine)
    traces.assert_nothing_left(engine, ids)
    assert engine.docker("volume", "ls", "-q").out == ""


def test_the_daemon_holds_no_more_files_after_many_lives_than_after_one(engine: Daemon) -> None:
    live_a_little(engine)
    remove_all(engine)
    after_one = settled_files(engine)
    for _ in range(ROUNDS):
        live_a_little(engine)
        remove_all(engine)
    assert settled_files(engine) <= after_one


def settled_files(engine: Daemon) -> int:
    """Connections close a moment after their answer: wait until the number stands still."""
    counts = [traces.open_files(engine)]

    def still() -> bool:
        time.sleep(0.5)
        counts.append(traces.open_files(engine))
        return counts[-1] == counts[-2]

    wait_for(still, what="the number of open files to stand still")
    return counts[-1]


def test_clients_that_vanish_mid_stream_leave_nothing(engine: Daemon) -> None:
    live_a_little(engine)  # what is opened once and kept is open from here on
    remove_all(engine)
    before = settled_files(engine)
    name = engine.docker("run", "-d", "--name=talker", "busybox", "sh", "-c", "while :; do echo x; done").line
    for words in (("logs", "-f", "talker"), ("attach", "talker"), ("events",), ("exec", "talker", "sleep", "1000")):
        with engine.docker.running(*words) as client:
            time.sleep(0.2)
            client.send_signal(signal.SIGKILL)
    engine.docker("rm", "-f", name)
    wait_for(lambda: settled_files(engine) <= before, what="the files of vanished clients to close")
    traces.assert_nothing_left(engine)


def test_half_requests_are_let_go(engine: Daemon) -> None:
    before = settled_files(engine)
    for data in (b"", b"GET /_pi", b"POST /containers/create HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", b"\0" * 100):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(engine.socket))
            client.sendall(data)
    wait_for(lambda: settled_files(engine) <= before, what="half requests to be let go")
    assert engine.request("GET", "/_ping") == (200, b"OK")


def test_a_stopped_daemon_leaves_its_containers_alive_and_takes_them_up_again(engine: Daemon) -> None:
    name = engine.docker("run", "-d", "busybox", "sleep", "1000").line
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", name).line)
    engine.stop()
    assert traces.processes(engine), "conmon should live on"
    engine.start()
    assert int(engine.docker("inspect", "-f", "{{.State.Pid}}", name).line) == pid
    engine.docker("kill", name)
    assert engine.docker("wait", name).line == "137"
    remove_all(engine)
    traces.assert_nothing_left(engine, {name})


def test_an_exit_code_is_known_though_the_daemon_was_killed_before_the_end(engine: Daemon) -> None:
    name = engine.docker("run", "-d", "busybox", "sh", "-c", "sleep 1; exit 9").line
    engine.kill()
    wait_for(lambda: not traces.processes(engine), what="the container to end while nobody looks")
    engine.start()
    assert engine.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).line == "exited 9"
