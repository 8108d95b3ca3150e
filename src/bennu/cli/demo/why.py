"""What no one else tells: why a container died, and that all live on while the daemon is dead."""

from collections.abc import Callable
from typing import Final

from bennu.cli.client import ApiClient
from bennu.cli.demo.common import have_image, wait_alive
from bennu.cli.demo.stage import DemoStage
from bennu.cli.output import say


def tell_why(stage: DemoStage) -> None:
    have_image(stage, "signaltest")
    stage.tell("Stopped by a person: who it was, what was sent, what it said last, what was decided then.")
    stage.type("run", "-d", "--name", "asked", "signaltest:v1")
    wait_alive(stage, "asked")
    stage.type("stop", "asked")
    stage.type_bennu("why", "asked", expect="was stopped by")
    stage.tell("Killed by the kernel, for memory.")
    glutton = "x = []\nwhile True: x.append(' ' * 1000000)"
    stage.type("run", "--name", "glutton", "-m", "32m", "python", "python3", "-c", glutton, code=137)
    stage.type_bennu("why", "glutton", expect="for memory")
    stage.tell("All the lives of one that keeps dying.")
    stage.type("run", "-d", "--name", "tries", "--restart=on-failure:2", "python", "sh", "-c", "exit 3")
    stage.type("wait", "tries")
    stage.type_bennu("why", "--all", "tries", expect="exited")
    stage.type("rm", "-f", "asked", "glutton", "tries")


def outlive_the_daemon(stage: DemoStage) -> None:
    stage.tell("kill -9 of the daemon: the container does not notice.")
    stage.type("run", "-d", "--name", "outlives", "signaltest:v1")
    stage.type("run", "-d", "--name", "mortal", "python", "sh", "-c", "sleep 1; exit 42")
    pid = stage.type("inspect", "-f", "{{.State.Pid}}", "outlives")
    say(f"$ kill -9 {stage.daemon.pid}   # bennud")
    stage.daemon.kill()
    stage.type("ps", code=1)
    stage.type_host("sleep", "1.5")
    say("$ bennud &")
    stage.daemon.start()
    stage.type("inspect", "-f", "{{.State.Pid}}", "outlives", expect=pid)
    stage.tell("What ended meanwhile has its true exit code.")
    ApiClient(stage.host).call("POST", "/containers/mortal/wait")
    stage.type("ps", "-a", expect="Exited (42)")
    stage.type("rm", "-f", "outlives", "mortal")


ACTS: Final[tuple[Callable[[DemoStage], None], ...]] = (tell_why, outlive_the_daemon)
