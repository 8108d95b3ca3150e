"""The control group a container asks for lies among the control groups, and nowhere else on the host."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bennu.runtime.cgroups import Cgroups
from support.cli import Cli
from support.daemon import Daemon


@pytest.fixture(autouse=True)
def no_parent_is_left(tmp_path: Path) -> Iterator[None]:
    """Parents belong to those who named them, so the engine leaves them."""
    yield
    for group in ("life-test", "life-test.slice", tmp_path.parts[1]):
        Cgroups().remove(group)


def test_a_parent_with_dots_is_cleaned_and_touches_no_folder_of_the_host(
    docker: Cli, busybox: str, tmp_path: Path
) -> None:
    name = f"{tmp_path.name}-life"
    parent = f"../../../../../..{tmp_path}/{name}"
    docker("run", "-d", "--name=climbs", f"--cgroup-parent={parent}", "--memory=64m", busybox, "sleep", "600")
    identity = docker("inspect", "-f", "{{.Id}}", "climbs").line
    pid = docker("inspect", "-f", "{{.State.Pid}}", "climbs").line
    assert f":{tmp_path}/{name}/{identity}" in Path(f"/proc/{pid}/cgroup").read_text()
    assert list(tmp_path.iterdir()) == []
    docker("rm", "-f", "climbs")
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_whose_number_stands_in_a_plain_file_lives_on_when_a_container_is_removed(
    docker: Cli, busybox: str, tmp_path: Path
) -> None:
    docker("create", "--name=plain", f"--cgroup-parent=../../../..{tmp_path}", busybox, "sleep", "600")
    folder = tmp_path / docker("inspect", "-f", "{{.Id}}", "plain").line
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            (folder / "cgroup.procs").write_text(f"{bystander.pid}\n")
            docker("start", "plain")
            docker("rm", "-f", "plain")
            assert bystander.poll() is None
            assert (folder / "cgroup.procs").exists()
        finally:
            bystander.kill()


@pytest.mark.parametrize("parent", ["a\nb", "a\0b"])
def test_a_parent_that_no_folder_can_be_called_is_refused(daemon: Daemon, busybox: str, parent: str) -> None:
    body = json.dumps({"Image": busybox, "Cmd": ["true"], "HostConfig": {"CgroupParent": parent}})
    status, said = daemon.request("POST", "/containers/create", body, {"Content-Type": "application/json"})
    assert status == 400, said


@pytest.mark.parametrize("parent", ["/life-test", "life-test", "life-test.slice"])
def test_parents_of_every_form_are_honoured(docker: Cli, busybox: str, parent: str) -> None:
    said = docker("run", "--rm", f"--cgroup-parent={parent}", "--cgroupns=host", busybox, "cat", "/proc/self/cgroup")
    assert f":/{parent.strip('/')}/" in said.out
