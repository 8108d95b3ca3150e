"""What a container of the usual kind does not get of its host, tried from inside. Each attempt is shown to be one: a
privileged container, or one that was asked for it, succeeds with the same words."""

import grp
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli
from support.daemon import Daemon

RUN = ("run", "--rm", "--network=none", "busybox")
DEFAULT_MASK = "00000000a80425fb"
NOTHING = "0" * 16

# Opened for writing, and nothing is written: harmless where it succeeds.
WRITABLE = """
for path in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname /proc/sys/vm/swappiness \
    /proc/sysrq-trigger /proc/irq/*/smp_affinity /sys/kernel/uevent_helper /sys/kernel/profiling /sys/power/state \
    /sys/module/*/parameters/* /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release \
    /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control
do test -e $path && { true >>$path; } 2>/dev/null && echo $path; done
"""
READABLE = """
for path in /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/sched_debug
do test -e $path && test "$(head -c 1 $path 2>/dev/null | wc -c)" != 0 && echo $path; done
for path in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap
do test -e $path && test -n "$(ls $path)" && echo $path; done
"""
# name type major minor, of what a host has; `null` is for everybody.
NODES = {"mem": "c 1 1", "port": "c 1 4", "kmsg": "c 1 11", "sda": "b 8 0", "loop": "b 7 0", "tun": "c 10 200",
         "fuse": "c 10 229", "kvm": "c 10 232", "tty1": "c 4 1", "null": "c 1 3"}  # fmt: skip


def test_the_hosts_knobs_cannot_be_written(docker: Cli, busybox: str) -> None:
    assert docker(*RUN, "sh", "-c", WRITABLE, ok=False).lines == []
    held = docker("run", "--rm", "--privileged", "--network=none", busybox, "sh", "-c", WRITABLE, ok=False).lines
    assert "/proc/sys/kernel/core_pattern" in held and any(path.endswith("/cgroup.procs") for path in held)


def test_what_tells_of_the_host_is_empty(docker: Cli, busybox: str) -> None:
    assert docker(*RUN, "sh", "-c", READABLE, ok=False).lines == []
    told = docker("run", "--rm", "--privileged", "--network=none", busybox, "sh", "-c", READABLE, ok=False).lines
    assert "/proc/timer_list" in told or "/proc/keys" in told


def test_a_device_can_be_made_and_not_be_opened(docker: Cli, busybox: str) -> None:
    makes = "; ".join(f"mknod /tmp/{name} {numbers} && echo made {name}" for name, numbers in NODES.items())
    opens = "for node in /tmp/*; do dd if=$node of=/dev/null count=0 2>&1 | grep -q 'not permitted' || echo $node; done"
    said = docker(*RUN, "sh", "-c", f"{makes}; {opens}").lines
    assert said == [*(f"made {name}" for name in NODES), "/tmp/null"]


