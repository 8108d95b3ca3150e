"""Three services of a compose file, brought up, used, scaled, crashed and taken down by the real compose programs."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import images
from support.cli import Cli, Said, find_docker
from support.daemon import Daemon
from support.waiting import wait_for

PROJECT = "queue"
OWN = f"label=com.docker.compose.project={PROJECT}"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass(slots=True)
class Compose:
    """`compose("up", "-d")` on a copy of the example, which a test may change."""

    cli: Cli
    words: tuple[str, ...]
    docker: Cli
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, ok: bool = True) -> Said:
        argv = (*self.words, "-p", PROJECT, "-f", str(self.folder / "compose.yaml"), *words)
        return self.cli(*argv, ok=ok, timeout_s=150, cwd=self.folder)

    def ids(self, service: str = "", *, stopped: bool = True) -> list[str]:
        """Short ids of the project's containers, or of one service's."""
        chosen = ["--filter", f"label=com.docker.compose.service={service}"] if service else []
        return self.docker("ps", "-q", *(["-a"] if stopped else []), "--filter", OWN, *chosen).lines

    def url(self) -> str:
        """Where `web` is published, as compose says."""
        return f"http://127.0.0.1:{self('port', 'web', '8000').line.rpartition(':')[2]}"


def installed(name: str) -> str:
    """The reason why that compose cannot be tried; "" when it can."""
    if name == "docker-compose":
        return "" if shutil.which(name) else "docker-compose is not installed (Debian package docker-compose)"
    docker = find_docker()
    if docker is None:
        return "no docker command (./dev setup)"
    done = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "the docker command has no plugin compose"


@pytest.fixture(params=["docker-compose", "docker compose"])
def compose(request: pytest.FixtureRequest, daemon: Daemon, python: str, tmp_path: Path) -> Iterator[Compose]:
    if reason := installed(request.param):
        pytest.skip(reason)
    folder = tmp_path / "project"
    shutil.copytree(images.EXAMPLES / "queue", folder)
    program, *words = request.param.split()
    cli = Cli(program if not words else daemon.docker.program, daemon.environment)
    made = Compose(cli, tuple(words), daemon.docker, folder)
    yield made
    made("down", "-v", "--rmi", "all", "--remove-orphans", "-t", "1", ok=False)


def fetch(url: str, *, data: bytes | None = None) -> str:
    with urllib.request.urlopen(url, data=data, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def answers(url: str) -> bool:
    try:
        return fetch(f"{url}/health") == "PONG"
    except OSError:
        return False


def inspect(docker: Cli, *ids: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(docker("inspect", *ids).out)
    return found


def work(url: str, *jobs: str, done: int) -> None:
    """Queue jobs as soon as web takes them; return when so many are done."""
    wait_for(lambda: answers(url), what="web to answer")
    for job in jobs:
        fetch(f"{url}/jobs/{job}", data=b"")
    wait_for(lambda: fetch(f"{url}/done") == str(done), what=f"{done} jobs done")


def test_a_project_comes_up_in_order_works_and_goes_without_a_trace(compose: Compose) -> None:
    docker = compose.docker
    compose("up", "-d", "--scale", "worker=2")
    by_service = {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in inspect(docker, *compose.ids())}
    assert len(compose.ids("worker", stopped=False)) == 2
    store, web = by_service["store"], by_service["web"]
    first_good = next(probe for probe in store["State"]["Health"]["Log"] if probe["ExitCode"] == 0)
    for dependent in (by_service["worker"], web):
        assert dependent["State"]["StartedAt"] > first_good["Start"], "started before the store was healthy"
    assert store["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert by_service["worker"]["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5}
    assert set(web["NetworkSettings"]["Networks"]) == {"queue_front", "queue_back"}
    assert [mount["Name"] for mount in store["Mounts"]] == ["queue_kept"]
    wait_for(lambda: "healthy" in inspect(docker, web["Id"])[0]["State"]["Health"]["Status"], what="web to be healthy")
    work(compose.url(), *(f"j{number}" for number in range(20)), done=20)

    compose("down", "-v", "-t", "3")
    assert compose.ids() == []
    assert docker("network", "ls", "-q", "--filter", OWN).lines == []
    assert docker("volume", "ls", "-q", "--filter", OWN).lines == []


def test_logs_exec_ps_and_top_reach_every_container(compose: Compose) -> None:
    compose("up", "-d")
    work(compose.url(), "one", "two", done=2)
    wait_for(lambda: "done two" in compose("logs", "--no-color", "worker").out, what="the worker's log")
    logs = compose("logs", "--no-color").out
    for words in ("store ready, 0 lists", "done one", "web ready"):
        assert words in logs
    assert len(compose("logs", "--no-color", "--tail", "1", "store").out.strip().splitlines()) <= 2
    assert compose("exec", "-T", "web", "python3", "store.py", "GET", "done").line == "2"
    assert compose("exec", "-T", "web", "sh", "-c", "exit 7", ok=False).code == 7
    assert compose("exec", "-T", "--index", "1", "worker", "hostname").line == compose.ids("worker")[0]
    assert compose("run", "--rm", "-T", "--no-deps", "web", "store.py", "GET", "done").line == "2"
    shown = compose("ps").out
    for service in ("web", "worker", "store"):
        assert service in shown
    assert "worker.py" in compose("top").out


def test_scaling_up_and_down_keeps_those_there_are(compose: Compose) -> None:
    compose("up", "-d", "--scale", "worker=1")
    (former,) = compose.ids("worker")
    compose("up", "-d", "--no-recreate", "--scale", "worker=3")
    assert len(compose.ids("worker", stopped=False)) == 3 and former in compose.ids("worker")
    compose("up", "-d", "--no-recreate", "--scale", "worker=1")
    assert compose.ids("worker") == [former]
    web = compose.ids("web")
    compose("up", "-d")
    assert compose.ids("web") == web, "what has not changed was made anew"


def test_restart_policies_bring_crashed_services_back(compose: Compose) -> None:
    docker = compose.docker
    compose("up", "-d")
    url = compose.url()
    work(url, "crash", "after", done=1)
    (worker,) = inspect(docker, *compose.ids("worker"))
    assert worker["RestartCount"] == 1 and worker["State"]["Running"]
    docker("exec", compose.ids("store")[0], "sh", "-c", "kill -9 -1; kill -TERM 1", ok=False)
    wait_for(lambda: inspect(docker, *compose.ids("store"))[0]["RestartCount"] == 1, what="the store to be restarted")
    wait_for(lambda: "store ready, 1 lists" in compose("logs", "--no-color", "store").out, what="the store's new life")
    work(url, "again", done=2)


def test_volumes_outlive_a_change_of_the_file_and_a_stop(compose: Compose) -> None:
    compose("up", "-d")
    work(compose.url(), "one", "two", "three", done=3)
    former = compose.ids("store")
    file = compose.folder / "compose.yaml"
    file.write_text(
        file.read_text().replace("command: store.py", "command: store.py\n    labels: {changed: yes please}")
    )
    compose("up", "-d")
    assert compose.ids("store") != former
    work(compose.url(), done=3)
    compose("stop", "-t", "3")
    assert compose.ids(stopped=False) == []
    assert {one["State"]["ExitCode"] for one in inspect(compose.docker, *compose.ids("store"))} == {0}
    compose("start")
    wait_for(lambda: compose.ids("web", stopped=False), what="web to run")
    work(compose.url(), "four", done=4)
    compose("restart", "-t", "3", "web")
    work(compose.url(), "five", done=5)
    compose("down")
    assert compose.docker("volume", "ls", "-q", "--filter", OWN).lines == ["queue_kept"]


def test_networks_separate_and_aliases_lead(compose: Compose) -> None:
    compose("up", "-d")
    assert compose("exec", "-T", "worker", "python3", "store.py", "PING").line == "PONG"  # by the alias `queue`
    lookup = "import socket,sys; print(socket.gethostbyname(sys.argv[1]))"
    address = inspect(compose.docker, *compose.ids("store"))[0]["NetworkSettings"]["Networks"]["queue_back"][
        "IPAddress"
    ]
    for name in ("store", "queue"):
        assert compose("exec", "-T", "web", "python3", "-c", lookup, name).line == address
    routes = compose("exec", "-T", "worker", "cat", "/proc/net/route").lines
    assert not any(line.split()[1] == "00000000" for line in routes[1:]), "an internal network has a way out"


def test_a_service_that_never_gets_healthy_keeps_its_dependents_down(compose: Compose) -> None:
    file = compose.folder / "compose.yaml"
    text = (
        file.read_text()
        .replace('["CMD", "python3", "store.py", "PING"]', '["CMD", "false"]')
        .replace("retries: 20", "retries: 2")
    )
    file.write_text(text)
    assert compose("up", "-d", ok=False).code != 0
    assert compose.ids("store", stopped=False)
    assert compose.ids("web", stopped=False) == []
