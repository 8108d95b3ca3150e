"""The cells of `life.TABLE` for a run's events: signals, pauses, probes, a new daemon. Pure."""

from dataclasses import replace
from signal import SIGKILL
from typing import Final

from bennu.lifecycle.death import SentSignal, Verb
from bennu.lifecycle.health import HealthState, HealthStatus, OnUnhealthy, judge, not_monitored
from bennu.lifecycle.life_events import (
    ActOnUnhealthy,
    BriefPauseOver,
    ClearLeftovers,
    DrainBegun,
    Durability,
    Effect,
    Freeze,
    GraceOver,
    MemoryKilled,
    Moment,
    Notice,
    OperationFailed,
    PauseAsked,
    Paused,
    Probed,
    ReleaseAll,
    SendSignal,
    SignalAsked,
    SignalMissed,
    SignalSent,
    TakenUp,
    TeardownNotice,
    TellWaiters,
    Thaw,
    Thawed,
    Transition,
    UnhealthyRestartAsked,
    UnpauseAsked,
    UnwatchRun,
    WatchRun,
    unwritten,
)
from bennu.lifecycle.life_model import Life, PendingOperation, Policy
from bennu.lifecycle.status import State
from bennu.lifecycle.stop import asks_for_end, may_call_off

KEPT_SIGNALS: Final = 100  # the last ones of a run: some programs are sent HUP every minute


# --- signals -------------------------------------------------------------------------------------------------------


def ask_signal(moment: Moment, event: SignalAsked) -> Transition:
    """Write the bookkeeping first, durably if possible; then send the signal."""
    life = _note_signal(moment, event)
    life = replace(life, run=replace(life.run, undelivered=event.number))
    return Transition(life=life, effects=(_send(life, moment.policy),), durability=Durability.IF_POSSIBLE)


def cancel_back_off(moment: Moment, event: SignalAsked) -> Transition:
    """Call off the pending restart if the signal means the end; without a process another signal does nothing."""
    life = _note_signal(moment, event)
    if event.verb is Verb.KILL and asks_for_end(moment.policy.stop_signal, event.number):
        life = replace(life, restarts=replace(life.restarts, stopped_by_user=True, cancelled=True))
    if not life.restarts.cancelled:
        return Transition(life=life)
    ended = replace(life, state=State.EXITED, restarts=replace(life.restarts, due_ns=0), pending=life.lasting_operation)
    effects = (ReleaseAll(), TellWaiters())
    return Transition(life=ended, notices=(TeardownNotice(),), effects=effects, keeps_sandbox=False)


def _note_signal(moment: Moment, event: SignalAsked) -> Life:
    """Put a signal on record; a person's stop is a wish that counts from here on.

    What `kill` sends is not: it counts once the process has ended by it (`death.find_wish`).
    """
    life, run, restarts = moment.life, moment.life.run, moment.life.restarts
    if event.for_good and event.verb is not Verb.KILL:
        restarts = replace(restarts, stopped_by_user=True, cancelled=True)
    sent = SentSignal(moment.now_ns, event.number, event.by, event.verb)
    return replace(
        life,
        run=replace(run, signals=(*run.signals, sent)[-KEPT_SIGNALS:]),
        restarts=restarts,
        pending=_merge(life.pending, event.operation) if event.operation else life.pending,
    )


def _merge(under_way: PendingOperation | None, asked: PendingOperation) -> PendingOperation:
    """Choose which of two requests for the same end stays on record.

    The kept request asks for more after the end (a removal, a restart, a stop). Its grace period ends at the earlier
    `kill_at_ns` of the two.
    """
    if under_way is None:
        return asked
    kept = under_way if _rank(under_way) > _rank(asked) else asked
    due = [one.kill_at_ns for one in (under_way, asked) if one.kill_at_ns]
    return replace(kept, kill_at_ns=min(due, default=0))


def _rank(operation: PendingOperation) -> int:
    if not operation.outlasts_end:
        return 0
    return 2 if operation.verb is Verb.REMOVE else 1


def _send(life: Life, policy: Policy, *, again: bool = False) -> SendSignal:
    return SendSignal(life.run.undelivered, _ends_pause(life, policy), again)


def _ends_pause(life: Life, policy: Policy) -> bool:
    return life.state is State.PAUSED and may_call_off(policy.stop_signal, life.run.undelivered)


def escalate(moment: Moment, event: GraceOver) -> Transition:
    pending = moment.life.pending
    if pending is None:
        return unwritten(moment.life)
    life = replace(moment.life, pending=replace(pending, kill_at_ns=0))
    asked = SignalAsked(number=SIGKILL, by=pending.by, verb=pending.verb, for_good=pending.for_good)
    return ask_signal(replace(moment, life=life), asked)


def note_sent(moment: Moment, event: SignalSent) -> Transition:
    life, run = moment.life, moment.life.run
    notices = [Notice("kill", {"signal": str(run.undelivered)})]
    signals = (*run.signals[:-1], *(replace(last, disposition=event.disposition) for last in run.signals[-1:]))
    sent = replace(life, run=replace(run, undelivered=0, signals=signals))
    effects: tuple[Effect, ...] = ()
    if _ends_pause(life, moment.policy):
        sent = replace(sent, state=State.RUNNING, run=replace(sent.run, pause_is_brief=False))
        notices.append(Notice("unpause"))
        effects = (WatchRun(),)
    return Transition(life=sent, notices=tuple(notices), effects=effects, durability=Durability.IF_POSSIBLE)


