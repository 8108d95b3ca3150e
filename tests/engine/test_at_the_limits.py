"""A daemon that may open no more files, or start no more processes, still ends containers."""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dns.message
import pytest

from bennu.network.namespaces import netns
from bennu.runtime.cgroups import Cgroups
from support import images
from support.cli import Cli
from support.daemon import BENNUD, Daemon, UnixConnection
from support.silence import silent_folder
from support.waiting import wait_for

FILES = 120
HELD_UP = 40  # more than a daemon has threads for blocking work


def end_in_every_way(docker: Cli, stopped: str, killed: str, removed: str) -> None:
    docker("stop", "-t", "1", stopped)
    docker("kill", killed)
    docker("rm", "-f", removed, stopped, killed)
    assert not {stopped, killed, removed} & set(docker("ps", "-a", "--format={{.Names}}").lines)


@pytest.mark.timeout(300)
def test_containers_end_though_the_daemon_has_opened_all_files_it_may(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(program=("prlimit", f"--nofile={FILES}:{FILES}", BENNUD))
    docker, held = daemon.docker, Path(f"/proc/{daemon.pid}/fd")
    images.import_base(docker, "busybox")
    for number in range(FILES):
        words = ("-d", "--network=none", f"--name=fills{number}", "busybox", "sleep", "600")
        if docker("run", *words, ok=False).code:
            break
    else:
        raise AssertionError(f"{FILES} containers fit into {FILES} open files")
    assert number > 5
    with contextlib.ExitStack() as stack:  # what is left goes to clients who only wait
        for _ in range(10):
            stack.enter_context(follow(daemon))
        assert len(os.listdir(held)) > FILES // 2  # noqa: PTH208
        end_in_every_way(docker, "fills0", "fills1", "fills2")
    docker("rm", "-f", "fills3", "fills4")  # a start needs more for a moment than three containers hold
    docker("run", "--rm", "--network=none", "busybox", "true")


@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="no FUSE in this kernel")
@pytest.mark.timeout(120)
def test_bind_mounts_of_a_server_that_is_gone_hold_up_nobody_else(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    for number in range(HELD_UP):
        daemon.docker("create", f"--name=old{number}", f"--volume={tmp_path}/silent/x:/x", "busybox", "true")
    with silent_folder(tmp_path / "silent") as silent, ThreadPoolExecutor(2 * HELD_UP) as clients:
        mount = f"--mount=type=bind,src={silent}/x,dst=/x"
        held_up = [clients.submit(daemon.docker, "create", mount, "busybox", ok=False) for _ in range(HELD_UP)]
        held_up += [clients.submit(daemon.docker, "start", f"old{number}", ok=False) for number in range(HELD_UP)]
        time.sleep(1)
        assert not any(one.done() for one in held_up)
        assert daemon.docker("run", "--rm", "--volume=/data", "busybox", "echo", "served").line == "served"
        daemon.docker("ps", "-a")
        daemon.kill()
        daemon.start()
        assert daemon.docker("run", "--rm", "busybox", "echo", "served").line == "served"


@pytest.mark.timeout(120)
def test_a_container_that_asks_for_names_without_end_keeps_nothing_from_being_done(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon(program=("prlimit", "--nofile=200:200", BENNUD))
    bennu = daemon.bennu
    images.import_base(bennu, "busybox")
    bennu("network", "create", "net1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.80", 53))
        for name in ("one", "two", "three"):
            bennu("run", "-d", f"--name={name}", "--network=net1", "--dns=127.0.0.80", "busybox", "sleep", "600")
        with asking_without_end(bennu, "one"), asking_without_end(bennu, "two"):
            time.sleep(1)
            bennu("run", "--rm", "--network=net1", "busybox", "nslookup", "three", "127.0.0.11")
            bennu("exec", "three", "true")
            bennu("cp", "three:/etc/passwd", tmp_path)
            end_in_every_way(bennu, "one", "two", "three")


@contextlib.contextmanager
def asking_without_end(bennu: Cli, name: str) -> Iterator[None]:
    """From within the container, for ever new names of elsewhere."""
    pid = bennu("inspect", "--format={{.State.Pid}}", name).out.strip()
    over = threading.Event()

    def ask() -> None:
        netns.enter(f"/proc/{pid}/ns/net")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not over.wait(0.02):
                for _ in range(20):
                    question = dns.message.make_query(f"{secrets.token_hex(8)}.example.test", "A")
                    with contextlib.suppress(OSError):  # the container ends meanwhile
                        sock.sendto(question.to_wire(), ("127.0.0.11", 53))

    thread = threading.Thread(target=netns.run_in_own_thread, args=(ask,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def follow(daemon: Daemon) -> Iterator[None]:
    connection = UnixConnection(daemon.socket)
    with contextlib.closing(connection):
        connection.request("GET", "/events")
        yield


def test_clients_beyond_the_open_files_are_heard_later_and_do_not_fill_the_log(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(program=("prlimit", f"--nofile={FILES}:{FILES}", BENNUD))
    told = "out of system resource"
    with contextlib.ExitStack() as stack:
        for _ in range(2 * FILES):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(daemon.socket))
        wait_for(lambda: told in daemon.log(), timeout_s=10)
        time.sleep(1.5)  # asyncio pauses for a second
        assert daemon.log().count(told) <= 4
    daemon.bennu("version")


@pytest.fixture
def pids_group() -> Iterator[Path]:
    """A control group of the test's own that can limit processes."""
    cgroups = Cgroups()
    mount = cgroups.hierarchies.get("unified" if cgroups.unified else "pids")
    if mount is None:
        pytest.skip("no controller of processes")
    folder = mount / f"bennu-test-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        if not (folder / "pids.max").exists():
            pytest.skip("the controller of processes is not for groups below the root")
        yield folder
    finally:
        cgroups.remove(f"/{folder.name}")


def test_containers_end_though_the_daemon_may_start_no_process(
    make_daemon: Callable[..., Daemon], pids_group: Path
) -> None:
    daemon = make_daemon()
    docker = daemon.docker
    docker = daemon.docker
    images.import_base(docker, "busybox")
    for name in ("one", "two", "three"):
        docker("run", "-d", f"--name={name}", "-v", "/data", "busybox", "sleep", "600")
    (pids_group / "cgroup.procs").write_text(str(daemon.pid))
    (pids_group / "pids.max").write_text("1")  # fewer than there are: a thread that ends now makes no room for another
    assert docker("run", "--rm", "busybox", "true", ok=False).code == 125
    end_in_every_way(docker, "one", "two", "three")
    (pids_group / "pids.max").write_text("max")
    docker("run", "--rm", "busybox", "true")
    daemon.stop()


def test_the_doctor_tells_how_many_containers_fit_into_the_limit_of_the_daemon_that_runs(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(program=("prlimit", "--nofile=600:600", BENNUD))
    told = daemon.bennu("doctor", "--data-root", daemon.data_root, ok=False)
    assert "600 open files, enough for some 236 containers that run" in told.out
