"""Logs of real containers: what conmon writes, told as Docker tells it, within their bounds."""

import contextlib
import subprocess
import time
from pathlib import Path

from support.cli import Cli
from support.daemon import Daemon
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


def test_a_container_that_writes_as_fast_as_it_can_keeps_to_its_bounds(
    docker: Cli, busybox: str, daemon: Daemon
) -> None:
    bound, kept = 32_000_000, 3
    options = ("--log-opt", f"max-size={bound}", "--log-opt", f"max-file={kept}")
    container = docker("run", "-d", "--network", "none", *options, busybox, "yes").out.strip()
    folder = log_folder(daemon, container)
    wait_for(lambda: len(log_sizes(folder)) == kept, timeout_s=60)
    end, seen = time.monotonic() + 1.5, set[int]()
    while time.monotonic() < end:
        seen |= set(log_sizes(folder))
        time.sleep(0.005)
    docker("rm", "-f", container)
    assert 0.5 * bound <= max(seen) <= 1.25 * bound


def log_sizes(folder: Path) -> list[int]:
    """Files that are put aside, or away, as one looks are left out."""
    sizes = []
    for path in folder.glob("*-json.log*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def test_bad_bounds_are_refused(docker: Cli, busybox: str) -> None:
    said = docker("create", "--log-opt", "max-size=abc", busybox, ok=False)
    assert "invalid size: 'abc'" in said.err


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
