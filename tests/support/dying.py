"""Daemons that die: by their own hand around one of their writes, or by another's at any moment."""

import http.client
import json
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from support.daemon import Daemon

SOUND: Final = (Path(sys.executable).with_name("bennud"),)
FAULTY: Final = Path(__file__).parent / "faulty_bennud.py"


class DaemonDied(Exception):
    """The connection broke: the request may or may not have been carried out."""


def ask_or_die(daemon: Daemon, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON. Raises: DaemonDied."""
    try:
        raw = None if body is None else json.dumps(body)
        status, answer = daemon.request(method, path, raw, {"Content-Type": "application/json"})
    except (OSError, http.client.HTTPException) as error:
        raise DaemonDied from error
    return status, json.loads(answer) if answer.strip() else None


def die_once(daemon: Daemon, draw: random.Random, live: Callable[[Callable[[], bool]], None]) -> None:
    """One life of a bennud that kills itself around one of its next writes, or is killed from outside.

    `live` does what it likes with the daemon until the condition that it is given holds.
    """
    moment = draw.choice(["before", "after", "outside"])
    if moment != "outside":
        assert die_at(daemon, draw.randrange(2, 40), moment, live)
        return
    daemon.program = SOUND
    daemon.start()
    threading.Timer(draw.uniform(0.01, 1.5), daemon.kill).start()
    live(lambda: not daemon.is_alive)
    assert has_died(daemon)


def die_at(daemon: Daemon, fatal: int, moment: str, live: Callable[[Callable[[], bool]], None], word: str = "") -> bool:
    """One life of a bennud that kills itself `before` or `after` a write: the `fatal`-th of those with `word`.

    Whether it did; else `live` has stopped it before it came to that.
    """
    daemon.program = (sys.executable, FAULTY, str(fatal), moment, word)
    try:
        daemon.start()
    except AssertionError:  # it died while it took up the containers
        assert has_died(daemon), daemon.log()
        return True
    live(lambda: not daemon.is_alive)
    return has_died(daemon)


def has_died(daemon: Daemon) -> bool:
    """How it ended: by SIGKILL, or else in order."""
    assert daemon.process is not None
    code = daemon.process.wait(60)
    assert code in (0, -signal.SIGKILL), daemon.log()
    return code != 0
