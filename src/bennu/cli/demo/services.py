"""Services keep their number, and replace what is unhealthy."""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from bennu.cli.client import ApiClient
from bennu.cli.demo.common import have_image
from bennu.cli.demo.stage import DemoStage
from bennu.cli.failure import CommandFailure

CHECK: Final = ("--health-interval=1s", "--health-timeout=3s", "--health-retries=2")
CURL: Final = "curl -f http://localhost:8080/health || exit 1"


def keep_their_number(stage: DemoStage) -> None:
    have_image(stage, "signaltest")
    stage.tell("A service is a number of tasks that somebody looks after.")
    stage.type("swarm", "init")
    words = ("--replicas=2", "--restart-condition=on-failure", "--restart-delay=2s", "signaltest:v1")
    stage.type("service", "create", "-d", "--name", "signaltest", *words)
    wait_running(stage, "signaltest", 2)
    stage.type("service", "ps", "signaltest", expect="Running")
    stage.tell("One task dies of an error: it is replaced after the delay.")
    stage.type("kill", "--signal=SIGTERM", a_container(stage, "signaltest"))
    wait_state(stage, "signaltest", "failed")
    wait_running(stage, "signaltest", 2)
    stage.type("service", "ps", "signaltest", expect="task: non-zero exit (15)")
    stage.tell("Another one finishes with exit code 0: on-failure does not replace it.")
    stage.type("kill", "--signal=SIGUSR1", a_container(stage, "signaltest"))
    wait_state(stage, "signaltest", "complete")
    stage.type("service", "ls", expect="1/2")
    stage.type_bennu("why", "signaltest", expect="signaltest.1")
    stage.type("service", "rm", "signaltest")


def replace_the_unhealthy(stage: DemoStage) -> None:
    have_image(stage, "healthserver")
    stage.tell("With a health check a task counts only when it is healthy, and an unhealthy one is replaced.")
    words = (
        "--replicas",
        "2",
        "-p",
        "8080:8080",
        *CHECK,
        "--restart-delay=1s",
        "--health-cmd",
        CURL,
        "healthserver:v1",
    )
    stage.type("service", "create", "-d", "--name", "swarmhealth", *words)
    wait_running(stage, "swarmhealth", 2)
    stage.type_host("curl", "-s", "http://localhost:8080/environment/health?status=false")
    wait_state(stage, "swarmhealth", "failed")
    wait_running(stage, "swarmhealth", 2)
    stage.type("service", "ps", "--no-trunc", "swarmhealth", expect="unhealthy container")
    stage.type("service", "rm", "swarmhealth")


def tasks_of(stage: DemoStage, service: str) -> list[dict[str, Any]]:
    query = {"filters": json.dumps({"service": [service]})}
    found: list[dict[str, Any]] = ApiClient(stage.host).json("GET", "/tasks", query=query)
    return found


def running(stage: DemoStage, service: str) -> list[dict[str, Any]]:
    return [
        task
        for task in tasks_of(stage, service)
        if task["Status"]["State"] == "running" and task["DesiredState"] == "running"
    ]


def a_container(stage: DemoStage, service: str) -> str:
    found: str = running(stage, service)[0]["Status"]["ContainerStatus"]["ContainerID"]
    return found[:12]


def wait_running(stage: DemoStage, service: str, count: int) -> None:
    wait_until(lambda: len(running(stage, service)) >= count, f"{count} tasks of {service}")


def wait_state(stage: DemoStage, service: str, state: str) -> None:
    wait_until(lambda: any(task["Status"]["State"] == state for task in tasks_of(stage, service)), f"a {state} task")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise CommandFailure(f"waited in vain for {what}")


ACTS: Final[tuple[Callable[[DemoStage], None], ...]] = (keep_their_number, replace_the_unhealthy)
