"""A stop ends, whatever holds on: the one that cannot end is named, and nobody waits for pipes."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from support.cli import Cli
from support.frozen import filesystem_that_can_be_frozen, in_state_d
from support.waiting import wait_for


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_that_cannot_be_killed_is_named_with_where_it_hangs(
    docker: Cli, bennu: Cli, busybox: str, tmp_path: Path
) -> None:
    with filesystem_that_can_be_frozen(tmp_path) as place:
        writer = "while :; do echo x >/data/file; done"
        docker("run", "-d", "--name=hangs", "-v", f"{place}:/data", busybox, "sh", "-c", writer)
        pid = int(docker("inspect", "-f", "{{.State.Pid}}", "hangs").line)
        subprocess.run(["fsfreeze", "-f", place], check=True)
        try:
            wait_for(lambda: in_state_d(pid), what="the writer to hang")
            said = docker("rm", "-f", "hangs", ok=False)
            assert said.code == 1
            assert f"process {pid} (sh) is in state D in " in said.err
            assert docker("inspect", "-f", "{{.State.Status}}", "hangs").line == "running"
        finally:
            subprocess.run(["fsfreeze", "-u", place], check=True)
        assert docker("wait", "hangs").line == "137"
        found = json.loads(bennu("why", "--json", "hangs").out)[0]
        assert (found["Cause"], found["Decision"]["Action"]) == ("killed", "stay"), "the removal had failed"
        docker("rm", "hangs")


def test_a_pipe_that_somebody_outside_holds_open_delays_nothing(docker: Cli, busybox: str) -> None:
    obeys = "trap 'echo bye; exit 4' TERM; while :; do sleep 0.05; done"
    docker("run", "-d", "--name=piped", busybox, "sh", "-c", obeys)
    pid = docker("inspect", "-f", "{{.State.Pid}}", "piped").line
    pipe = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
    try:
        began = time.monotonic()
        docker("stop", "piped")
        assert time.monotonic() - began < 5
        assert docker("wait", "piped").line == "4"
        assert docker("logs", "piped").line == "bye"
        docker("rm", "piped")
    finally:
        os.close(pipe)


def test_a_child_that_holds_the_output_ends_with_the_first_process(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name=leaves", "--pid=host", busybox, "sh", "-c", "sleep 600 & exit 5")
    assert docker("wait", "leaves").line == "5"
    assert not docker("top", "leaves", ok=False).out


def test_who_waits_through_a_back_off_is_told_when_it_is_called_off(docker: Cli, bennu: Cli, busybox: str) -> None:
    docker("run", "-d", "--name=crashes", "--restart=always", busybox, "sh", "-c", "exit 3")
    wait_for(lambda: int(docker("inspect", "-f", "{{.RestartCount}}", "crashes").line) >= 4, what="a long back-off")
    with subprocess.Popen(
        [bennu.program, "wait", "crashes"], env=dict(bennu.environment), stdout=subprocess.PIPE
    ) as waiting:
        try:
            time.sleep(0.5)  # it is there: the back-off takes longer
            docker("stop", "crashes")
            assert waiting.communicate(timeout=10)[0] == b"3\n"
        finally:
            waiting.kill()
