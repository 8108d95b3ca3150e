"""A dockerd of the test's own, to ask what the original does: private roots, its own network namespace."""

import contextlib
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.cli import Cli, client_environment, find_docker
from support.daemon import UnixConnection
from support.waiting import wait_for


def why_not() -> str:
    """The reason why no dockerd can run here; "" when one can."""
    absent = [name for name in ("dockerd", "containerd", "runc", "nsenter", "ip") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextlib.contextmanager
def run_dockerd() -> Iterator[Cli]:
    """The docker command pointed at a fresh dockerd. `cli.prefix` runs a program where its ports are published."""
    name = f"bt{secrets.token_hex(3)}"
    root = Path(tempfile.mkdtemp(prefix="dockerd-"))
    (root / "home/docker").mkdir(parents=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    process = None
    try:
        # nsenter, not `ip netns exec`: the latter hides the control groups' mounts.
        inside = ["nsenter", f"--net=/run/netns/{name}"]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(
                [*inside, "dockerd", *options(root)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=root
            )
        wait_for(
            lambda: answers(root / "s", process),
            timeout_s=60,
            what="dockerd to answer",
            describe=lambda: (root / "log").read_text(errors="replace")[-4000:],
        )
        program = find_docker()
        assert program, "no docker command"
        cli = Cli(program, client_environment(f"unix://{root}/s", root / "home"), prefix=inside)
        yield cli
        with contextlib.suppress(AssertionError):  # if it died after it was asked last, all below still goes
            remove_containers(cli)
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        unmount_below(root)
        subprocess.run(["ip", "netns", "delete", name], check=False)
        shutil.rmtree(root, ignore_errors=True)


def options(root: Path) -> list[str]:
    return [
        f"--data-root={root}/data",
        f"--exec-root={root}/run",
        f"--pidfile={root}/pid",
        f"--host=unix://{root}/s",
        "--storage-driver=overlay2",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--log-level=warn",
    ]


def answers(path: Path, process: subprocess.Popen[bytes] | None) -> bool:
    assert process is not None
    assert process.poll() is None, f"dockerd ended with {process.poll()}"
    connection = UnixConnection(path)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        except OSError:
            return False


def remove_containers(cli: Cli) -> None:
    if ids := cli("ps", "-aq").lines:
        cli("rm", "-fv", *ids)


def unmount_below(root: Path) -> None:
    places = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed([place for place in places if place.startswith(f"{root}/")]):
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
