"""A rolling update and back, then a canary, while somebody keeps asking: not one request fails."""

import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Final

from bennu.cli.client import ApiClient
from bennu.cli.demo.common import have_image
from bennu.cli.demo.services import wait_running, wait_until
from bennu.cli.demo.stage import SOURCE, DemoStage
from bennu.cli.output import say

# Each request is a new connection, twenty a second.
ASK: Final = "while :; do curl -s -m 5 localhost:8000 || echo FAILED; echo; sleep 0.05; done"

CANARY: Final = (
    "--label-add=bennu.rollout.strategy=canary",
    "--label-add=bennu.rollout.ready-within=3s",
    "--container-label-add=bennu.ready.tcp=9",
)


def roll(stage: DemoStage) -> None:
    have_image(stage, "webserver")
    folder = str(SOURCE / "examples/webserver")
    stage.type("build", "-q", "-t", "webserver:v2", "--build-arg", "VERSION=2", folder)
    if ApiClient(stage.host).json("GET", "/info")["Swarm"]["LocalNodeState"] != "active":
        stage.type("swarm", "init")
    stage.type("service", "create", "-d", "--name", "webserver", "--replicas=2", "-p", "8000:8000", "webserver:v1")
    wait_running(stage, "webserver", 2)
    wait_until(lambda: answers(stage), "an answer of the service")
    stage.tell("Somebody asks twenty times a second, each time on a new connection.")
    say(f"$ {ASK} &")
    asking = subprocess.Popen(stage.daemon.inside("sh", "-c", ASK), stdout=subprocess.PIPE, text=True)
    try:
        stage.type("service", "update", "-d", "--update-delay=1s", "--image=webserver:v2", "webserver")
        wait_until(lambda: state_of(stage) == "completed", "the update")
        stage.type("service", "ps", "webserver", expect="webserver:v2")
        stage.tell("And back.")
        stage.type("service", "update", "-d", "--rollback", "webserver")
        wait_until(lambda: state_of(stage) == "rollback_completed", "the rollback")
        stage.tell("A canary: one task of a version that never gets ready. Nobody meets it, and it goes by itself.")
        stage.type("service", "update", "-d", *CANARY, "--image=webserver:v2", "webserver")
        wait_until(lambda: state_of(stage) == "updating", "the canary")
        wait_until(lambda: state_of(stage) == "rollback_completed", "the verdict")
        stage.type_bennu("rollout", "status", "webserver", expect="were ready within 3 s")
    finally:
        asking.terminate()
    assert asking.stdout
    said = Counter(line for line in asking.stdout.read().splitlines() if line)
    for line, count in sorted(said.items()):
        say(f"{count:6d}  {line}")
    say(f"{said.total():6d}  requests, {said['FAILED']} failed")
    if said["FAILED"] or len(said) < 2:
        stage.surprise("requests failed, or only one version answered", "docker service update")
    stage.type("service", "rm", "webserver")
    stage.type("swarm", "leave", "--force")


def answers(stage: DemoStage) -> bool:
    argv = stage.daemon.inside("curl", "-s", "-o", "/dev/null", "-m", "2", "localhost:8000")
    return subprocess.run(argv, check=False).returncode == 0


def state_of(stage: DemoStage) -> str:
    service = ApiClient(stage.host).json("GET", "/services/webserver")
    return str((service.get("UpdateStatus") or {}).get("State", ""))


ACTS: Final[tuple[Callable[[DemoStage], None], ...]] = (roll,)
