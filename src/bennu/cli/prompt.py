"""Questions to the person at the terminal."""

import sys

from bennu.cli.output import say


def confirm(warning: str) -> bool:
    """Ask; anything but yes is no."""
    say(warning)
    sys.stdout.write("Are you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