@pytest.mark.parametrize(
    ("options", "effective", "bounding", "no_new"),
    [
        ((), DEFAULT_MASK, DEFAULT_MASK, "0"),
        (("--cap-drop=ALL",), NOTHING, NOTHING, "0"),
        (("--cap-drop=ALL", "--cap-add=CHOWN"), "0000000000000001", "0000000000000001", "0"),
        (("--user=1000", "--cap-add=NET_ADMIN"), NOTHING, "00000000a80435fb", "0"),
        (("--security-opt=no-new-privileges",), DEFAULT_MASK, DEFAULT_MASK, "1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("by", ["run", "exec"])
def test_rights_are_no_more_than_those_given(
    docker: Cli, busybox: str, by: str, options: tuple[str, ...], effective: str, bounding: str, no_new: str
) -> None:
    look = ("cat", "/proc/self/status")
    if by == "run":
        said = docker("run", "--rm", "--network=none", *options, busybox, *look)
    else:
        made = docker("run", "-d", "--network=none", *options, busybox, "sleep", "600").line
        said = docker("exec", made, *look)
    found = dict(line.split(":\t", 1) for line in said.lines if ":\t" in line)
    assert (found["CapEff"], found["CapBnd"], found["NoNewPrivs"]) == (effective, bounding, no_new)
    assert found["CapInh"] == found["CapAmb"] == NOTHING


# --- what a request may ask for -----------------------------------------------------------------------------------


def start(daemon: Daemon, body: dict[str, Any]) -> tuple[int, str]:
    """Of creation, if that is refused, or of the start: status and words."""
    json_type = {"Content-Type": "application/json"}
    status, answer = daemon.request("POST", "/containers/create", json.dumps(body), json_type)
    if status == 201:
        status, answer = daemon.request("POST", f"/containers/{json.loads(answer)['Id']}/start")
    return status, answer.decode()


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("kernel.core_pattern", {}),
        ("kernel.panic", {}),
        ("vm.swappiness", {}),
        ("fs.file-max", {}),
        ("net/../kernel/core_pattern", {}),
        ("net.ipv4/../../kernel.core_pattern", {}),
        ("net...kernel.core_pattern", {}),
        ("net.ipv4.ip_forward", {"NetworkMode": "host"}),
        ("kernel.shmmax", {"IpcMode": "host"}),
    ],
)
def test_a_kernel_parameter_of_the_whole_host_is_refused(
    daemon: Daemon, busybox: str, name: str, where: dict[str, str]
) -> None:
    meant = "kernel.core_pattern" if "core_pattern" in name else name
    value = Path("/proc/sys", *meant.split(".")).read_text().strip()  # harmless, should it be let through
    host = {"NetworkMode": "none", **where, "Sysctls": {name: value}}
    status, words = start(daemon, {"Image": busybox, "Cmd": ["true"], "HostConfig": host})
    assert status in (400, 500) and ("sysctl" in words or "core_pattern" in words), (status, words)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file of the host, in a folder whose path does not exist in any container."""
    tmp_path.chmod(0o755)
    path = tmp_path / "marker"
    path.write_text("of the host")
    yield path


def test_a_working_directory_is_not_one_that_the_runtime_holds_open(docker: Cli, busybox: str, marker: Path) -> None:
    """Neither by its number, nor by way of `..` from there."""
    up = "../" * 12
    script = f"cat {up.rstrip('/')}{marker} 2>/dev/null; cat .{marker} 2>/dev/null; true"
    made = docker("run", "-d", "--network=none", busybox, "sleep", "600").line
    for number in range(3, 12):
        where = f"--workdir=/proc/self/fd/{number}"
        for words in (("run", "--rm", "--network=none", where, busybox), ("exec", where, made)):
            assert "of the host" not in docker(*words, "sh", "-c", script, ok=False).out, (number, words)
    seen = docker("run", "--rm", "-v", f"{marker.parent}:/up", "-w", "/up", busybox, "sh", "-c", "cat marker")
    assert seen.out == "of the host"


USERS = {
    "a link to the host's": "ln -sf {folder}/passwd /etc/passwd",
    "a link above the root": "ln -sf ../../../../../../../..{folder}/passwd /etc/passwd",
    "a link through a process": "ln -sf /proc/1/root{folder}/passwd /etc/passwd",
    "a loop": "ln -sf /etc/passwd /etc/passwd",
    "a pipe": "rm /etc/passwd; mkfifo /etc/passwd",
    "an endless device": "rm /etc/passwd; mknod /etc/passwd c 1 5",
    "a folder": "rm /etc/passwd; mkdir /etc/passwd",
    "a folder that is a link": "mv /etc /etc.old; ln -s {folder} /etc",
}


def test_users_are_looked_up_in_the_container_and_nowhere_else(docker: Cli, busybox: str, tmp_path: Path) -> None:
    intruder = "intruder:x:0:0::/:/bin/sh"
    (tmp_path / "passwd").write_text(f"{intruder}\n")
    made = docker("run", "-d", "--network=none", busybox, "sleep", "600").line
    docker("exec", made, "sh", "-c", f"mkdir -p /etc; echo {intruder} >/etc/passwd")
    docker("exec", "-u", "intruder", made, "rm", "/etc/passwd")  # one who is in the container's own file
    for name, script in USERS.items():
        docker("exec", "-u", "0", made, "sh", "-c", script.format(folder=tmp_path))
        said = docker("exec", "-u", "intruder", made, "true", ok=False, timeout_s=10)
        assert said.code != 0 and "intruder" in said.err, name


TARGETS = {
    "dots": ("true", "/../../../../../../../..{folder}/a"),
    "a link": ("ln -s {folder} /b", "/b/into"),
    "a link above the root": ("ln -s ../../../../../../../..{folder} /c", "/c/into"),
    "a link to a process": ("ln -s /proc/self/root{folder} /d", "/d/into"),
    "links on links": ("ln -s /e2 /e; ln -s {folder} /e2", "/e/into"),
}


@pytest.fixture
def linked(docker: Cli, busybox: str, tmp_path: Path) -> str:
    """An image whose links lead to the host's folder `outside`."""
    (tmp_path / "outside").mkdir()
    scripts = "; ".join(script for script, _ in TARGETS.values()).format(folder=tmp_path / "outside")
    made = docker("create", "--network=none", busybox, "sh", "-c", scripts).line
    docker("start", "-a", made)
    return docker("commit", made).line


@pytest.mark.parametrize("kind", ["volume", "bind", "tmpfs", "workdir"])
def test_no_mount_or_folder_is_made_where_a_link_of_the_image_leads(
    daemon: Daemon, linked: str, tmp_path: Path, kind: str
) -> None:
    outside, shared = tmp_path / "outside", tmp_path / "shared"
    (shared / "given").mkdir(parents=True)
    for number, (_, target) in enumerate(TARGETS.values()):
        where = target.format(folder=outside)
        how = {
            "volume": {"Binds": [f"lost{number}:{where}"]},
            "bind": {"Binds": [f"{shared}:{where}"]},
            "tmpfs": {"Tmpfs": {where: ""}},
            "workdir": {},
        }[kind]
        body = {"Image": linked, "Cmd": ["true"], "WorkingDir": where if kind == "workdir" else "/"}
        start(daemon, body | {"HostConfig": {"NetworkMode": "none", **how}})
        assert os.listdir(outside) == [], target  # noqa: PTH208
        assert str(outside) not in Path("/proc/self/mountinfo").read_text(), target
    (outside / "seen").touch()
    assert os.listdir(outside) == ["seen"]  # noqa: PTH208


def test_a_socket_of_the_engine_lets_its_group_in_and_nobody_else(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(options=["-G", "nogroup"])
    group = grp.getgrnam("nogroup").gr_gid
    argv = ["curl", "-s", "--unix-socket", str(daemon.socket), "http://engine/_ping"]
    for who, said in ((group, "OK"), (group - 1, "")):
        done = subprocess.run(argv, user=65534, group=who, extra_groups=[], capture_output=True, text=True, check=False)
        assert done.stdout == said, done
