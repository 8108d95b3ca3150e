"""Whatever goes wrong while a container is started, the start ends: it is told, nothing is left, the next one works."""

import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import images, traces
from support.daemon import Daemon
from support.failing_bennud import KINDS
from support.waiting import wait_for

FAILING = Path(__file__).parents[1] / "support/failing_bennud.py"
LIMIT_S = 20.0
# By each daemon, and before: the log writer is there as long as it lives.
ONCE = {
    *("bennu.runtime.crun:sealed_copy", "bennu.logwriter.client:LogWriter._connect"),
    "bennu.logwriter.client:LogWriter._start",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failing")


@pytest.fixture(scope="module")
def failing(able: None, folder: Path) -> Iterator[Daemon]:
    daemon = Daemon(program=(sys.executable, FAILING, folder))
    try:
        images.import_base(daemon.start().docker, "busybox")
        yield daemon
    finally:
        traces.discard(daemon)


def run(daemon: Daemon) -> tuple[int, str]:
    """A container that takes something of every kind."""
    asked = ("-v", "kept:/kept", "-p", "8080", "--ipc=shareable", "-w", "/made")
    done = daemon.docker("run", "--rm", *asked, "busybox", "echo", "it ran", ok=False, timeout_s=LIMIT_S)
    return done.code, done.out


def places(daemon: Daemon, folder: Path) -> list[tuple[str, str]]:
    """All that a start goes through: (name, awaited or called)."""
    entered = folder / "entered"
    if not entered.exists():
        assert run(daemon) == (0, "it ran\n")
    lines = [line.split() for line in entered.read_text().splitlines()]
    return [(name, how) for name, how in lines if name not in ONCE]


def fail_at(daemon: Daemon, folder: Path, place: str, kind: str) -> str:
    """What was wrong with a start that fails there; "" when nothing was."""
    (folder / "fail").write_text(f"{place} {kind}")
    try:
        code, said = run(daemon)
    except AssertionError:
        return f"{place} with {kind}: the client waits for ever"
    if (folder / "fail").exists():
        (folder / "fail").unlink()
        return f"{place} with {kind}: nothing failed there, but {code}, {said!r}"
    if code not in (125, 126, 127, 128) and (code, said) != (0, "it ran\n"):
        return f"{place} with {kind}: {code}, {said!r}"
    try:
        wait_for(lambda: not leftovers(daemon), timeout_s=5)
    except AssertionError:
        return f"{place} with {kind}: left are {leftovers(daemon)}"
    return ""


def leftovers(daemon: Daemon) -> list[str]:
    containers = json.loads(daemon.request("GET", "/containers/json?all=1")[1])
    ours = [line for line in traces.processes(daemon).values() if str(FAILING) not in line]
    held = [path for path in traces.mounts(daemon) if "/netns/" not in path and "/images" not in path]
    return [*(one["State"] for one in containers), *ours, *held]


def test_whatever_is_awaited_fails_the_start_ends_and_leaves_nothing(failing: Daemon, folder: Path) -> None:
    awaited = [name for name, how in places(failing, folder) if how == "awaited"]
    assert len(awaited) > 20
    wrong = [fail_at(failing, folder, *case) for case in zip(awaited, itertools.cycle(KINDS), strict=False)]
    assert "\n".join(filter(None, wrong)) == ""
    assert run(failing) == (0, "it ran\n")


def test_a_restart_for_which_the_host_has_too_little_is_tried_again(failing: Daemon, folder: Path) -> None:
    docker = failing.docker
    bennu = failing.bennu
    docker("run", "-d", "--name=again", "--restart=always", "busybox", "sleep", "600")
    (folder / "fail").write_text("bennu.runtime.conmon:run_conmon EMFILE")
    kill_first_process(failing, "again")
    wait_for(lambda: not (folder / "fail").exists(), what="the restart to fail")
    wait_for(lambda: state(failing, "again") == "running", what="the next try")
    told = json.loads(bennu("why", "--json", "--all", "again").out)
    assert sorted((one["Cause"], one["Decision"]["Action"]) for one in told) == [
        ("signal", "restart"),
        ("start failed", "restart"),
    ]
    assert docker("inspect", "-f", "{{.RestartCount}}", "again").line == "1"
    docker("rm", "-f", "again")


def test_a_start_along_with_the_daemon_for_which_the_host_has_too_little_is_tried_again(
    failing: Daemon, folder: Path
) -> None:
    docker = failing.docker
    docker("run", "-d", "--name=along", "--restart=always", "busybox", "sleep", "600")
    docker("stop", "-t", "0", "along")
    failing.stop()
    (folder / "fail").write_text("bennu.runtime.conmon:run_conmon EMFILE")
    failing.start()
    wait_for(lambda: not (folder / "fail").exists(), what="the start to fail")
    wait_for(lambda: state(failing, "along") == "running", what="the next try")
    docker("rm", "-f", "along")


def test_a_restart_that_fails_for_good_is_given_up_and_told_to_who_waits(failing: Daemon, folder: Path) -> None:
    docker = failing.docker
    docker("run", "-d", "--name=never", "--restart=always", "busybox", "sleep", "600")
    (folder / "fail").write_text("bennu.engine.launch:_make_spec ValueError")
    kill_first_process(failing, "never")
    wait_for(lambda: state(failing, "never") == "exited", what="the restart to be given up")
    assert docker("wait", "never").line == "137"
    assert "ValueError" in docker("inspect", "-f", "{{.State.Error}}", "never").line
    docker("rm", "never")


def kill_first_process(daemon: Daemon, name: str) -> None:
    os.kill(int(daemon.docker("inspect", "-f", "{{.State.Pid}}", name).line), signal.SIGKILL)


def state(daemon: Daemon, name: str) -> str:
    return daemon.docker("inspect", "-f", "{{.State.Status}}", name).line


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_whatever_is_called_fails_in_whatever_way_the_start_ends_and_leaves_nothing(
    failing: Daemon, folder: Path
) -> None:
    cases = itertools.product([name for name, _ in places(failing, folder)], KINDS)
    wrong = [fail_at(failing, folder, *case) for case in cases]
    assert "\n".join(filter(None, wrong)) == ""
    assert run(failing) == (0, "it ran\n")
