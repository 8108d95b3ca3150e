"""Looking at the health of containers, and at what their probes started."""

import json
import time
from pathlib import Path
from typing import Any, Final

from support.cli import Cli
from support.waiting import wait_for

FAST: Final = ("--health-interval=100ms", "--health-retries=2")


def health(cli: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("inspect", "-f", "{{json .State.Health}}", name).line)
    return found


def actions(cli: Cli, name: str, since: float = 1.0) -> list[str]:
    """What the container's events tell, until now."""
    until = f"{time.time() + 0.3:.9f}"
    words = ("--since", f"{since:.9f}", "--until", until, "--filter", f"container={name}", "--format", "{{.Action}}")
    return cli("events", *words).lines


def wait_status(cli: Cli, name: str, status: str) -> dict[str, Any]:
    wait_for(lambda: health(cli, name)["Status"] == status, what=f"{name} to be {status}")
    return health(cli, name)


# Starts more than itself, and heeds no signal that can be heeded.
STUBBORN: Final = "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM; sleep 321' & sleep 321 & sleep 321"


def sleepers() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"sleep\x00321" in line:
                found.append(entry.name)
    return found
