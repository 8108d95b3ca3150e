"""The cells of `life.TABLE` that begin and end runs: starts, ends, and the steps after an end. Pure."""

from dataclasses import replace
from typing import Final

from bennu.lifecycle.death import Decision, Ending, Verb, find_wish
from bennu.lifecycle.governor import govern, score_after_end
from bennu.lifecycle.health import HealthState, not_monitored
from bennu.lifecycle.life_events import (
    DeathFacts,
    Effect,
    Exited,
    ForgetProcess,
    HostRebooted,
    Launch,
    Moment,
    Notice,
    ReleaseAll,
    RestartDue,
    RestartNowAsked,
    RunStarted,
    StartAsked,
    StartFailed,
    TeardownNotice,
    TellWaiters,
    Transition,
    WatchRun,
    unwritten,
)
from bennu.lifecycle.life_model import LastEnd, Life, Policy, Restarts, Run
from bennu.lifecycle.restart import Exit, Restart, Stay, decide_failed_restart, decide_restart
from bennu.lifecycle.status import State

KEPT_RESTARTS: Final = 1000  # instants for the governor's budget
UNKNOWN_AS: Final = 255  # an exit code that nobody knows, to clients of Docker's API (dockerd since 25)
TELLING_CODES: Final = (126, 127)  # of a failed start: the command cannot be run, or there is none


# --- starting ------------------------------------------------------------------------------------------------------


def ask_launch(moment: Moment, event: StartAsked | RestartDue) -> Transition:
    """Ask for a launch without a write: a start counts only once its one write (`RunStarted`) is done."""
    return unwritten(moment.life, Launch())


def begin_anew(moment: Moment, event: RunStarted) -> Transition:
    """Begin a run asked for by a person or a starting daemon: the restart counters begin anew."""
    return _begin(moment, event, Restarts())


def begin_again(moment: Moment, event: RunStarted) -> Transition:
    """Begin a run granted by the restart policy."""
    return _begin(moment, event, replace(moment.life.restarts, due_ns=0, gave_up=False))


def _begin(moment: Moment, event: RunStarted, restarts: Restarts) -> Transition:
    life = moment.life
    health = HealthState() if moment.policy.check else None
    begun = Life(
        state=State.RUNNING,
        ordinal=life.ordinal + 1,
        run=Run(pid=event.pid, boot_id=event.boot_id, started_at_ns=event.at_ns, health=health),
        last_end=LastEnd(finished_at_ns=life.last_end.finished_at_ns),
        restarts=restarts,
    )
    return Transition(life=begun, notices=(Notice("start"),), effects=(WatchRun(),))


def fail_start(moment: Moment, event: StartFailed) -> Transition:
    """Leave it `created` (or `exited`) with the failure's code and text, and no docker event.

    A code that tells nothing of the command does not replace the one of the run before, as with dockerd.

    Waiters for the next exit go on waiting, as with dockerd: the start's own answer says that it failed.
    """
    return _fail(moment, event, Stay(moment.life.restarts.delay_ns, "a start that fails is not tried again"))


def fail_restart(moment: Moment, event: StartFailed) -> Transition:
    """Record a failed restart, to be tried again if the host had too little of something.

    The exit code of the run before stays.
    """
    life = moment.life
    decision = decide_failed_restart(life.restarts.delay_ns, shortage=event.shortage)
    return _fail(moment, event, _governed(moment, decision, life.last_end.exit_code))


def _fail(moment: Moment, event: StartFailed, decision: Restart | Stay) -> Transition:
    life, restarts = moment.life, moment.life.restarts
    was_restart = life.state is State.RESTARTING
    exit_code = life.last_end.exit_code
    if not was_restart and (exit_code == 0 or event.exit_code in TELLING_CODES):
        exit_code = event.exit_code
    last_end = replace(life.last_end, error=event.error, exit_code=exit_code)
    failed = replace(
        life,
        state=_ended_state(life),
        run=replace(life.run, pid=0),
        last_end=last_end,
        restarts=replace(restarts, due_ns=0),
        pending=None,
    )
    if isinstance(decision, Restart):
        due_ns = moment.now_ns + decision.delay_ns
        again = replace(restarts, delay_ns=decision.delay_ns, due_ns=due_ns)
        failed = replace(failed, state=State.RESTARTING, restarts=again)
    ending = Ending(exit_code=event.exit_code, finished_at_ns=moment.now_ns, start_error=event.error)
    death = DeathFacts(ending, _tell(failed, moment.policy, decision))
    effects: tuple[Effect, ...] = (TellWaiters(),) if was_restart and isinstance(decision, Stay) else ()
    return Transition(life=failed, death=death, effects=effects, keeps_sandbox=False)


def _ended_state(life: Life) -> State:
    """Return the state of a container without a process or a pending restart."""
    return State.EXITED if life.run.started_at_ns else State.CREATED


def skip_back_off(moment: Moment, event: RestartNowAsked) -> Transition:
    return Transition(life=replace(moment.life, restarts=replace(moment.life.restarts, due_ns=moment.now_ns)))


# --- ending --------------------------------------------------------------------------------------------------------


