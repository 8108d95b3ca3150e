"""Every state with every event: what becomes of a container, and what cannot happen to it."""

from collections.abc import Iterator
from itertools import product
from typing import get_args, get_type_hints

import pytest

from bennu.errors import Conflict
from bennu.lifecycle.death import Oom, Requester, SentSignal, Verb
from bennu.lifecycle.health import Check, HealthState
from bennu.lifecycle.life import TABLE, IllegalTransition, step
from bennu.lifecycle.life_events import (
    BriefPauseOver,
    DrainBegun,
    Exited,
    GraceOver,
    HostRebooted,
    LifeEvent,
    MemoryKilled,
    OperationFailed,
    PauseAsked,
    Paused,
    Probed,
    RestartDue,
    RestartNowAsked,
    RunStarted,
    SignalAsked,
    SignalMissed,
    SignalSent,
    StartAsked,
    StartFailed,
    TakenUp,
    Thawed,
    UnhealthyRestartAsked,
    UnpauseAsked,
)
from bennu.lifecycle.life_model import LastEnd, Life, PendingOperation, Policy, Restarts, Run
from bennu.lifecycle.probe import CommandProbe
from bennu.lifecycle.restart import RestartMode, RestartPolicy
from bennu.lifecycle.status import State

SIGHUP, SIGKILL, SIGTERM = 1, 9, 15
NOW, BEGAN = 10**15, 10**15 - 10**9
BY = Requester("client", uid=0, pid=7, command="docker")
STOP = PendingOperation(verb=Verb.STOP, by=BY, kill_at_ns=NOW)

# What each event may make of each state, written out a second time. A state that is not named refuses the event.
BECOMES = {
    "StartAsked": {"created": "created", "exited": "exited"},
    "RestartNowAsked": {"restarting": "restarting"},
    "RestartDue": {"restarting": "restarting"},
    "RunStarted": {"created": "running", "exited": "running", "restarting": "running"},
    "StartFailed": {"created": "created", "exited": "exited", "restarting": "exited restarting"},
    "Exited": {"running": "exited restarting", "paused": "exited restarting"},
    "SignalAsked": {"running": "running", "paused": "paused", "restarting": "exited restarting"},
    "SignalSent": {"running": "running", "paused": "running paused"},
    "SignalMissed": {"running": "running", "paused": "paused"},
    "DrainBegun": {"running": "running", "paused": "paused", "restarting": "restarting"},
    "GraceOver": {"running": "running", "paused": "paused"},
    "OperationFailed": {
        "created": "created",
        "running": "running",
        "paused": "paused",
        "restarting": "restarting",
        "exited": "exited",
    },
    "UnhealthyRestartAsked": {"running": "running", "paused": "paused"},
    "PauseAsked": {"running": "running"},
    "UnpauseAsked": {"paused": "paused"},
    "BriefPauseOver": {"running": "running", "paused": "paused"},
    "Paused": {"running": "paused"},
    "Thawed": {"running": "running", "paused": "running"},
    "Probed": {"running": "running"},
    "MemoryKilled": {"running": "running", "paused": "paused"},
    "HostRebooted": {"running": "exited", "paused": "exited", "restarting": "exited"},
    "TakenUp": {
        "created": "created",
        "running": "running",
        "paused": "paused",
        "restarting": "restarting",
        "exited": "exited",
    },
}
EVENTS: list[LifeEvent] = [
    StartAsked(),
    RestartNowAsked(),
    RestartDue(),
    RunStarted(pid=8, boot_id="boot", at_ns=NOW),
    StartFailed(exit_code=127, error="not found"),
    StartFailed(exit_code=128, error="no memory", shortage=True),
    Exited(exit_code=0, finished_at_ns=NOW),
    Exited(exit_code=None, finished_at_ns=NOW, daemon_ends=True),
    Exited(exit_code=137, finished_at_ns=NOW, oom=Oom(1, 0, 0, True)),
    SignalAsked(number=SIGTERM, by=BY, verb=Verb.STOP, operation=STOP),
    SignalAsked(number=SIGHUP, by=BY, verb=Verb.KILL),
    SignalSent(),
    SignalMissed(),
    DrainBegun(PendingOperation(verb=Verb.STOP, by=BY, unbegun=SIGTERM)),
    GraceOver(),
    OperationFailed(),
    UnhealthyRestartAsked(),
    PauseAsked(),
    PauseAsked(briefly=True),
    UnpauseAsked(),
    BriefPauseOver(),
    Paused(),
    Thawed(),
    Probed(exit_code=0, started_after_ns=1),
    Probed(exit_code=1, started_after_ns=1),
    MemoryKilled(2),
    HostRebooted(),
    TakenUp(),
]
POLICIES = [
    Policy(restart=RestartPolicy(RestartMode.NO)),
    Policy(
        restart=RestartPolicy(RestartMode.ALWAYS),
        stop_signal=SIGTERM,
        check=Check(probe=CommandProbe(("true",)), retries=1),
    ),
]


def lives(state: State, policy: Policy) -> Iterator[Life]:
    """Some that are in that state."""
    has_process = state in (State.RUNNING, State.PAUSED)
    for number in (SIGHUP, SIGTERM):
        sent = (SentSignal(BEGAN, number, BY, Verb.KILL),) if has_process else ()
        for pending in (None, STOP) if has_process else (None,):
            yield Life(
                state=state,
                ordinal=state is not State.CREATED,
                run=Run(
                    pid=7 if has_process else 0,
                    boot_id="boot",
                    started_at_ns=0 if state is State.CREATED else BEGAN,
                    health=HealthState() if policy.check and state is not State.CREATED else None,
                    signals=sent,
                    undelivered=number if has_process else 0,
                ),
                last_end=LastEnd(exit_code=3, finished_at_ns=BEGAN),
                restarts=Restarts(due_ns=NOW if state is State.RESTARTING else 0),
                pending=pending,
            )


@pytest.mark.parametrize(("state", "event_type"), list(product(State, get_args(LifeEvent))))
def test_each_state_takes_or_refuses_each_event(state: State, event_type: type[LifeEvent]) -> None:
    expected = set(BECOMES[event_type.__name__].get(state, "").split())
    found = set()
    events = [event for event in EVENTS if type(event) is event_type]
    for policy, event in product(POLICIES, events):
        for life in lives(state, policy):
            if not expected:
                with pytest.raises(
                    IllegalTransition, match=f"{event_type.__name__}.*the container is {state}"
                ) as caught:
                    step(life, event, policy, now_ns=NOW, draw=0.5)
                assert isinstance(caught.value, Conflict)
                continue
            after = step(life, event, policy, now_ns=NOW, draw=0.5).life
            found.add(str(after.state))
            assert bool(after.run.pid) == (after.state in (State.RUNNING, State.PAUSED))
            assert bool(after.restarts.due_ns) == (after.state is State.RESTARTING)
    assert found == expected


def test_every_state_and_every_event_is_in_the_table() -> None:
    assert set(TABLE) == set(State)
    assert {event for row in TABLE.values() for event in row} == set(get_args(LifeEvent))
    assert {type(event) for event in EVENTS} == set(get_args(LifeEvent))


@pytest.mark.parametrize("state", State)
def test_a_cell_takes_the_event_of_its_column(state: State) -> None:
    for event_type, cell in TABLE[state].items():
        taken = get_type_hints(cell)["event"]
        assert event_type in (get_args(taken) or (taken,))
