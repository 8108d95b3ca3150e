"""What a health check is asked for with: every flag, and what an image says of it."""

import json
from pathlib import Path
from typing import Any

import docker as docker_py
import pytest

from support.cli import Cli
from support.health import health
from support.waiting import wait_for

ALL_FLAGS = (
    *("--health-cmd=test -e /ok", "--health-interval=1s", "--health-timeout=2s", "--health-retries=4"),
    *("--health-start-period=5s", "--health-start-interval=6s"),
)
OF_IMAGE = "HEALTHCHECK --interval=1s --timeout=2s --start-period=3s --start-interval=4s --retries=5 CMD test -e /ok"
IMAGE_CHECK = {
    "Test": ["CMD-SHELL", "test -e /ok"],
    "Interval": 10**9,
    "Timeout": 2 * 10**9,
    "StartPeriod": 3 * 10**9,
    "StartInterval": 4 * 10**9,
    "Retries": 5,
}


def check_of(docker: Cli, name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(docker("inspect", "-f", "{{json .Config.Healthcheck}}", name).line)
    return found


def build(docker: Cli, folder: Path, name: str, *lines: str) -> str:
    folder.mkdir()
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    docker("build", "-q", "-t", name, str(folder), timeout_s=120)
    return name


@pytest.mark.recent_docker
def test_every_flag(docker: Cli, busybox: str) -> None:
    docker("create", "--name", "flags", *ALL_FLAGS, busybox, "true")
    assert check_of(docker, "flags") == {
        "Test": ["CMD-SHELL", "test -e /ok"],
        "Interval": 10**9,
        "Timeout": 2 * 10**9,
        "Retries": 4,
        "StartPeriod": 5 * 10**9,
        "StartInterval": 6 * 10**9,
    }


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--health-interval=999us", "Interval in Healthcheck cannot be less than 1ms"),
        ("--health-timeout=1us", "Timeout in Healthcheck cannot be less than 1ms"),
        ("--health-start-period=1us", "StartPeriod in Healthcheck cannot be less than 1ms"),
        pytest.param(
            "--health-start-interval=1us",
            "StartInterval in Healthcheck cannot be less than 1ms",
            marks=pytest.mark.recent_docker,
        ),
    ],
)
def test_too_short_is_refused(docker: Cli, busybox: str, flag: str, words: str) -> None:
    assert words in docker("create", flag, busybox, "true", ok=False).err


@pytest.mark.recent_docker
def test_an_images_check_is_completed_field_by_field(docker: Cli, busybox: str, tmp_path: Path) -> None:
    image = build(docker, tmp_path / "a", "checked:1", f"FROM {busybox}", OF_IMAGE, 'CMD ["sleep", "600"]')
    assert check_of(docker, image) == IMAGE_CHECK
    other = build(docker, tmp_path / "b", "checked:2", f"FROM {image}", 'HEALTHCHECK --retries=2 CMD ["true"]')
    assert check_of(docker, other) == {"Test": ["CMD", "true"], "Retries": 2}
    heir = build(docker, tmp_path / "c", "checked:3", f"FROM {image} AS one", "ENV A=1", "FROM one", "ENV B=2")
    assert check_of(docker, heir) == IMAGE_CHECK
    for number, (flags, changed) in enumerate(
        {
            (): {},
            ("--health-cmd=exit 0",): {"Test": ["CMD-SHELL", "exit 0"]},
            ("--health-interval=9s", "--health-retries=8"): {"Interval": 9 * 10**9, "Retries": 8},
            ("--health-start-interval=7s",): {"StartInterval": 7 * 10**9},
            ("--no-healthcheck",): {"Test": ["NONE"]},
        }.items()
    ):
        docker("create", "--name", f"merged{number}", *flags, image)
        assert check_of(docker, f"merged{number}") == IMAGE_CHECK | changed
    docker("run", "-d", "--name", "unchecked", "--no-healthcheck", "-l", "bennu.health.tcp=:9", image)
    assert "Health" not in json.loads(docker("inspect", "-f", "{{json .State}}", "unchecked").line)


@pytest.mark.parametrize("test", [["NONE"], ["cmd", "true"], ["curl"], []], ids=str)
def test_a_check_of_another_kind_is_none(client: docker_py.DockerClient, busybox: str, test: list[str]) -> None:
    check = {"test": test, "interval": 10**8}
    container = client.containers.run(busybox, ["sleep", "600"], detach=True, healthcheck=check)
    assert "Health" not in client.containers.get(container.id).attrs["State"]
    assert client.containers.get(container.id).health == "unknown"


def test_the_images_shell_runs_the_check(docker: Cli, busybox: str, tmp_path: Path) -> None:
    lines = ('SHELL ["sh", "-ec"]', "HEALTHCHECK --interval=100ms CMD false; true", 'CMD ["sleep", "600"]')
    image = build(docker, tmp_path / "a", "shell:1", f"FROM {busybox}", *lines)
    docker("run", "-d", "--name", "shell", image)
    assert wait_for(lambda: health(docker, "shell")["Log"], what="a probe")[0]["ExitCode"] == 1
