"""Restart policies: who comes back, and who stays down."""

import time
from collections.abc import Callable
from typing import Final

from bennu.cli.client import ApiClient
from bennu.cli.demo.common import have_image, wait_alive
from bennu.cli.demo.stage import DemoStage


def come_back(stage: DemoStage) -> None:
    have_image(stage, "signaltest")
    stage.tell("on-failure:3 brings it back after a failure, at most three times in a row.")
    stage.type("run", "-d", "--name=phoenix", "--restart=on-failure:3", "signaltest:v1")
    wait_alive(stage, "phoenix")
    stage.tell("A signal from outside of the engine: the program exits with 2, which is a failure.")
    stage.type_host("kill", "-s", "INT", str(pid_of(stage)))
    wait_count(stage, 1)
    stage.type("ps", expect="Up ")
    stage.type("inspect", "-f", "{{.RestartCount}} {{json .HostConfig.RestartPolicy}}", "phoenix", expect="1 ")


def stay_down(stage: DemoStage) -> None:
    stage.tell("Exit code 0 is no failure: it stays down.")
    wait_alive(stage, "phoenix")
    stage.type_host("kill", "-s", "USR1", str(pid_of(stage)))
    stage.type("wait", "phoenix", expect="0")
    stage.type("ps", "-a", expect="Exited (0)")
    stage.tell("What a person stops stays stopped, under any policy.")
    stage.type("run", "-d", "--name=obeys", "--restart=always", "signaltest:v1")
    wait_alive(stage, "obeys")
    stage.type("stop", "obeys")
    stage.type("ps", "-a", expect="Exited (15)")
    stage.tell("--rm and a restart policy exclude each other.")
    stage.type("run", "--rm", "--restart=always", "signaltest:v1", code=125)
    stage.type("rm", "-f", "phoenix", "obeys")


def pid_of(stage: DemoStage) -> int:
    return int(ApiClient(stage.host).json("GET", "/containers/phoenix/json")["State"]["Pid"])


def wait_count(stage: DemoStage, count: int) -> None:
    for _ in range(100):
        found = ApiClient(stage.host).json("GET", "/containers/phoenix/json")
        if found["RestartCount"] >= count and found["State"]["Pid"]:
            return
        time.sleep(0.05)


ACTS: Final[tuple[Callable[[DemoStage], None], ...]] = (come_back, stay_down)
