"""Logs of real containers: what conmon writes, told as Docker tells it, within their bounds."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.cli import Cli
from support.daemon import Daemon
from support.traces import command_lines
from support.waiting import wait_for


def log_folder(daemon: Daemon, container: str) -> Path:
    return daemon.data_root / "containers" / container


def test_long_lines_and_unfinished_ones_come_back_byte_for_byte(docker: Cli, busybox: str) -> None:
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'no newline'; printf err >&2"
    docker("run", "--name", "writer", "--network", "none", busybox, "sh", "-c", script)
    said = docker("logs", "writer")
    assert (said.out, said.err) == ("x" * 40000 + "\nno newline", "err")
    assert len(docker("logs", "-t", "writer").out.split("Z ")) - 1 == 4  # three pieces and the last line
    assert docker("logs", "--tail", "2", "writer").out in ("no newline", "x" * 7232 + "\nno newline")


def test_an_unfinished_line_of_one_run_is_not_glued_to_the_next(docker: Cli, busybox: str) -> None:
    docker("run", "--name", "again", "--network", "none", busybox, "printf", "end")
    docker("start", "-a", "again")
    assert docker("logs", "again").out == "endend"
    assert docker("logs", "--tail", "1", "again").out == "end"


def test_logs_are_rotated_and_a_follower_misses_nothing(docker: Cli, busybox: str, daemon: Daemon) -> None:
    # Slow enough for three looks at the size.
    script = "i=0; while [ $i -lt 3500 ]; do echo line $i; i=$((i+1)); [ $((i%50)) = 0 ] && sleep 0.06; done; sleep 1.5"
    options = ("--log-opt", "max-size=10k", "--log-opt", "max-file=3")
    container = docker("run", "-d", "--network", "none", *options, busybox, "sh", "-c", script).out.strip()
    followed = docker("logs", "-f", container, timeout_s=60).out.splitlines()
    assert followed == [f"line {number}" for number in range(3500)]
    files = sorted(path.name for path in log_folder(daemon, container).glob(f"{container}-json.log*"))
    assert files == [f"{container}-json.log{suffix}" for suffix in ("", ".1", ".2")]
    kept = docker("logs", container).out.splitlines()
    assert kept == followed[-len(kept) :] and 0 < len(kept) < 3500


FLOOD = "while :; do seq 1 20000; done"


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        (("max-size=10k", "max-file=3"), 30_000),
        (("max-size=1m", "max-file=2", "compress=true"), 2_100_000),
        (("max-size=100k", "max-file=2", "mode=non-blocking"), 200_000),
    ],
)
def test_a_container_that_writes_as_fast_as_it_can_keeps_to_its_bounds(
    docker: Cli, busybox: str, daemon: Daemon, options: tuple[str, ...], bound: int
) -> None:
    words = [word for option in options for word in ("--log-opt", option)]
    container = docker("run", "-d", "--network", "none", *words, busybox, "sh", "-c", FLOOD).out.strip()
    folder = log_folder(daemon, container)
    wait_for(lambda: sum(log_sizes(folder)) > bound / 3, timeout_s=60)
    end, seen = time.monotonic() + 1.5, set[int]()
    while time.monotonic() < end:
        seen.add(sum(log_sizes(folder)))
        time.sleep(0.005)
    docker("kill", container)
    told = docker("logs", container).out.splitlines()
    docker("rm", container)
    assert bound / 3 <= max(seen) <= bound * 1.02
    assert 0 < len(told) < 20_000 if bound < 10**6 else told


def log_sizes(folder: Path) -> list[int]:
    """Files that are put aside, or away, as one looks are left out; one that is moved on meanwhile counts once."""
    sizes = dict[int, int]()
    for path in folder.glob("*-json.log*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            sizes[found.st_ino] = found.st_size
    return list(sizes.values())


def test_bad_options_are_refused(docker: Cli, busybox: str) -> None:
    said = docker("create", "--log-opt", "max-size=abc", busybox, ok=False)
    assert "failed to initialize logging driver: invalid size: 'abc'" in said.err
    assert (
        "the log driver syslog is not implemented" in docker("create", "--log-driver", "syslog", busybox, ok=False).err
    )


def test_the_file_at_log_path_is_what_its_driver_promises(docker: Cli, busybox: str) -> None:
    options = {
        "tag": "{{.Name}}/{{.ID}}/{{.ImageName}}",
        "labels": "team",
        "labels-regex": "^com",
        "env": "FOO",
        "env-regex": "^B",
    }
    words = [word for name, value in options.items() for word in ("--log-opt", f"{name}={value}")]
    container = docker(
        *("run", "-d", "--name", "shipped", "--network", "none", "-e", "FOO=1", "-e", "BAR=a&b", "-e", "OTHER=x"),
        *("--label", "team=red", "--label", "com.example=x y", "--label", "other=x", *words),
        *(busybox, "sh", "-c", "echo hello; echo oops >&2; printf 'a\\tb'"),
    ).out.strip()
    docker("wait", container)
    path = Path(docker("inspect", "-f", "{{.LogPath}}", container).out.strip())
    assert path.name == f"{container}-json.log"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    attrs = {
        "BAR": "a&b",
        "FOO": "1",
        "com.example": "x y",
        "tag": f"shipped/{container[:12]}/{busybox}",
        "team": "red",
    }
    assert {(line["log"], line["stream"]) for line in lines} == {
        ("hello\n", "stdout"),
        ("oops\n", "stderr"),
        ("a\tb", "stdout"),
    }
    assert all(list(line) == ["log", "stream", "attrs", "time"] and line["attrs"] == attrs for line in lines)
    details = "BAR=a%26b,FOO=1,com.example=x+y,tag=shipped%2F"
    assert docker("logs", "--details", container).out.startswith(details)


def test_the_local_driver_keeps_every_byte_and_is_nobody_elses(docker: Cli, busybox: str) -> None:
    script = "printf '\\377\\n'"
    container = docker(
        "run", "-d", "--log-driver", "local", "--network", "none", busybox, "sh", "-c", script
    ).out.strip()
    docker("wait", container)
    assert docker("inspect", "-f", "[{{.LogPath}}]", container).out.strip() == "[]"
    with docker.running("logs", container, stdout=subprocess.PIPE) as reading:
        assert reading.communicate()[0] == b"\xff\n"


def read_present(path: Path) -> bytes:
    """Read a log's present file; nothing at the moment when it is rotated away."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def test_logs_go_on_within_their_bounds_while_no_daemon_lives(docker: Cli, busybox: str, daemon: Daemon) -> None:
    """The container writes as fast as it can when the daemon is killed, and ends before there is another one."""
    script = "i=0; while [ $i -lt 400 ]; do seq $((i*1000+1)) $((i*1000+1000)); i=$((i+1)); done; sleep 1; echo end"
    bounded = ("--log-opt", "max-size=200k", "--log-opt", "max-file=3")
    whole = docker("run", "-d", "--network", "none", busybox, "sh", "-c", script).out.strip()
    bound = docker("run", "-d", "--network", "none", *bounded, busybox, "sh", "-c", script).out.strip()
    wait_for(lambda: sum(log_sizes(log_folder(daemon, whole))) > 1_000_000)
    daemon.kill()
    folder = log_folder(daemon, bound)
    wait_for(lambda: b'"end' in read_present(folder / f"{bound}-json.log"), timeout_s=60)
    assert sum(log_sizes(folder)) <= 610_000
    daemon.start()
    docker("wait", whole, bound)
    expected = [*map(str, range(1, 400_001)), "end"]
    assert docker("logs", whole).out.splitlines() == expected
    kept = docker("logs", bound).out.splitlines()
    assert kept == expected[-len(kept) :] and len(kept) > 2000


def test_a_writer_that_is_killed_is_replaced_and_its_containers_go_on(
    docker: Cli, busybox: str, daemon: Daemon
) -> None:
    script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; sleep 0.01; done"
    container = docker("run", "-d", "--network", "none", busybox, "sh", "-c", script).out.strip()
    wait_for(lambda: docker("logs", container).out)
    [writer] = [
        pid for pid, line in command_lines() if "bennu.logwriter.server" in line and str(daemon.exec_root) in line
    ]
    os.kill(writer, signal.SIGKILL)
    docker("wait", container)
    assert docker("logs", container).out.splitlines() == [str(number) for number in range(1, 301)]


def test_a_follower_that_is_killed_disturbs_nobody(docker: Cli, busybox: str, daemon: Daemon) -> None:
    script = "while :; do echo tick; sleep 0.05; done"
    container = docker("run", "-d", "--network", "none", busybox, "sh", "-c", script).out.strip()
    argv = [docker.program, "logs", "-f", container]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=docker.environment) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"tick\n"
        follower.kill()
    before = time.monotonic()
    docker("rm", "-f", container)
    assert time.monotonic() - before < 10
    wait_for(lambda: daemon.request("GET", "/_ping")[0] == 200, timeout_s=5, what="bennud to answer")
