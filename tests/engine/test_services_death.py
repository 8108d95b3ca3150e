"""kill -9 of bennud at any instruction, while services restart, scale, and come and go: all is right again after.

No task is replaced that did not end, no exit code is lost, and nothing is left of what was removed.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from support import images, traces
from support.daemon import Daemon
from support.dying import SOUND, DaemonDied, ask_or_die, die_once
from support.swarm import SwarmNode
from support.waiting import wait_for

EXIT_CODE = 37
MS = 10**6


def a_service(name: str, replicas: int, script: str) -> dict[str, Any]:
    container = {"Image": "busybox:latest", "Args": ["sh", "-c", script], "StopGracePeriod": 0}
    restart = {"Condition": "any", "Delay": 200 * MS}
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": container, "RestartPolicy": restart},
        "Mode": {"Replicated": {"Replicas": replicas}},
    }


@dataclass
class Person:
    """Scales one service, makes and removes others, and remembers what was acknowledged."""

    daemon: Daemon
    draw: random.Random
    replicas: int = 2  # of the service that is scaled, as far as it was acknowledged
    asked: int | None = None  # what was asked for last, if nobody answered
    there: dict[str, bool] = field(default_factory=dict)  # services, by whether their last verb was acknowledged
    gone: set[str] = field(default_factory=set)
    count: int = 0

    def live(self, until_dead: Callable[[], bool]) -> None:
        with suppress(DaemonDied):
            while not until_dead():
                self.draw.choice((self.scale, self.make, self.remove, lambda: time.sleep(0.1)))()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return ask_or_die(self.daemon, method, path, body)

    def scale(self) -> None:
        number = self.draw.randint(0, 5)
        status, found = self.ask("GET", "/services/scaled")
        assert status == 200, found
        spec = found["Spec"] | {"Mode": {"Replicated": {"Replicas": number}}}
        self.asked = number
        status, answer = self.ask("POST", f"/services/scaled/update?version={found['Version']['Index']}", spec)
        if status == 200:
            self.replicas = number
        else:
            assert "out of sequence" in answer["message"], answer
        self.asked = None

    def make(self) -> None:
        self.count += 1
        name = f"s{self.count}"
        self.there[name] = False
        assert self.ask("POST", "/services/create", a_service(name, 1, "sleep 1000"))[0] == 201
        self.there[name] = True

    def remove(self) -> None:
        if not self.there:
            return
        name = self.draw.choice(list(self.there))
        self.there[name] = False
        if self.ask("DELETE", f"/services/{name}")[0] in (200, 404):
            del self.there[name]
            self.gone.add(name)


@pytest.fixture
def node(make_daemon: Callable[..., Daemon]) -> Iterator[SwarmNode]:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    daemon.docker("swarm", "init")
    yield SwarmNode(daemon)


def pids_of(node: SwarmNode, service: str) -> dict[str, int]:
    return {task["ID"]: task["Status"]["ContainerStatus"]["PID"] for task in node.running(service)}


def check(node: SwarmNode, person: Person, steady: dict[str, int]) -> None:
    assert pids_of(node, "steady") == steady, "a task was replaced that did not end"
    names = {service["Spec"]["Name"] for service in node.ask("/services")}
    assert {name for name, is_sure in person.there.items() if is_sure} <= names, "an acknowledged service is lost"
    assert not names & person.gone, "a removed service is back"
    wanted = {person.replicas, person.asked if person.asked is not None else person.replicas}

    def settled() -> bool:
        slots = Counter(task["Slot"] for task in node.running("scaled"))
        return len(slots) in wanted and all(number == 1 for number in slots.values())

    wait_for(settled, timeout_s=30, what=f"{wanted} tasks", describe=lambda: str(node.tasks("scaled")))
    for task in node.tasks("dies"):
        if task["Status"]["State"] == "failed":
            assert task["Status"]["ContainerStatus"]["ExitCode"] == EXIT_CODE, task
            assert task["Status"]["Err"] == f"task: non-zero exit ({EXIT_CODE})"
    wait_for(
        lambda: orphans(node) == set(), timeout_s=30, what="no container without its task", describe=node.daemon.log
    )
    assert not [line for line in node.daemon.log().splitlines() if "Traceback" in line], node.daemon.log()[-4000:]


def orphans(node: SwarmNode) -> set[str]:
    """Containers whose task is no more."""
    there = {item["Id"] for item in node.ask("/containers/json?all=1")}
    return there - {task["Status"].get("ContainerStatus", {}).get("ContainerID", "") for task in node.ask("/tasks")}


def die_often(node: SwarmNode, times: int, seed: int) -> None:
    print(f"seed {seed}")  # replay: give this seed to the test
    person = Person(node.daemon, random.Random(seed))
    for body in (
        a_service("steady", 2, "sleep 100000"),
        a_service("dies", 2, f"sleep 0.4; exit {EXIT_CODE}"),
        a_service("scaled", person.replicas, "sleep 100000"),
    ):
        assert person.ask("POST", "/services/create", body)[0] == 201
    node.wait_running("steady", 2)
    steady = pids_of(node, "steady")
    node.daemon.stop()
    for _ in range(times):
        die_once(node.daemon, person.draw, person.live)
    node.daemon.program = SOUND
    node.daemon.start()
    check(node, person, steady)
    node.clear()
    traces.assert_nothing_left(node.daemon, set())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_services_outlive_any_death_of_the_daemon(node: SwarmNode) -> None:
    die_often(node, times=10, seed=random.randrange(10**6))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_deaths_of_a_daemon_with_services(node: SwarmNode) -> None:
    for _ in range(5):
        die_often(node, times=20, seed=random.randrange(10**6))
