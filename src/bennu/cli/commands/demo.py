"""demo: play scenes on real containers, with what the commands really say.

Every promise the narrator makes is checked against the output; a demo that is not as promised ends with exit code 1.
"""

import os
import sys
from importlib import import_module
from typing import Final

import click

from bennu.cli.demo.stage import DemoStage, private_daemon, scratch_folder
from bennu.cli.docker import CURE, find_docker
from bennu.cli.failure import CommandFailure
from bennu.cli.output import say

PACE_S: Final = 0.6
SCENES: Final = (
    ("Signals and exit codes", "bennu.cli.demo.signals"),
    ("Restart policies", "bennu.cli.demo.restarts"),
    ("Health checks", "bennu.cli.demo.health"),
    ("Services keep their number", "bennu.cli.demo.services"),
    ("Rolling update and rollback", "bennu.cli.demo.updates"),
    ("What no one else tells", "bennu.cli.demo.why"),
)


@click.command()
@click.option("--pace", type=click.FloatRange(min=0), default=PACE_S, help="Seconds to wait after each command")
@click.argument("scenes", metavar="[SCENE...]", nargs=-1)
def demo(pace: float, scenes: tuple[str, ...]) -> int:
    """Play scenes, by number or a word of the title, on a daemon of the demo's own; without SCENE all of them."""
    if os.geteuid() != 0:
        raise CommandFailure("containers need root: sudo bennu demo")
    docker = find_docker()
    if docker is None:
        raise CommandFailure(f"the demo types docker commands, and there is no docker on PATH: {CURE}")
    wanted = [find_scene(word) for word in scenes] or SCENES
    with scratch_folder() as folder, private_daemon(folder) as daemon:
        say(f"A daemon of this demo's own answers at {daemon.host}; look in with docker -H.")
        stage = DemoStage(docker, folder, daemon, pace, sys.stdout.isatty())
        for title, module in wanted:
            say(f"\n=== {title} ===")
            for act in import_module(module).ACTS:
                act(stage)
    say("")
    for surprise in stage.surprises:
        say(f"not as promised: {surprise}")
    say(f"{len(stage.surprises)} not as promised." if stage.surprises else "Everything of the demo is removed.")
    return 1 if stage.surprises else 0


def find_scene(word: str) -> tuple[str, str]:
    """Find a scene by its number or a word of its title. Raises: click.BadParameter."""
    for number, scene in enumerate(SCENES, start=1):
        if word == str(number) or word.lower() in scene[0].lower():
            return scene
    titles = ", ".join(f"{number} {title}" for number, (title, _) in enumerate(SCENES, start=1))
    raise click.BadParameter(f'no scene "{word}": {titles}')
