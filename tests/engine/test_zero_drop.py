"""Updates, rollbacks, scaling, switches, a failing canary and a daemon's death, all under load: nothing is dropped.

The server is the story's: it has no health check and dies of SIGTERM at once.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support import images
from support.daemon import Daemon
from support.load import Load, Result
from support.swarm import open_swarm
from support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
ONE, TWO = "You are using version 1\n", "You are using version 2\n"
QUICK = ("--update-monitor=200ms", "--rollback-monitor=200ms")
ROLLOUT_S = 60.0
LISTENS = "grep -q ':1F40 .* 0A ' /proc/net/tcp"  # whoever is called healthy gets requests, so it had better


@pytest.fixture(scope="module")
def swarm(able: None) -> Iterator[Daemon]:
    """A swarm of one with both versions of the web server."""
    with open_swarm("python") as node:
        for version in ("1", "2"):
            images.build_example(
                node.daemon.docker, "webserver", f"webserver:v{version}", f"--build-arg=VERSION={version}", "--no-cache"
            )
        yield node.daemon


@pytest.fixture
def web(swarm: Daemon) -> Iterator["Service"]:
    """The service `web`: two tasks of version 1, reached through a published port."""
    with served(swarm, "web") as service:
        yield service


class Service:
    """A service under test, as a person with the docker command and curl meets it."""

    def __init__(self, daemon: Daemon, name: str, port: int) -> None:
        self.daemon = daemon
        self.name = name
        self.port = port

    def update(self, *words: str) -> None:
        self.daemon.docker("service", "update", "-d", "--no-resolve-image", *words, self.name)

    def inspect(self) -> dict[str, Any]:
        return json.loads(self.daemon.docker("service", "inspect", self.name).out)[0]

    def rollout(self) -> dict[str, Any]:
        status, body = self.daemon.request("GET", f"/bennu/v1/services/{self.name}/rollout")
        assert status == 200, body
        return json.loads(body)

    def verdict(self) -> str:
        reasons = [one["Reason"] for one in self.rollout()["Reasons"]]
        return next(reason for reason in reasons if reason.startswith("canary: "))

    @property
    def state(self) -> str:
        return self.inspect().get("UpdateStatus", {}).get("State", "")

    def wait_state(self, wanted: str, timeout_s: float = ROLLOUT_S) -> None:
        wait_for(lambda: self.state == wanted, timeout_s=timeout_s, what=f"state {wanted}", describe=self.describe)

    def wait_running(self, count: int) -> None:
        wait_for(lambda: self.count_running() == count, timeout_s=30, what=f"{count} tasks", describe=self.describe)

    def count_running(self) -> int:
        states = self.daemon.docker(
            "service", "ps", "--format={{.CurrentState}}", "--filter=desired-state=running", self.name
        ).lines
        containers = self.daemon.docker("ps", "-q", f"--filter=label=com.docker.swarm.service.name={self.name}").lines
        running = sum(1 for state in states if state.startswith("Running"))
        return running if running == len(containers) else -1

    def describe(self) -> str:
        told = self.daemon.docker("service", "ps", "--no-trunc", self.name, ok=False).out
        return f"{self.inspect().get('UpdateStatus')}\n{told}"


@contextmanager
def served(daemon: Daemon, name: str, *options: str) -> Iterator[Service]:
    port = free_port()
    daemon.docker(
        "service", "create", "-d", "--no-resolve-image", f"--name={name}", "--replicas=2", f"-p={port}:8000",
        *QUICK, *options, "webserver:v1",
    )  # fmt: skip
    service = Service(daemon, name, port)
    try:
        service.wait_running(2)
        yield service
    finally:
        daemon.docker("service", "rm", name, ok=False)
        wait_for(lambda: not daemon.docker("ps", "-q").lines, timeout_s=40, what="its tasks to be gone")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def under_load(service: Service, act: Callable[[], None], **how: Any) -> Result:
    with Load("127.0.0.1", service.port, **how) as load:
        time.sleep(0.5)
        act()
        time.sleep(0.5)
    found = load.result
    print(
        f"{found.requests} requests, {found.rate:.0f}/s, {found.connections} connections, {found.repeated} repeated, "
        f"slowest {found.slowest_s:.3f} s, {found.answers}"
    )
    return found


def assert_nothing_dropped(result: Result, *, versions: set[str]) -> None:
    assert result.failed == 0, f"{result.failed} of {result.requests} failed: {result.failures}"
    assert result.requests > 100
    assert set(result.answers) == versions


def test_an_update_and_a_rollback_drop_no_request(web: Service) -> None:
    def act() -> None:
        web.update("--image=webserver:v2")
        web.wait_state("completed")
        web.daemon.docker("service", "rollback", "-d", web.name)
        web.wait_state("rollback_completed")

    assert_nothing_dropped(under_load(web, act), versions={ONE, TWO})


def test_scaling_up_and_down_drops_no_request(web: Service) -> None:
    def act() -> None:
        for count in (6, 2):
            web.daemon.docker("service", "scale", "-d", f"{web.name}={count}")
            web.wait_running(count)

    assert_nothing_dropped(under_load(web, act), versions={ONE})


def test_the_daemons_death_in_the_middle_of_an_update_drops_no_request(web: Service) -> None:
    def act() -> None:
        web.update("--image=webserver:v2", "--update-delay=500ms")
        wait_for(lambda: "v2" in web.daemon.docker("ps", "--format={{.Image}}").out, what="the first new task")
        web.daemon.kill()
        time.sleep(0.5)
        web.daemon.start()
        web.wait_state("completed")

    assert_nothing_dropped(under_load(web, act), versions={ONE, TWO})


def test_the_switch_from_blue_to_green_drops_no_request(web: Service) -> None:
    def act() -> None:
        labels = {"strategy": "blue-green", "settle": "500ms", "keep-warm": "1s"}
        web.update("--image=webserver:v2", *(f"--label-add=bennu.rollout.{key}={text}" for key, text in labels.items()))
        web.wait_state("completed")

    assert_nothing_dropped(under_load(web, act), versions={ONE, TWO})
    assert "switched" in " ".join(one["Reason"] for one in web.rollout()["Reasons"])


def test_going_back_to_blue_while_it_is_warm_drops_no_request(web: Service) -> None:
    def act() -> None:
        labels = {"strategy": "blue-green", "settle": "200ms", "keep-warm": "5m"}
        blue = set(web.daemon.docker("ps", "-q").lines)
        web.update("--image=webserver:v2", *(f"--label-add=bennu.rollout.{key}={text}" for key, text in labels.items()))
        wait_for(lambda: web.rollout()["Switched"], timeout_s=30, what="the switch", describe=web.describe)
        time.sleep(0.5)
        web.daemon.bennu("rollout", "abort", web.name)
        web.wait_state("rollback_completed")
        wait_for(lambda: set(web.daemon.docker("ps", "-q").lines) == blue, timeout_s=20, what="green to be gone")

    assert_nothing_dropped(under_load(web, act), versions={ONE, TWO})


def test_a_canary_that_loses_its_health_rolls_back_and_drops_no_request(web: Service) -> None:
    def act() -> None:
        web.update(
            "--image=webserver:v2",
            "--label-add=bennu.rollout.strategy=canary",
            "--label-add=bennu.rollout.confidence=0.8",
            "--restart-delay=100ms",
            "--health-interval=200ms",
            "--health-retries=1",
            "--health-start-period=20s",
            f"--health-cmd={LISTENS} || exit 1; echo >> /tmp/probes; test $(wc -l < /tmp/probes) -lt 8",
        )
        web.wait_state("rollback_completed")

    assert_nothing_dropped(under_load(web, act), versions={ONE, TWO})
    assert "lost its health" in web.verdict() or "died" in web.verdict()


def test_a_canary_that_crashes_rolls_back_and_only_its_own_requests_suffer(web: Service) -> None:
    def act() -> None:
        web.update(
            "--image=webserver:v2",
            "--label-add=bennu.rollout.strategy=canary",
            "--restart-delay=100ms",
            "--entrypoint=timeout 1 python3 webserver.py 2",
        )
        web.wait_state("rollback_completed")

    result = under_load(web, act)
    assert "died" in web.verdict()
    assert set(result.answers) <= {ONE, TWO}
    assert result.failed < result.requests / 5, result.failures


def test_connections_that_are_kept_move_to_the_new_version(web: Service) -> None:
    def act() -> None:
        web.update("--image=webserver:v2", "--label-add=bennu.drain.deadline=2s")
        web.wait_state("completed")

    result = under_load(web, act, keep_alive=True, workers=8)
    assert_nothing_dropped(result, versions={ONE, TWO})
    assert result.connections < result.requests / 4


def test_a_slow_request_in_flight_at_the_switch_completes(web: Service) -> None:
    def act() -> None:
        web.update("--image=webserver:v2")
        web.wait_state("completed")

    result = under_load(web, act, workers=4, rate=100, path="/slow")
    assert result.failed == 0, result.failures
    assert set(result.answers) == {ONE, TWO}
    assert result.slowest_s < 6


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_rounds_of_updates_switches_deaths_and_scaling_drop_no_request(web: Service) -> None:
    """Everything above again and again under one load, twenty rounds."""
    rounds = 20

    def act() -> None:
        for number in range(rounds):
            version = 2 - number % 2
            strategy = ("rolling", "blue-green", "canary")[number % 3]
            web.update(
                f"--image=webserver:v{version}",
                f"--label-add=bennu.rollout.strategy={strategy}",
                "--label-add=bennu.rollout.watch=2s",
                "--label-add=bennu.rollout.keep-warm=1s",
                f"--update-order={('stop-first', 'start-first')[number // 2 % 2]}",
            )
            if number % 4 == 3:
                web.daemon.kill()
                web.daemon.start()
            web.wait_state("completed")
            web.daemon.docker("service", "scale", "-d", f"{web.name}={(6, 2)[number % 2]}")
            web.wait_running((6, 2)[number % 2])

    assert_nothing_dropped(under_load(web, act), versions={ONE, TWO})


def test_a_version_that_is_never_ready_gets_no_request(web: Service) -> None:
    def act() -> None:
        web.update(
            "--image=webserver:v2",
            "--update-order=start-first",
            "--container-label-add=bennu.ready.tcp=9",
        )
        wait_for(lambda: "v2" in web.daemon.docker("ps", "--format={{.Image}}").out, what="the new task's container")
        time.sleep(3)
        assert web.state == "updating"
        web.daemon.docker("service", "rollback", "-d", web.name)
        web.wait_state("rollback_completed")

    assert_nothing_dropped(under_load(web, act), versions={ONE})


def test_a_canary_that_refuses_connections_gets_none_and_is_taken_back(web: Service) -> None:
    def act() -> None:
        web.update(
            "--image=webserver:v2",
            "--entrypoint=sleep 1000",
            "--label-add=bennu.ready.within=1s",
            *(f"--label-add=bennu.rollout.{said}" for said in ("strategy=canary", "ready-within=4s", "watch=1s")),
        )
        web.wait_state("rollback_completed")

    assert_nothing_dropped(under_load(web, act), versions={ONE})
    assert "0 of 1 slots of the new version were ready within 4 s" in web.verdict()
