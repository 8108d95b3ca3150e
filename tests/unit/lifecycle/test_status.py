"""Durations in Docker's words, and the STATUS column."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.go.units import human_duration
from bennu.lifecycle.status import State, describe_status

S = 10**9
MINUTE, HOUR, DAY = 60 * S, 3600 * S, 86400 * S


@pytest.mark.parametrize(
    ("ns", "words"),
    [
        (-S, "Less than a second"),
        (0, "Less than a second"),
        (S - 1, "Less than a second"),
        (S, "1 second"),
        (2 * S - 1, "1 second"),
        (59 * S, "59 seconds"),
        (MINUTE, "About a minute"),
        (2 * MINUTE - 1, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (59 * MINUTE + 59 * S, "59 minutes"),
        (HOUR, "About an hour"),
        (90 * MINUTE - 1, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (47 * HOUR, "47 hours"),
        (47 * HOUR + 30 * MINUTE, "2 days"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
        (730 * DAY - 30 * MINUTE, "1 years"),
        (3650 * DAY, "10 years"),
    ],
)
def test_durations_in_dockers_words(ns: int, words: str) -> None:
    assert human_duration(ns) == words


def dumb_duration(ns: int) -> str:
    """The rule as it is written down, in floating point, step by step."""
    seconds = int(ns / S)
    if seconds < 60:
        return "Less than a second" if seconds < 1 else "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes = int(ns / S / 60)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(ns / S / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(ns / S / 3600) // 24 // 365} years"


@given(st.one_of(st.integers(0, 100), st.integers(0, 10**6), st.integers(0, 4 * 10**8)), st.integers(0, 999))
def test_durations_agree_with_the_rule_step_by_step(seconds: int, millis: int) -> None:
    ns = seconds * S + millis * 10**6
    assert human_duration(ns) == dumb_duration(ns)


NOW = 10**18


def status(state: State, *, code: int = 0, started: int = 0, finished: int = 0, health: str = "") -> str:
    """Instants as seconds ago; 0 = never."""
    return describe_status(
        state,
        exit_code=code,
        started_at_ns=NOW - started * S if started else 0,
        finished_at_ns=NOW - finished * S if finished else 0,
        health=health,
        now_ns=NOW,
    )


def test_the_status_column() -> None:
    assert status(State.CREATED) == "Created"
    assert status(State.CREATED, code=127) == "Created"
    assert status(State.RUNNING, started=3) == "Up 3 seconds"
    assert status(State.RUNNING, started=3, health="starting") == "Up 3 seconds (health: starting)"
    assert status(State.RUNNING, started=3, health="healthy") == "Up 3 seconds (healthy)"
    assert status(State.RUNNING, started=3, health="unhealthy") == "Up 3 seconds (unhealthy)"
    assert status(State.PAUSED, started=120, health="unhealthy") == "Up 2 minutes (Paused)"
    assert status(State.RESTARTING, code=3, started=9, finished=5) == "Restarting (3) 5 seconds ago"
    assert status(State.EXITED, code=137, started=9, finished=3) == "Exited (137) 3 seconds ago"
    assert status(State.EXITED, code=0, started=9, finished=3, health="unhealthy") == "Exited (0) 3 seconds ago"
    assert status(State.EXITED, started=9) == ""
    assert status(State.REMOVING, started=9) == "Removal In Progress"
    assert status(State.DEAD, started=9, finished=3) == "Dead"
