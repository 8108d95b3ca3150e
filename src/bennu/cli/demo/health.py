"""Health checks: starting, healthy, unhealthy; and what Bennu does about it when asked."""

import time
from collections.abc import Callable
from typing import Final

from bennu.cli.client import ApiClient
from bennu.cli.demo.common import have_image
from bennu.cli.demo.stage import DemoStage

CHECK: Final = ("--health-interval=1s", "--health-timeout=3s", "--health-retries=3")
CURL: Final = "curl -f http://localhost:8080/health || exit 1"


def turn_bad(stage: DemoStage) -> None:
    have_image(stage, "healthserver")
    stage.tell("A server that can be told to feel bad, checked once a second.")
    words = ("--name", "health-check", *CHECK, "--health-cmd", CURL, "healthserver:v1")
    stage.type("run", "-p", "8080:8080", "-d", "--rm", *words)
    wait_status(stage, "health-check", "healthy")
    stage.type("ps", expect="(healthy)")
    stage.type_host("curl", "-s", "http://localhost:8080/environment/health?status=false")
    wait_status(stage, "health-check", "unhealthy")
    stage.tell("Docker leaves an unhealthy container running, and so does Bennu unless it is told otherwise.")
    stage.type("ps", expect="(unhealthy)")
    stage.type("rm", "-f", "health-check")


def be_revived(stage: DemoStage) -> None:
    stage.tell("With the label bennu.on-unhealthy=restart it is brought back, by the same back-off as a crash.")
    words = ("--name", "revived", "-l", "bennu.on-unhealthy=restart", *CHECK, "--health-cmd", CURL, "healthserver:v1")
    stage.type("run", "-p", "8080:8080", "-d", *words)
    wait_status(stage, "revived", "healthy")
    stage.type_host("curl", "-s", "http://localhost:8080/environment/health?status=false")
    wait_lives(stage, "revived", 2)
    wait_status(stage, "revived", "healthy")
    stage.type("ps", expect="(healthy)")
    stage.type_bennu("why", "revived", expect="unhealthy")
    stage.type("rm", "-f", "revived")


def wait_status(stage: DemoStage, name: str, status: str) -> None:
    for _ in range(300):
        if ApiClient(stage.host).json("GET", f"/containers/{name}/json")["State"]["Health"]["Status"] == status:
            return
        time.sleep(0.1)


def wait_lives(stage: DemoStage, name: str, lives: int) -> None:
    for _ in range(300):
        if ApiClient(stage.host).json("GET", f"/containers/{name}/json")["Bennu"]["Lives"] >= lives:
            return
        time.sleep(0.1)


ACTS: Final[tuple[Callable[[DemoStage], None], ...]] = (turn_bad, be_revived)
