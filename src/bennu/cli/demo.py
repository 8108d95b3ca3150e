"""demo: play scenes on real containers, with what the commands really say.

Every promise the narrator makes is checked against the output; a demo that is not as promised ends with exit code 1.
"""

import os
import shutil
import sys
from importlib import import_module
from typing import Final

from bennu.cli.client import Client
from bennu.cli.command import command, text
from bennu.cli.demo_stage import PROGRAMS, Stage, private_daemon, scratch_folder
from bennu.cli.failure import Failure, UsageFailure
from bennu.cli.output import say

PACE_S: Final = 0.6
BOTH: Final = "both"
SCENES: Final = (
    ("Signals and exit codes", "bennu.cli.scenes.signals"),
    ("Restart policies", "bennu.cli.scenes.restarts"),
    ("Health checks", "bennu.cli.scenes.health"),
    ("Services keep their number", "bennu.cli.scenes.services"),
    ("Rolling update and rollback", "bennu.cli.scenes.updates"),
    ("What no one else tells", "bennu.cli.scenes.why"),
)


@command(
    "[SCENE...]",
    text("--with", "Command to type: docker, bennu or both", default=BOTH),
    text("--pace", "Seconds to wait after each command", default=str(PACE_S)),
)
def demo(client: Client, words: list[str], *, pace: str, **rest: str) -> int:
    """`client` is not used: the demo starts a daemon of its own. Without words all scenes are played."""
    if os.geteuid() != 0:
        raise Failure("containers need root: sudo bennu demo")
    pace_s = read_pace(pace)
    scenes = [find_scene(word) for word in words] or list(SCENES)
    surprises: list[str] = []
    for program in programs(rest["with"]):
        with scratch_folder() as folder, private_daemon(folder) as daemon:
            say(f"A daemon of this demo's own answers at {daemon.host}; look in with {program} -H.")
            stage = Stage(program, find_program(program), folder, daemon, pace_s, sys.stdout.isatty())
            for title, module in scenes:
                say(f"\n=== {title}, with {program} ===")
                for act in import_module(module).ACTS:
                    act(stage)
            surprises += stage.surprises
    say("")
    for surprise in surprises:
        say(f"not as promised: {surprise}")
    say("Everything of the demo is removed." if not surprises else f"{len(surprises)} not as promised.")
    return 1 if surprises else 0


def find_scene(word: str) -> tuple[str, str]:
    """By its number or a word of its title. Raises: UsageFailure."""
    for number, scene in enumerate(SCENES, start=1):
        if word == str(number) or word.lower() in scene[0].lower():
            return scene
    titles = ", ".join(f"{number} {title}" for number, (title, _) in enumerate(SCENES, start=1))
    raise UsageFailure(f'no scene "{word}": {titles}')


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
