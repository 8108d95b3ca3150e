"""The states of a container, and the words in which a person reads them. Pure.

The table in `life` lists the transitions between them. Docker's booleans (Running, Paused, Restarting …) are computed
from the one state at the wire.
"""

from enum import StrEnum

from bennu.go.units import human_duration


class State(StrEnum):
    """The states of a container. Values are the API's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


def describe_status(
    state: State, *, exit_code: int, started_at_ns: int, finished_at_ns: int, health: str, now_ns: int
) -> str:
    """Format the STATUS column of `docker ps`. `health` is "", starting, healthy or unhealthy; instants 0 = never."""
    since_end = f"{human_duration(now_ns - finished_at_ns)} ago"
    match state:
        case State.RUNNING:
            checked = "health: starting" if health == "starting" else health
            return f"Up {human_duration(now_ns - started_at_ns)}" + (f" ({checked})" if checked else "")
        case State.PAUSED:
            return f"Up {human_duration(now_ns - started_at_ns)} (Paused)"
        case State.RESTARTING:
            return f"Restarting ({exit_code}) {since_end}"
        case State.REMOVING:
            return "Removal In Progress"
        case State.DEAD:
            return "Dead"
    if started_at_ns == 0:
        return "Created"
    return f"Exited ({exit_code}) {since_end}" if finished_at_ns else ""
