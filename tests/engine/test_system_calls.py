"""The filter as programs in containers meet it: what Docker's closes is closed, and open to whom it is open there."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.cli import Cli
from support.daemon import Daemon
from support.filters import read_filter, verdict
from support.waiting import wait_for

# Tries each call with arguments that harm nobody, in a process of its own, and tells the error number; 0: it worked.
PROBE: Final = """
import ctypes, json, os, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
keyctl = {"x86_64": 250, "aarch64": 219}.get(platform.machine(), 288)
def own(call):
    there, here = os.pipe()
    if os.fork() == 0:
        try:
            code = 0 if call() >= 0 else ctypes.get_errno()
        except OSError as error:
            code = error.errno
        os.write(here, bytes([code]))
        os._exit(0)
    os.wait()
    return os.read(there, 1)[0]
def family(number):
    socket.socket(number, socket.SOCK_DGRAM if number != 38 else socket.SOCK_SEQPACKET).close()
    return 0
print(json.dumps({
    "unshare a user namespace": own(lambda: libc.unshare(0x10000000)),
    "unshare a uts namespace": own(lambda: libc.unshare(0x04000000)),
    "clone3": own(lambda: libc.syscall(435, None, 0)),
    "setns": own(lambda: libc.setns(-1, 0)),
    "mount": own(lambda: libc.mount(None, None, None, 0, None)),
    "fsopen": own(lambda: libc.syscall(430, None, 0)),
    "pidfd_getfd": own(lambda: libc.syscall(438, -1, -1, 0)),
    "keyctl": own(lambda: libc.syscall(keyctl, 0, -3, 0)),
    "io_uring_setup": own(lambda: libc.syscall(425, 1, None)),
    "a vsock": own(lambda: family(40)),
    "a socket of the kernel's cryptography": own(lambda: family(38)),
    "a call of the next kernel": own(lambda: libc.syscall(999)),
    "an internet socket": own(lambda: family(2)),
    "fork": own(lambda: 0),
}))
"""
NOT_PERMITTED: Final = {
    **dict.fromkeys(("unshare a user namespace", "unshare a uts namespace", "setns", "mount", "fsopen"), errno.EPERM),
    **dict.fromkeys(("pidfd_getfd", "keyctl", "io_uring_setup"), errno.EPERM),
    **dict.fromkeys(("a vsock", "a socket of the kernel's cryptography"), errno.EPERM),
}
CLOSED: Final = {**NOT_PERMITTED, "clone3": errno.ENOSYS}
HARMLESS: Final = {"a call of the next kernel": errno.ENOSYS, "an internet socket": 0, "fork": 0}
OPEN_TO_ADMINISTRATORS: Final = {
    "unshare a user namespace": 0,
    "unshare a uts namespace": 0,
    "clone3": errno.EINVAL,
    "setns": errno.EBADF,
    "mount": errno.EFAULT,
    "fsopen": errno.EFAULT,
}
OPEN_TO_TRACERS: Final = {"pidfd_getfd": errno.EBADF}


def probe(docker: Cli, *options: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        docker("run", "--rm", "--network=none", *options, "python", "python3", "-c", PROBE).line
    )
    return found


@pytest.mark.parametrize(
    ("options", "opened"),
    [
        pytest.param([], {}, id="root"),
        pytest.param(["--user=65534"], {}, id="another-user"),
        pytest.param(["--cap-drop=ALL"], {}, id="without-capabilities"),
        pytest.param(["--cap-add=SYS_ADMIN"], OPEN_TO_ADMINISTRATORS, id="administrator"),
        pytest.param(["--cap-add=SYS_PTRACE"], OPEN_TO_TRACERS, id="tracer"),
        pytest.param(["--cap-add=ALL"], OPEN_TO_ADMINISTRATORS | OPEN_TO_TRACERS, id="every-capability"),
        pytest.param(
            ["--privileged", "--security-opt=seccomp=builtin"],
            OPEN_TO_ADMINISTRATORS | OPEN_TO_TRACERS,
            id="privileged-but-filtered",
        ),
    ],
)
def test_namespaces_keyrings_and_other_doors_of_the_kernel_are_shut(
    docker: Cli, python: str, options: list[str], opened: dict[str, int]
) -> None:
    assert probe(docker, *options) == CLOSED | HARMLESS | opened


def test_without_a_filter_the_same_calls_reach_the_kernel(docker: Cli, python: str) -> None:
    """Otherwise the tests above would show nothing of the filter."""
    found = probe(docker, "--security-opt=seccomp=unconfined", "--cap-add=ALL")
    assert [name for name in CLOSED if found[name] in (errno.EPERM, errno.ENOSYS)] in ([], ["io_uring_setup"])


@pytest.fixture
def sleeper(docker: Cli, busybox: str) -> Iterator[str]:
    docker("run", "-d", "--name=sleeper", "--network=none", busybox, "sleep", "1000")
    yield "sleeper"
    docker("rm", "-f", "sleeper")


@pytest.mark.parametrize("options", [[], ["--privileged"], ["--user=65534"]], ids=["plain", "privileged", "user"])
def test_who_comes_in_by_exec_has_the_same_filter(docker: Cli, sleeper: str, options: list[str]) -> None:
    first = read_filter(int(docker("inspect", "-f", "{{.State.Pid}}", sleeper).line))
    docker("exec", "-d", *options, sleeper, "sleep", "999")
    assert read_filter(wait_for(lambda: pid_of(docker, sleeper, "999"), timeout_s=10)) == first
    assert verdict(first, 435) == errno.ENOSYS


def pid_of(docker: Cli, container: str, seconds: str) -> int | None:
    lines = docker("top", container, "-eo", "pid,args").lines
    return next((int(line.split()[0]) for line in lines if line.endswith(f"sleep {seconds}")), None)


@pytest.mark.parametrize("profile", ["{}", '{"syscalls":[]}', "null", "{", "[" * 50_000, "/etc/seccomp.json"])
def test_a_broken_profile_makes_no_container(daemon: Daemon, busybox: str, profile: str) -> None:
    body = {"Image": busybox, "Cmd": ["true"], "HostConfig": {"SecurityOpt": [f"seccomp={profile}"]}}
    status, answer = daemon.request(
        "POST", "/containers/create", json.dumps(body), {"Content-Type": "application/json"}
    )
    assert status == 400
    assert json.loads(answer)["message"].startswith("Decoding seccomp profile failed: ")
    assert not daemon.docker("ps", "-aq").lines


def test_profiles_in_both_forms_are_in_force(docker: Cli, busybox: str, tmp_path: Path) -> None:
    """With a rule that says what holds anyway, which libseccomp takes for a mistake."""
    refused = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EACCES}
    useless = {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ALLOW"}
    conditional = {"names": ["unlink", "unlinkat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_KILL"]}}
    for own in ({"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]}, {"archMap": []}, {}):
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused, useless, conditional], **own}
        (tmp_path / "own.json").write_text(json.dumps(profile))
        script = "touch /x; rm /x && echo removed; mkdir /d"
        said = docker(
            "run", "--rm", f"--security-opt=seccomp={tmp_path}/own.json", busybox, "sh", "-c", script, ok=False
        )
        assert (said.out, said.code) == ("removed\n", 1)
        assert "Permission denied" in said.err
