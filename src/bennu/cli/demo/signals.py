"""Signals and exit codes."""

import time
from collections.abc import Callable
from typing import Final

from bennu.cli.demo.common import wait_alive
from bennu.cli.demo.stage import SOURCE, DemoStage, base_image
from bennu.cli.output import say


def build(stage: DemoStage) -> None:
    stage.tell("No registry is needed: the base image was made from Debian packages.")
    stage.type("import", "-c", 'CMD ["python3"]', str(base_image("python")), "python:latest", expect="sha256:")
    stage.tell("signaltest says which signal it got, and exits with its number. PID 1 is python3: the exec form.")
    folder = str(SOURCE / "examples/signaltest")
    stage.type("build", "--no-cache", "-t", "signaltest:v1", folder, expect="Successfully tagged signaltest:v1")


def see_it_live(stage: DemoStage) -> None:
    stage.tell("It lives.")
    stage.type("run", "-d", "--name", "signaltest", "signaltest:v1")
    stage.follow("logs", "-f", "signaltest", seconds=2.5)
    stage.type("ps", expect="Up ")


def send_signals(stage: DemoStage) -> None:
    stage.tell("A signal that the program handles: it chooses its own exit code.")
    for number, name, code in ((2, "SIGINT", 2), (15, "SIGTERM", 15), (10, "SIGUSR1", 0)):
        stage.type("kill", f"--signal={name}", "signaltest")
        stage.type("wait", "signaltest", expect=f"{code}\n")
        stage.type("logs", "--tail", "1", "signaltest", expect=f"signal {number} , Handling")
        stage.type("ps", "-a", expect=f"Exited ({code}) ")
        stage.type("start", "signaltest")
        wait_alive(stage)
    stage.tell("SIGKILL cannot be handled: 128 + 9.")
    stage.type("kill", "signaltest")
    stage.type("wait", "signaltest", expect="137\n")
    stage.type("ps", "-a", expect="Exited (137) ")


def stop_in_both_forms(stage: DemoStage) -> None:
    stage.tell("stop sends SIGTERM, waits, then SIGKILL. This program ends at SIGTERM, so nobody waits.")
    stage.type("start", "signaltest")
    wait_alive(stage)
    stage.type("stop", "signaltest")
    stage.type("inspect", "-f", "{{.State.ExitCode}}", "signaltest", expect="15\n")
    stage.tell("The shell form: /bin/sh is PID 1, passes nothing on, and the grace period runs out.")
    folder = SOURCE / "examples/signaltest"
    stage.type("build", "-q", "-f", str(folder / "Dockerfile.shell"), "-t", "signaltest:shell", str(folder))
    stage.type("run", "-d", "--name", "shell", "signaltest:shell")
    wait_alive(stage, "shell")
    started = time.monotonic()
    stage.type("stop", "-t", "3", "shell")
    say(f"(that took {time.monotonic() - started:.1f} s)")
    stage.type("inspect", "-f", "{{.State.ExitCode}}", "shell", expect="137\n")
    stage.tell("--init puts a first process in front that passes signals on.")
    stage.type("run", "-d", "--init", "--name", "with-init", "signaltest:shell")
    wait_alive(stage, "with-init")
    stage.type("stop", "-t", "3", "with-init")
    stage.type("inspect", "-f", "{{.State.ExitCode}}", "with-init", expect="143\n")


def meet_exit_codes(stage: DemoStage) -> None:
    stage.tell("Exit codes: 125 the run itself failed, 126 cannot be invoked, 127 not found, 128+n died of signal n.")
    stage.type("run", "--rm", "--no-such-flag", "python", code=125)
    stage.type("run", "--rm", "python", "/etc", code=126)
    stage.type("run", "--rm", "python", "no-such-program", code=127)
    stage.type("run", "--rm", "python", "sh", "-c", "exit 255", code=255)
    stage.type("run", "--rm", "--init", "python", "sh", "-c", "kill -TERM $$", code=143)


def look_back(stage: DemoStage) -> None:
    stage.tell("kill and stop keep the container, rm removes it, and every death is on record with its exit code.")
    now = str(int(time.time()) + 1)
    filters = ("--filter", "event=die", "--filter", "container=signaltest")
    stage.type("events", "--since", "1h", "--until", now, *filters, expect="exitCode=137")
    stage.type("rm", "-f", "signaltest", "shell", "with-init")
    stage.type("ps", "-a")


ACTS: Final[tuple[Callable[[DemoStage], None], ...]] = (
    build,
    see_it_live,
    send_signals,
    stop_in_both_forms,
    meet_exit_codes,
    look_back,
)
