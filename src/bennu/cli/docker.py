"""Finds the docker command, and replaces this process by it."""

import os
import signal
import sys
from typing import Final, NoReturn

from bennu.cli.endpoint import find_host

NOT_FOUND: Final = 127  # as shells have it
CURE: Final = "install docker-cli (docker.io on Debian 12 and Ubuntu), or ./dev setup in Bennu's source tree"


def become_docker(args: list[str]) -> NoReturn:
    """Replace this process by `docker ARGS`, which talks to Bennu's daemon unless `args` say otherwise."""
    path = find_docker()
    if path is None:
        print(f"bennu: this is said by the docker command, and there is none on PATH: {CURE}", file=sys.stderr)
        sys.exit(NOT_FOUND)
    # Python ignores these, and what is ignored stays so in the program that takes this one's place.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execve(path, ["docker", *args], {**os.environ, "DOCKER_HOST": find_host(None)})


def find_docker() -> str | None:
    """Find docker on PATH, but not this program under that name; None if there is none."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = f"{folder or '.'}/docker"
        if os.access(path, os.X_OK) and os.path.realpath(path) != os.path.realpath(sys.argv[0]):
            return path
    return None
