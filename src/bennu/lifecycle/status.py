"""The states of a container, and the words in which a person reads them. Pure.

What leads from one to the next is the table in `life`. Docker's booleans (Running, Paused, Restarting …) are computed
from the one state at the wire.
"""

from enum import StrEnum
from typing import Final

SECOND_NS: Final = 10**9
HOUR_NS: Final = 3600 * SECOND_NS


class State(StrEnum):
    """Values are the API's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


def human_duration(ns: int) -> str:
    """Docker's rough duration: `Less than a second`, `About a minute`, `3 weeks`."""
    seconds = max(0, ns) // SECOND_NS
    minutes = seconds // 60
    if seconds < 60:
        return {0: "Less than a second", 1: "1 second"}.get(seconds, f"{seconds} seconds")
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    return _hours(rounded=(ns + HOUR_NS // 2) // HOUR_NS, whole=ns // HOUR_NS)


def _hours(*, rounded: int, whole: int) -> str:
    """Docker rounds hours, and counts days, weeks and months in rounded hours; years in whole ones."""
    if rounded < 48:
        return "About an hour" if rounded == 1 else f"{rounded} hours"
    for limit, unit, word in ((336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if rounded < limit:
            return f"{rounded // unit} {word}"
    return f"{whole // 8760} years"


def describe_status(
    state: State, *, exit_code: int, started_at_ns: int, finished_at_ns: int, health: str, now_ns: int
) -> str:
    """The STATUS column of `docker ps`. `health` is "", starting, healthy or unhealthy; instants 0 = never."""
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
