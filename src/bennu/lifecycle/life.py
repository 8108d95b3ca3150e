"""A container's life as a machine that turns events into transitions, one by one. Pure.

The machine owns the transition; the shell owns time and hands. The shell stamps an event, asks `step`, writes its
answer, performs the effects in their order, and feeds the events that these lead to (`SendSignal` → `SignalSent`)
back into `step`. `next_alarm` gives the events that the clock alone brings.

An event not in `TABLE` cannot happen. A request that a client may send at the wrong time (pause a paused container)
is answered in Docker's words by the shell, before the table is asked.

Laws:
    One event, one clock reading, one random draw, one transaction.
    A daemon that dies between two effects has lost nothing: `recover` leads to the remaining ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bennu.errors import Conflict
from bennu.lifecycle.death import Verb
from bennu.lifecycle.governor import govern_boot
from bennu.lifecycle.life_events import (
    BriefPauseOver,
    DrainBegun,
    Exited,
    GraceOver,
    HostRebooted,
    LifeEvent,
    MemoryKilled,
    Moment,
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
    Transition,
    UnhealthyRestartAsked,
    UnpauseAsked,
)
from bennu.lifecycle.life_model import Life, Policy
from bennu.lifecycle.life_requests import (
    ask_pause,
    ask_signal,
    ask_thaw,
    ask_unhealthy_restart,
    begin_drain,
    cancel_back_off,
    clear_away,
    escalate,
    give_up_operation,
    judge_probe,
    note_memory_kill,
    note_missed,
    note_not_paused,
    note_sent,
    pause,
    resume,
    take_up_paused,
    take_up_running,
    take_up_waiting,
)
from bennu.lifecycle.life_runs import (
    ask_launch,
    begin_again,
    begin_anew,
    end,
    fail_restart,
    fail_start,
    lose,
    skip_back_off,
    void_restart,
)
from bennu.lifecycle.restart import Exit, RestartHistory, Start, Stay, decide_boot
from bennu.lifecycle.status import State


class IllegalTransition(Conflict):
    """An event that cannot happen in that state."""

    def __init__(self, state: State, event: LifeEvent) -> None:
        super().__init__(f"{type(event).__name__} cannot happen: the container is {state}")
        self.state = state
        self.event = event


def step(life: Life, event: LifeEvent, policy: Policy, *, now_ns: int, draw: float) -> Transition:
    """Compute the life and the effects that an event leads to.

    Args:
        now_ns: wall clock. An event has one instant, shared by the decision and the stored life.
        draw: a random number from 0 to 1, for the jitter of a restart's delay.

    Raises: IllegalTransition; then nothing has changed.
    """
    cell = TABLE[life.state].get(type(event))
    if cell is None:
        raise IllegalTransition(life.state, event)
    return cell(Moment(life, policy, now_ns, draw), event)


S = State
Cell = Callable[[Moment, Any], Transition]  # takes the events of its column, and no others

WHILE_A_PROCESS_LIVES: Final[Mapping[type[LifeEvent], Cell]] = {
    # SIGKILL reaches a frozen control group, so a paused container can end.
    Exited: end,
    HostRebooted: lose,
    SignalAsked: ask_signal,
    SignalSent: note_sent,
    SignalMissed: note_missed,
    DrainBegun: begin_drain,
    GraceOver: escalate,
    OperationFailed: give_up_operation,
    UnhealthyRestartAsked: ask_unhealthy_restart,
    BriefPauseOver: ask_thaw,
    MemoryKilled: note_memory_kill,
}
WHILE_DOWN: Final[Mapping[type[LifeEvent], Cell]] = {
    StartAsked: ask_launch,
    RunStarted: begin_anew,
    StartFailed: fail_start,
    OperationFailed: give_up_operation,
    TakenUp: clear_away,
}
TABLE: Final[Mapping[State, Mapping[type[LifeEvent], Cell]]] = {
    S.CREATED: WHILE_DOWN,
    S.RUNNING: {
        **WHILE_A_PROCESS_LIVES,
        PauseAsked: ask_pause,
        Paused: pause,
        Thawed: note_not_paused,
        Probed: judge_probe,
        TakenUp: take_up_running,
    },
    S.PAUSED: {
        **WHILE_A_PROCESS_LIVES,
        UnpauseAsked: ask_thaw,
        Thawed: resume,
        TakenUp: take_up_paused,
    },
    S.RESTARTING: {
        RestartDue: ask_launch,
        RestartNowAsked: skip_back_off,
        RunStarted: begin_again,
        StartFailed: fail_restart,
        SignalAsked: cancel_back_off,
        DrainBegun: begin_drain,
        OperationFailed: give_up_operation,
        HostRebooted: void_restart,
        TakenUp: take_up_waiting,
    },
    S.EXITED: WHILE_DOWN,
    # A removal is not a change of its life: the record goes as a whole. No container of ours is ever in these two.
    S.REMOVING: {},
    S.DEAD: {},
}


# --- by the clock ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alarm:
    """An event that the clock alone brings to a container, and its instant (wall clock, ns)."""

    at_ns: int
    event: RestartDue | GraceOver


def next_alarm(life: Life) -> Alarm | None:
    """Find the next event by the clock and its instant; None: nothing happens by the clock alone."""
    if life.state is State.RESTARTING:
        return Alarm(life.restarts.due_ns, RestartDue())
    if life.state in (State.RUNNING, State.PAUSED) and life.pending is not None and life.pending.kill_at_ns:
        return Alarm(life.pending.kill_at_ns, GraceOver())
    return None


# --- after a daemon's death --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """A new daemon's view of a container. `frozen` None: it has no process, or that cannot be told."""

    boot_id: str
    frozen: bool | None = None