def note_missed(moment: Moment, event: SignalMissed) -> Transition:
    """Clear the undelivered signal, and drop it from the record if it was surely too late to have a part in the end."""
    run = moment.life.run
    signals = run.signals if event.again else run.signals[:-1]
    missed = replace(moment.life, run=replace(run, undelivered=0, signals=signals))
    return Transition(life=missed, durability=Durability.IF_POSSIBLE)


def begin_drain(moment: Moment, event: DrainBegun) -> Transition:
    """Put a drain on record; a person's wish counts from here on, so that an end during the drain causes no restart."""
    life, restarts = moment.life, moment.life.restarts
    if event.operation.for_good:
        restarts = replace(restarts, stopped_by_user=True, cancelled=True)
    pending = _merge(life.pending, event.operation)
    return Transition(life=replace(life, restarts=restarts, pending=pending), durability=Durability.IF_POSSIBLE)


def give_up_operation(moment: Moment, event: OperationFailed) -> Transition:
    return Transition(life=replace(moment.life, pending=None))


def ask_unhealthy_restart(moment: Moment, event: UnhealthyRestartAsked) -> Transition:
    return Transition(life=replace(moment.life, run=replace(moment.life.run, restart_unhealthy=True)))


# --- pause ---------------------------------------------------------------------------------------------------------


def ask_pause(moment: Moment, event: PauseAsked) -> Transition:
    """Ask for a freeze, and record a brief pause beforehand because it has to be thawed again.

    The kernel knows whether the container is frozen; nothing else has to be on record.
    """
    if not event.briefly:
        return unwritten(moment.life, Freeze())
    life = replace(moment.life, run=replace(moment.life.run, pause_is_brief=True))
    return Transition(life=life, effects=(Freeze(),))


def ask_thaw(moment: Moment, event: UnpauseAsked | BriefPauseOver) -> Transition:
    return unwritten(moment.life, Thaw())


def pause(moment: Moment, event: Paused) -> Transition:
    life, run = moment.life, moment.life.run
    paused = replace(life, state=State.PAUSED, run=replace(run, health=not_monitored(run.health)))
    return Transition(life=paused, notices=(Notice("pause"),), effects=(UnwatchRun(),))


def resume(moment: Moment, event: Thawed) -> Transition:
    run = replace(moment.life.run, pause_is_brief=False)
    resumed = replace(moment.life, state=State.RUNNING, run=run)
    return Transition(life=resumed, notices=(Notice("unpause"),), effects=(WatchRun(),))


def note_not_paused(moment: Moment, event: Thawed) -> Transition:
    """Clear the mark of a brief pause that did not happen."""
    return Transition(life=replace(moment.life, run=replace(moment.life.run, pause_is_brief=False)))


# --- what is seen while it runs ------------------------------------------------------------------------------------


def judge_probe(moment: Moment, event: Probed) -> Transition:
    """Judge a probe: a change of status is written and announced at once, other results with the next change."""
    life, run, policy = moment.life, moment.life.run, moment.policy
    if run.health is None or policy.check is None:
        return unwritten(life)
    judged = judge(run.health, policy.check, exit_code=event.exit_code, started_after_ns=event.started_after_ns)
    # What was decided for its being unhealthy is void once it is healthy.
    restart = run.restart_unhealthy and judged.state.status is not HealthStatus.HEALTHY
    acts = judged.failed and policy.on_unhealthy is not OnUnhealthy.NONE
    return Transition(
        life=replace(life, run=replace(run, health=judged.state, restart_unhealthy=restart)),
        notices=(Notice(f"health_status: {judged.state.status}"),) if judged.changed else (),
        effects=(ActOnUnhealthy(policy.on_unhealthy, judged.reason),) if acts else (),
        durability=Durability.REQUIRED if judged.changed else Durability.NOT_WRITTEN,
    )


def note_memory_kill(moment: Moment, event: MemoryKilled) -> Transition:
    life = replace(moment.life, run=replace(moment.life.run, oom_told=event.kills, oom_told_at_ns=moment.now_ns))
    return Transition(life=life, notices=(Notice("oom"),))


# --- after a daemon's death ----------------------------------------------------------------------------------------


def take_up_running(moment: Moment, event: TakenUp) -> Transition:
    """Take up a running container with a fresh health state, because the former daemon's is old.

    A signal that may not have been sent is sent.
    """
    life = moment.life
    health = HealthState() if moment.policy.check else None
    life = replace(life, run=replace(life.run, health=health))
    effects: tuple[Effect, ...] = (WatchRun(),)
    if life.run.undelivered:
        effects = (_send(life, moment.policy, again=True), *effects)
    return unwritten(life, *effects)


def take_up_paused(moment: Moment, event: TakenUp) -> Transition:
    life = moment.life
    return unwritten(life, _send(life, moment.policy, again=True)) if life.run.undelivered else unwritten(life)


def take_up_waiting(moment: Moment, event: TakenUp) -> Transition:
    """Take up a container that waits for its restart; it goes on waiting."""
    return unwritten(moment.life)


def clear_away(moment: Moment, event: TakenUp) -> Transition:
    """Clear the leftovers of a container that does not run, in case the former daemon died before it gave all back."""
    return unwritten(moment.life, ClearLeftovers())
