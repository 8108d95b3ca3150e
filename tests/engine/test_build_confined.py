"""What a Dockerfile cannot do: reach the host's files, network or processes, or leave anything behind."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from images_helpers import entry, make_tar
from network_helpers import echo_server, open_neighbour

from bennu.build.sources import WORLD
from support.cli import Cli, Said
from support.daemon import BENNUD, Daemon
from support.images import import_base
from support.traces import tag_of
from support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def base(docker: Cli) -> None:
    import_base(docker, "busybox")


def build(docker: Cli, *lines: str, options: tuple[str, ...] = (), ok: bool = True) -> Said:
    """Build these lines on top of busybox; what the steps say is in the answer."""
    dockerfile = "\n".join(["FROM busybox", *lines])
    context = make_tar([entry("Dockerfile", dockerfile.encode())])
    return docker("build", "--no-cache", *options, "-", stdin=context, ok=ok, timeout_s=90)


# --- the network ------------------------------------------------------------------------------------------------------


def test_a_step_reaches_the_hosts_loopback_only_where_it_was_given_the_hosts_network(docker: Cli) -> None:
    ask = "RUN nc -w 2 127.0.0.1 7791 < /dev/null || echo nothing"
    with echo_server("", "127.0.0.1", 7791):
        assert "nothing" in build(docker, ask).lines
        assert "nothing" in build(docker, ask, options=("--network=bridge",)).lines
        assert "127.0.0.1 heard 127.0.0.1" in build(docker, ask, options=("--network=host",)).out


def test_an_address_to_add_from_is_seen_from_the_builds_network(docker: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host's loopback\n")
    with contextlib.closing(WebServer(tmp_path, "127.0.0.1", 7792)):
        add = ("ADD http://127.0.0.1:7792/file /file", "RUN cat /file")
        refused = build(docker, *add, ok=False)
        assert refused.code == 1 and "connection refused" in refused.err
        assert "of the host's loopback" in build(docker, *add, options=("--network=host",)).lines


def test_a_step_sees_none_of_the_hosts_abstract_sockets(docker: Cli) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0bennu-test-abstract")
        server.listen()
        assert "bennu-test-abstract" in build(docker, "RUN cat /proc/net/unix", options=("--network=host",)).out
        assert "bennu-test-abstract" not in build(docker, "RUN cat /proc/net/unix").out


def test_a_step_gets_out_as_a_container_does(docker: Cli, tmp_path: Path) -> None:
    with open_neighbour(tmp_path, "198.18.7.2", "198.18.7.1") as other, echo_server(other, "0.0.0.0", 7):
        said = build(docker, "RUN nc -w 5 198.18.7.2 7 < /dev/null")
    assert "198.18.7.2 heard 198.18.7.1" in said.out, "masqueraded"


def test_a_step_has_the_files_of_a_container(docker: Cli) -> None:
    said = build(
        docker,
        "RUN cat /etc/hosts /etc/resolv.conf",
        options=("--add-host=db:10.1.2.3", "--add-host=out:host-gateway"),
    )
    gateway = json.loads(docker("network", "inspect", "bridge").out)[0]["IPAM"]["Config"][0]["Gateway"]
    lines = [line.split() for line in said.lines]
    assert (
        ["10.1.2.3", "db"] in lines
        and [gateway, "out"] in lines
        and ["127.0.0.1", "localhost"] in [line[:2] for line in lines]
    )
    assert "host.containers.internal" not in said.out
    served = docker("run", "--rm", "busybox", "cat", "/etc/resolv.conf").lines
    assert set(served) <= set(said.lines)


def test_a_build_in_a_network_of_the_users_finds_its_containers_by_name(docker: Cli) -> None:
    docker("network", "create", "inner")
    answer = "while true; do echo here is db | nc -l -p 80; done"
    docker("run", "-d", "--name=db", "--network=inner", "busybox", "sh", "-c", answer)
    try:
        assert "here is db" in build(docker, "RUN nc -w 5 db 80", options=("--network=inner",)).lines
        assert "here is db" in build(docker, "RUN nc -w 5 localhost 80", options=("--network=container:db",)).lines
        assert "nothing" in build(docker, "RUN nc -w 1 db 80 || echo nothing").lines
        assert json.loads(docker("network", "inspect", "inner").out)[0]["Containers"].keys() == {
            docker("inspect", "-f", "{{.Id}}", "db").line
        }, "addresses are given back"
    finally:
        docker("rm", "-f", "db")
        docker("network", "rm", "inner")


def test_a_build_without_a_network_has_loopback_alone(docker: Cli) -> None:
    assert build(docker, "RUN echo has: $(ls /sys/class/net)", options=("--network=none",)).out.count("has: lo\n") == 1


@pytest.mark.parametrize(("network", "message"), [("nosuch", "network nosuch not found"), ("container:no", "No such")])
def test_a_network_that_is_not_there_is_refused(docker: Cli, network: str, message: str) -> None:
    assert message in build(docker, "RUN true", options=(f"--network={network}",), ok=False).err


# --- confinement ------------------------------------------------------------------------------------------------------

LOOK = (
    "grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status; id; ulimit -n; cat /proc/keys /proc/timer_list | wc; "
    "ls /dev; set -- /proc/[0-9]*; echo $#; mknod /tmp/disk b 254 0 && cat /tmp/disk; mkdir /sys/fs/cgroup/x; "
    "echo 1 > /proc/sys/kernel/panic; cat /proc/self/mounts"
)
OF_THE_STORAGE = re.compile(r"^overlay / |^\S+ /etc/|^\S+ /run/.containerenv ")


def test_a_step_is_confined_like_a_default_container(docker: Cli) -> None:
    step = build(docker, f"RUN ({LOOK}) > /seen 2>&1; true", "RUN cat /seen", options=("-t", "seen")).lines
    container = docker("run", "--rm", "busybox", "/bin/sh", "-c", f"({LOOK}) > /seen 2>&1; cat /seen").lines
    docker("rmi", "seen")
    of_step = step[step.index(next(line for line in step if line.startswith("CapInh"))) :]
    assert comparable(of_step) == comparable(container)


def comparable(lines: list[str]) -> set[str]:
    """What must be the same of both; how a mount is spelt (sizes, order of options) may differ."""
    kept = set()
    for line in lines:
        if OF_THE_STORAGE.match(line) or line.startswith((" --->", "Successfully", "Removed")):
            continue
        words = line.split()
        if len(words) == 6 and words[1].startswith("/"):  # a mount: where, of what kind, whether it may be written
            kept.add(f"{words[1]} {words[2]} {words[3].split(',')[0]}")
        else:
            kept.add(line)
    return kept


def test_another_user_than_root_has_no_capabilities_in_a_step(docker: Cli) -> None:
    said = build(docker, "USER 7", "RUN grep ^CapEff /proc/self/status")
    assert "CapEff:\t0000000000000000" in said.lines


def test_the_daemons_proxy_is_not_the_steps_business(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(program=("env", "HTTP_PROXY=http://user:secret@192.0.2.9:3128", "SECRET_KEY=1", BENNUD))
    import_base(daemon.docker, "busybox")
    said = build(daemon.docker, "RUN env")
    assert "secret" not in said.out and "SECRET_KEY" not in said.out


def test_what_a_step_prints_is_never_taken_for_the_result(docker: Cli) -> None:
    other = "ab" * 32
    said = build(docker, f"RUN echo {other}", options=("-t", "itself"))
    assert other in said.lines and said.lines[-2] == f"Successfully built {docker('images', '-q', 'itself').line}"
    docker("rmi", "itself")


# --- what may be asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mount",
    [
        "type=bind,from=busybox,source=/rootdir,destination=/x,rw",
        "type=bind,source=link,target=/x",
        "type=cache,id=../../../../../..{folder},target=/x",
        "type=cache,target=/x",
        "type=tmpfs,target=/x",
    ],
)
def test_no_mount_of_a_step_leads_to_the_host(docker: Cli, tmp_path: Path, mount: str) -> None:
    """Each of these has once written to folders of a host, with one builder or another."""
    (tmp_path / "marker").touch()
    flag = f"--mount={mount.format(folder=tmp_path)}"
    said = build(docker, "RUN ln -s / /rootdir", f"RUN {flag} rm -f /x/marker /x{tmp_path}/marker", ok=False)
    assert (tmp_path / "marker").exists()
    assert said.code == 0 or "not found" in said.err, said.err


def test_a_bases_trigger_may_do_no_more_than_a_dockerfile(docker: Cli) -> None:
    build(docker, "ONBUILD COPY --from=dir:/etc . /x", options=("-t", "trap"))  # to record it harms nobody
    for dockerfile in (b"FROM trap", b"FROM busybox AS one\nONBUILD COPY --from=dir:/etc . /x\nFROM one\n"):
        refused = docker("build", "-", stdin=make_tar([entry("Dockerfile", dockerfile)]), ok=False)
        assert refused.code == 1 and 'failed to parse stage name "dir:/etc"' in refused.err
    docker("rmi", "trap")


def test_a_trigger_is_one_line_whoever_wrote_the_image(docker: Cli, tmp_path: Path) -> None:
    """Images from elsewhere can hold what no Dockerfile could record."""
    archive = tmp_path / "trap.tar"
    config = {"architecture": "amd64", "os": "linux", "config": {"OnBuild": ["RUN true\nUSER 0"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": []}
    manifest = [{"Config": "config.json", "RepoTags": ["trap:multi"], "Layers": []}]
    members = [entry("config.json", json.dumps(config).encode()), entry("manifest.json", json.dumps(manifest).encode())]
    archive.write_bytes(make_tar(members))
    docker("load", "-i", archive)
    refused = docker("build", "-", stdin=make_tar([entry("Dockerfile", b"FROM trap:multi")]), ok=False)
    assert refused.code == 1 and "onbuild trigger should be a single expression" in refused.err
    docker("rmi", "trap:multi")


def test_a_trigger_that_is_plain_is_done(docker: Cli) -> None:
    build(docker, "ONBUILD RUN echo the trigger ran", options=("-t", "plain"))
    said = docker("build", "-", stdin=make_tar([entry("Dockerfile", b"FROM plain")]), timeout_s=60)
    assert "the trigger ran" in said.lines
    docker("rmi", "plain")


# --- the world that fetches sources -----------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> list[str | Path]:
    """How a command is started in a world like the one that sources are fetched in."""
    work = tmp_path / "work"
    (work / "root").mkdir(parents=True)
    told = {"root": f"{work}/root", "network": "", "shown": [[str(work), str(work), True]]}
    return [sys.executable, "-I", "-S", WORLD, json.dumps(told), "--"]


def test_a_program_that_is_talked_into_anything_finds_none_of_the_hosts_files(
    world: list[str | Path], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    script = f"""
        cat /etc/shadow {tmp_path}/secret /proc/1/root{tmp_path}/secret 2> /dev/null
        echo harmed > {tmp_path}/secret; echo harmed > /root/harmed; rm -f /usr/bin/env
        ls / /root; ls /proc | grep -c '^[0-9]'; ls /dev
    """
    said = subprocess.run([*world, "sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert (tmp_path / "secret").read_text() == "secret" and not Path("/root/harmed").exists()
    assert "secret" not in said.stdout and "Read-only file system" in said.stderr
    assert not {"home", "boot", "srv", "mnt", "old"} & set(said.stdout.split())
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_a_fetching_program_dies_with_whoever_started_it_and_so_does_all_it_started(world: list[str | Path]) -> None:
    seconds = 88000 + os.getpid() % 1000
    script = f"(trap '' TERM HUP; setsid sleep {seconds}) & exec sleep {seconds}"
    start = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(600)"
    starter = subprocess.Popen([sys.executable, "-c", start, *world, "sh", "-c", script])
    wait_for(lambda: count_sleeping(seconds) == 2, what="both to sleep")
    starter.kill()
    starter.wait()
    wait_for(lambda: count_sleeping(seconds) == 0, what="both to be gone")


def count_sleeping(seconds: int) -> int:
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += path.read_bytes() == f"sleep\0{seconds}\0".encode()
    return found


# --- what is left -----------------------------------------------------------------------------------------------------


def test_a_build_that_is_cut_off_gives_everything_back(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Whoever ends it: the client leaves, or bennud is killed and the next one takes away what it left."""
    daemon = make_daemon()
    import_base(daemon.docker, "busybox")
    build(daemon.docker, "RUN true")
    seconds = 89000 + os.getpid() % 1000
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN sleep {seconds}\n")
    with daemon.docker.running("build", "--no-cache", tmp_path) as client:
        wait_for(lambda: count_sleeping(seconds) == 1, timeout_s=30, what="the step to run")
        assert len(remains(daemon)) == 3
        client.send_signal(signal.SIGINT)
        client.wait(10)
    wait_for(
        lambda: not remains(daemon), timeout_s=15, what="nothing to be left", describe=lambda: str(remains(daemon))
    )
    with daemon.docker.running("build", "--no-cache", tmp_path) as client:
        wait_for(lambda: count_sleeping(seconds) == 1, timeout_s=30, what="the step to run")
        daemon.kill()
        client.wait(10)
    wait_for(lambda: count_sleeping(seconds) == 0, timeout_s=15, what="the step to end")
    assert remains(daemon), "the kill was too late to prove anything"
    daemon.start()
    wait_for(
        lambda: not remains(daemon), timeout_s=15, what="nothing to be left", describe=lambda: str(remains(daemon))
    )


def remains(daemon: Daemon) -> list[list[str]]:
    """What there is of builds: control groups, work, addresses, mounts that are seen from here."""
    mark = f"bennu-build-{tag_of(daemon)}-*"
    groups = [str(path) for pattern in (mark, f"*/{mark}") for path in Path("/sys/fs/cgroup").glob(pattern)]
    work = [path.name for path in (daemon.data_root / "build/work").iterdir()]
    taken = []
    if daemon.is_alive:
        taken = list(json.loads(daemon.request("GET", "/networks/bridge")[1])["Containers"])
    mounts = [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if f"{daemon.data_root}/build" in line
    ]
    return [what for what in (groups[:1], work[:1], taken[:1], mounts[:1]) if what]


class WebServer:
    """A web server on this host, until it is closed."""

    def __init__(self, folder: Path, address: str, port: int) -> None:
        argv = [sys.executable, "-m", "http.server", str(port), "--bind", address, "--directory", folder]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self._answers(address, port), what="the web server")

    def _answers(self, address: str, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((address, port)) == 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