def recover(life: Life, seen: Seen) -> tuple[LifeEvent, ...]:
    """List the events that a daemon that finds this life has to feed to `step`, in this order.

    Of an earlier boot: lost with the host. Half paused: paused or not, as the kernel has it; a container frozen for the
    length of a request runs on, for that request is over. An end is no part of it: it is seen as if it came now.
    """
    if life.run.boot_id != seen.boot_id and (life.run.pid or life.state is State.RESTARTING):
        return HostRebooted(), TakenUp()
    return *_match_freezer(life, seen.frozen), TakenUp()


def _match_freezer(life: Life, frozen: bool | None) -> tuple[LifeEvent, ...]:
    was_paused = life.state is State.PAUSED
    if frozen is None or not life.run.pid:
        return ()
    if frozen and life.run.pause_is_brief:
        return (BriefPauseOver(),)
    if frozen and not was_paused:
        return (Paused(),)
    if not frozen and (was_paused or life.run.pause_is_brief):
        return (Thawed(),)
    return ()


class Owed(StrEnum):
    """The action due for a container that has no process."""

    START = "start"
    REMOVAL = "removal"


def find_owed(life: Life, policy: Policy) -> Owed | None:
    """Find the action that a request, or `--rm`, asks for once the container has ended, or did not come to run."""
    if life.is_running:
        return None
    if (lasting := life.lasting_operation) is not None:
        return Owed.START if lasting.verb is Verb.RESTART else Owed.REMOVAL
    return Owed.REMOVAL if policy.auto_remove else None


def decide_start(life: Life, policy: Policy) -> Start | Stay:
    """Decide whether the policy starts a container in its present state when the daemon starts."""
    if life.state is not State.EXITED or not life.ordinal or life.pending is not None:
        return Stay(0, "its policy has no say")
    ended = Exit(
        code=life.last_end.exit_code,
        ran_for_ns=max(0, life.last_end.finished_at_ns - life.run.started_at_ns),
        stopped_by_user=life.restarts.stopped_by_user,
    )
    past = RestartHistory(count=life.restarts.count, delay_ns=0, cancelled=False)
    decision = decide_boot(policy.restart, ended, past)
    if policy.governor is None:
        return decision
    return govern_boot(policy.governor, decision, code=life.last_end.exit_code, gave_up=life.restarts.gave_up)
