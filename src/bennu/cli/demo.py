"""demo: play a scene on real containers, with what the commands really say.

Every promise the narrator makes is checked against the output; a demo that is not as promised ends with exit code 1.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from bennu.cli.client import Client
from bennu.cli.command import command, text
from bennu.cli.demo_stage import PROGRAMS, SOURCE, Stage, base_image, private_daemon, scratch_folder
from bennu.cli.failure import Failure, UsageFailure
from bennu.cli.output import say

PACE_S: Final = 0.6
BOTH: Final = "both"


@command(
    "",
    text("--with", "Command to type: docker, bennu or both", default=BOTH),
    text("--pace", "Seconds to wait after each command", default=str(PACE_S)),
    most=0,
)
def demo(client: Client, words: list[str], *, pace: str, **rest: str) -> int:
    """`client` is not used: the demo starts a daemon of its own."""
    if os.geteuid() != 0:
        raise Failure("containers need root: sudo bennu demo")
    pace_s = read_pace(pace)
    surprises: list[str] = []
    for program in programs(rest["with"]):
        with scratch_folder() as folder:
            say(f"\n=== Signals and exit codes, with {program} ===")
            with private_daemon(folder) as host:
                say(f"A daemon of this demo's own answers at {host}; look in from another terminal with {program} -H.")
                stage = Stage(program, find_program(program), folder, host, pace_s, sys.stdout.isatty())
                for act in ACTS:
                    act(stage)
                surprises += stage.surprises
    say("")
    for surprise in surprises:
        say(f"not as promised: {surprise}")
    say("Everything of the demo is removed." if not surprises else f"{len(surprises)} not as promised.")
    return 1 if surprises else 0


def read_pace(given: str) -> float:
    try:
        return max(0.0, float(given))
    except ValueError:
        raise UsageFailure(f'invalid argument "{given}" for "--pace" flag: not a number') from None


def programs(wanted: str) -> list[str]:
    if wanted not in ("docker", "bennu", BOTH):
        raise UsageFailure(f'invalid argument "{wanted}" for "--with" flag: docker, bennu or both')
    if wanted != BOTH:
        return [wanted]
    if shutil.which("docker"):
        return ["docker", "bennu"]
    say("There is no docker command here; playing with bennu alone.")
    return ["bennu"]


def find_program(name: str) -> str:
    """Raises: Failure."""
    path = str(PROGRAMS / "bennu") if name == "bennu" else shutil.which(name)
    if not path:
        raise Failure(f"there is no {name} command here")
    return path


# --- the acts of the scene ------------------------------------------------------------------------------------------


def build(stage: Stage) -> None:
    stage.tell("No registry is needed: the base image was made from Debian packages.")
    stage.type("import", "-c", 'CMD ["python3"]', str(base_image("python")), "python:latest", expect="sha256:")
    stage.tell("signaltest says which signal it got, and exits with its number. PID 1 is python3: the exec form.")
    folder = str(SOURCE / "examples/signaltest")
    stage.type("build", "--no-cache", "-t", "signaltest:v1", folder, expect="Successfully tagged signaltest:v1")


def see_it_live(stage: Stage) -> None:
    stage.tell("It lives.")
    stage.type("run", "-d", "--name", "signaltest", "signaltest:v1")
    stage.follow("logs", "-f", "signaltest", seconds=2.5)
    stage.type("ps", expect="Up ")


def send_signals(stage: Stage) -> None:
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


def stop_in_both_forms(stage: Stage) -> None:
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


def meet_exit_codes(stage: Stage) -> None:
    stage.tell("Exit codes: 125 the run itself failed, 126 cannot be invoked, 127 not found, 128+n died of signal n.")
    stage.type("run", "--rm", "--no-such-flag", "python", code=125)
    stage.type("run", "--rm", "python", "/etc", code=126)
    stage.type("run", "--rm", "python", "no-such-program", code=127)
    stage.type("run", "--rm", "python", "sh", "-c", "exit 255", code=255)
    stage.type("run", "--rm", "--init", "python", "sh", "-c", "kill -TERM $$", code=143)


def look_back(stage: Stage) -> None:
    stage.tell("kill and stop keep the container, rm removes it, and every death is on record with its exit code.")
    now = str(int(time.time()) + 1)
    filters = ("--filter", "event=die", "--filter", "container=signaltest")
    stage.type("events", "--since", "1h", "--until", now, *filters, expect="exitCode=137")
    stage.type("rm", "-f", "signaltest", "shell", "with-init")
    stage.type("ps", "-a")


def wait_alive(stage: Stage, name: str = "signaltest") -> None:
    """Until the program of this life has set its handlers: PID 1 does not even notice a signal before that."""
    client = Client(stage.host)
    started = client.json("GET", f"/containers/{name}/json")["State"]["StartedAt"]
    since = datetime.fromisoformat(f"{started[:26].rstrip('Z')}+00:00").timestamp()
    query: dict[str, str | bool] = {"stdout": True, "since": f"{since:.6f}"}
    for _ in range(200):
        if b"alive" in client.call("GET", f"/containers/{name}/logs", query=query).read():
            return
        time.sleep(0.05)
    raise Failure(f"{name} does not come alive")


ACTS: Final[tuple[Callable[[Stage], None], ...]] = (
    build,
    see_it_live,
    send_signals,
    stop_in_both_forms,
    meet_exit_codes,
    look_back,
)