def end(moment: Moment, event: Exited) -> Transition:
    """Record the end of the process, and decide whether and when the container is started again."""
    life, run = moment.life, moment.life.run
    finished_at_ns = moment.now_ns if event.finished_at_ns is None else event.finished_at_ns
    ending = Ending(
        exit_code=event.exit_code,
        finished_at_ns=finished_at_ns,
        signals=run.signals,
        oom=event.oom,
        stop_signal=moment.policy.stop_signal,
    )
    moment = _note_wish(moment, ending)
    decision = _decide_after(moment, event, ran_for_ns=max(0, finished_at_ns - run.started_at_ns))
    ended = replace(
        life,
        state=State.EXITED,
        run=_over(run),
        last_end=LastEnd(exit_code=event.exit_code, finished_at_ns=finished_at_ns, oom_killed=event.oom is not None),
        restarts=_restarts_after(moment, decision),
        pending=life.lasting_operation,
    )
    left: tuple[Notice | TeardownNotice, ...] = (TeardownNotice(),)
    effects: tuple[Effect, ...] = (ReleaseAll(), TellWaiters())
    if isinstance(decision, Restart):
        ended, left = replace(ended, state=State.RESTARTING), ()
        effects = (ForgetProcess(), TellWaiters())
    is_news = event.oom is not None and event.oom.kills > run.oom_told
    return Transition(
        life=ended,
        notices=((Notice("oom"),) if is_news else ()) + left + (_die(run, event.exit_code, finished_at_ns),),
        death=DeathFacts(ending, _tell(ended, moment.policy, decision)),
        effects=effects,
        keeps_sandbox=isinstance(decision, Restart),
    )


def _note_wish(moment: Moment, ending: Ending) -> Moment:
    """Call the policy off if a person's signal has ended it, or may have where nobody saw the end."""
    if find_wish(ending) is None:
        return moment
    restarts = replace(moment.life.restarts, stopped_by_user=True, cancelled=True)
    return replace(moment, life=replace(moment.life, restarts=restarts))


def _over(run: Run) -> Run:
    return replace(run, pid=0, undelivered=0, pause_is_brief=False, health=not_monitored(run.health))


def _die(run: Run, exit_code: int | None, finished_at_ns: int) -> Notice:
    seconds = max(0, finished_at_ns - run.started_at_ns) // 10**9
    code = UNKNOWN_AS if exit_code is None else exit_code
    return Notice("die", {"execDuration": str(seconds), "exitCode": str(code)})


def _decide_after(moment: Moment, event: Exited, *, ran_for_ns: int) -> Restart | Stay:
    life, restarts = moment.life, moment.life.restarts
    if event.daemon_ends:
        return Stay(restarts.delay_ns, "the daemon is shutting its containers down")
    ended = Exit(
        code=event.exit_code,
        ran_for_ns=ran_for_ns,
        stopped_by_user=restarts.stopped_by_user,
        unhealthy=life.run.restart_unhealthy,
    )
    return _governed(moment, decide_restart(moment.policy.restart, ended, restarts.history), event.exit_code)


def _governed(moment: Moment, decision: Restart | Stay, code: int | None) -> Restart | Stay:
    governor = moment.policy.governor
    if governor is None:
        return decision
    past = moment.life.restarts.crashes
    return govern(governor, decision, past, code=code, now_ns=moment.now_ns, draw=moment.draw)


def _restarts_after(moment: Moment, decision: Restart | Stay) -> Restarts:
    past, now_ns = moment.life.restarts, moment.now_ns
    if isinstance(decision, Stay):
        return replace(past, delay_ns=decision.delay_ns, gave_up=decision.gave_up)
    return replace(
        past,
        count=past.count + 1,
        delay_ns=decision.delay_ns,
        due_ns=now_ns + decision.delay_ns,
        instants_ns=(*past.instants_ns, now_ns)[-KEPT_RESTARTS:],
        score=score_after_end(past.crashes, now_ns),
        scored_at_ns=now_ns,
        gave_up=False,
    )


def _tell(life: Life, policy: Policy, decision: Restart | Stay) -> Decision:
    """Make the certificate's account of the next step: restart, removal or rest. `life` is the one after the end."""
    if isinstance(decision, Restart):
        return Decision("restart", decision.reason, life.restarts.due_ns)
    if life.pending is not None and life.pending.outlasts_end:
        if life.pending.verb is Verb.RESTART:
            return Decision("restart", "a restart was asked for")
        return Decision("remove", "its removal was asked for")
    if policy.auto_remove:
        return Decision("remove", "--rm asks for it")
    return Decision("stay", decision.reason)


def lose(moment: Moment, event: HostRebooted) -> Transition:
    """Record the loss of a process with its host; how it ended is unknown."""
    life, run = moment.life, moment.life.run
    ending = Ending(
        exit_code=None,
        finished_at_ns=moment.now_ns,
        signals=run.signals,
        lost=True,
        stop_signal=moment.policy.stop_signal,
    )
    lost = replace(
        life,
        state=State.EXITED,
        run=replace(run, pid=0, undelivered=0),
        last_end=replace(life.last_end, exit_code=None, finished_at_ns=moment.now_ns),
        restarts=replace(_note_wish(moment, ending).life.restarts, due_ns=0),
        pending=life.lasting_operation,
    )
    reason = "the host went down; its policy is asked as the daemon starts"
    return Transition(
        life=lost,
        notices=(Notice("die", {"exitCode": str(UNKNOWN_AS)}),),
        death=DeathFacts(
            ending,
            _tell(lost, moment.policy, Stay(0, reason)),
        ),
        effects=(TellWaiters(),),
        keeps_sandbox=False,
    )


def void_restart(moment: Moment, event: HostRebooted) -> Transition:
    """Void the restart, because its sandbox went with the host; its policy is asked anew as the daemon starts."""
    life = moment.life
    void = replace(
        life, state=_ended_state(life), restarts=replace(life.restarts, due_ns=0), pending=life.lasting_operation
    )
    return Transition(life=void, effects=(TellWaiters(),), keeps_sandbox=False)
