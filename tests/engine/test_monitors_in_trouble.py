"""conmon, which alone hears how a container ends, is killed, stopped, or contradicted: what is told stays true."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from support import traces
from support.daemon import Daemon
from support.waiting import wait_for

STATE = "{{.State.Status}} {{.State.ExitCode}}"


@pytest.fixture
def engine(daemon: Daemon, busybox: str) -> Daemon:
    return daemon


def run(engine: Daemon, *options: str) -> tuple[str, int]:
    """A container that can only be killed; its id, and its process."""
    made = engine.docker(
        "run", "-d", "--network=none", *options, "busybox", "sh", "-c", "while :; do sleep 1; done"
    ).line
    return made, pid_of(engine, made)


def pid_of(engine: Daemon, container: str) -> int:
    return int(engine.docker("inspect", "-f", "{{.State.Pid}}", container).line)


def monitor_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_one_killed_while_the_daemon_is_dead_ends_its_container_which_its_policy_restarts(engine: Daemon) -> None:
    kept, first = run(engine, "--restart=always")
    once, other = run(engine)
    engine.kill()
    for pid in (first, other):
        os.kill(monitor_of(pid), signal.SIGKILL)
    engine.start()
    wait_for(lambda: engine.docker("inspect", "-f", STATE, once).line.startswith("exited"), what="the end to be known")
    wait_for(lambda: pid_of(engine, kept) not in (0, first), what="another life")
    assert not is_alive(first) and not is_alive(other), "two processes of one container"
    for container in (kept, once):
        (told,) = json.loads(engine.bennu("why", "--json", container).out)
        assert (told["Cause"], told["ExitCode"]) == ("unknown", None)


@pytest.mark.parametrize("stands_still_s", [1, pytest.param(30, marks=pytest.mark.soak)])
def test_one_that_stands_still_holds_up_its_own_container_alone(engine: Daemon, stands_still_s: float) -> None:
    made, pid = run(engine)
    fine, _ = run(engine)
    monitor = monitor_of(pid)
    os.kill(monitor, signal.SIGSTOP)
    wakes = threading.Timer(stands_still_s, os.kill, (monitor, signal.SIGCONT))
    wakes.start()
    with engine.docker.running("rm", "-f", made) as removal:
        began = time.monotonic()
        engine.docker("rm", "-f", fine)
        assert len(engine.docker("ps", "-q").lines) == 1
        assert time.monotonic() - began < 5
        told = removal.communicate(timeout=60)[1].decode()
        assert removal.returncode == 0 or told.startswith("Error"), told
    wakes.join()
    if removal.returncode:
        engine.docker("rm", "-f", made)
    assert not is_alive(pid)
    traces.assert_nothing_left(engine, {made, fine})


def test_a_forged_exit_file_ends_nothing(engine: Daemon) -> None:
    made, pid = run(engine)
    forged = engine.exec_root / "exits" / made
    forged.write_text("0")
    engine.docker("exec", made, "true")
    engine.kill()
    engine.start()
    assert pid_of(engine, made) == pid, "found alive by the next daemon, whatever a file says"
    assert engine.docker("inspect", "-f", STATE, made).line == "running 0"
    engine.docker("kill", made)
    assert engine.docker("wait", made).line == "137"
