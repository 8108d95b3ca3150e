"""The states of a container, what leads from one to the next, and the words a person reads. Pure.

What `TRANSITIONS` does not list is illegal. Docker's booleans (Running, Paused, Restarting …) are computed from the
one state at the wire.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from bennu.errors import Conflict
from bennu.go.units import human_duration


class State(StrEnum):
    """Values are the API's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Event(StrEnum):
    """What can happen to a container."""

    START = "start"
    FAIL_TO_START = "fail to start"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    EXIT = "exit"
    BACK_OFF = "back off"
    REMOVE = "remove"
    FAIL_TO_REMOVE = "fail to remove"


class IllegalTransition(Conflict):
    """An event that cannot happen in that state."""

    def __init__(self, state: State, wanted: Event | State) -> None:
        what = f"become {wanted}" if isinstance(wanted, State) else str(wanted)
        super().__init__(f"cannot {what}: the container is {state}")
        self.state = state
        self.wanted = wanted


S, E = State, Event
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    S.CREATED: {E.START: S.RUNNING, E.FAIL_TO_START: S.CREATED, E.REMOVE: S.REMOVING},
    S.RUNNING: {E.PAUSE: S.PAUSED, E.EXIT: S.EXITED, E.BACK_OFF: S.RESTARTING},
    # SIGKILL reaches a frozen cgroup, so a paused container can end.
    S.PAUSED: {E.UNPAUSE: S.RUNNING, E.EXIT: S.EXITED, E.BACK_OFF: S.RESTARTING},
    S.RESTARTING: {E.START: S.RUNNING, E.FAIL_TO_START: S.EXITED, E.EXIT: S.EXITED},
    S.EXITED: {E.START: S.RUNNING, E.FAIL_TO_START: S.EXITED, E.REMOVE: S.REMOVING},
    S.REMOVING: {E.FAIL_TO_REMOVE: S.DEAD},
    S.DEAD: {E.REMOVE: S.REMOVING},
}


def next_state(state: State, event: Event) -> State:
    """Raises: IllegalTransition, which names both."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def check_transition(before: State, after: State) -> None:
    """Raises: IllegalTransition when no event leads from one to the other."""
    if after is not before and after not in TRANSITIONS[before].values():
        raise IllegalTransition(before, after)


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
