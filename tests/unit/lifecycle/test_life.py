"""What one event makes of a life: what is told, what is written, what is done, and in which order."""

from dataclasses import replace

import pytest

from bennu.lifecycle.death import Oom, Requester, Verb
from bennu.lifecycle.governor import Governor
from bennu.lifecycle.health import Check, HealthState, HealthStatus, OnUnhealthy
from bennu.lifecycle.life import Alarm, Owed, Seen, decide_start, find_owed, next_alarm, recover, step
from bennu.lifecycle.life_events import (
    ActOnUnhealthy,
    BriefPauseOver,
    DrainBegun,
    Durability,
    Exited,
    ForgetProcess,
    Freeze,
    GraceOver,
    HostRebooted,
    Launch,
    LifeEvent,
    MemoryKilled,
    Notice,
    PauseAsked,
    Paused,
    Probed,
    ReleaseAll,
    RestartDue,
    RestartNowAsked,
    RunStarted,
    SendSignal,
    SignalAsked,
    SignalMissed,
    SignalSent,
    StartAsked,
    StartFailed,
    TakenUp,
    TeardownNotice,
    TellWaiters,
    Thawed,
    Transition,
    WatchRun,
)
from bennu.lifecycle.life_model import Life, PendingOperation, Policy
from bennu.lifecycle.probe import CommandProbe
from bennu.lifecycle.restart import RestartMode, RestartPolicy, Start
from bennu.lifecycle.status import State

SECOND = 10**9
SIGHUP, SIGKILL, SIGTERM = 1, 9, 15
NOW = 10**15
BY, OTHER = Requester("client", pid=1, command="docker"), Requester("client", pid=2, command="compose")
NEVER = Policy(restart=RestartPolicy(RestartMode.NO))
ALWAYS = Policy(restart=RestartPolicy(RestartMode.ALWAYS))
CHECKED = replace(NEVER, check=Check(probe=CommandProbe(("true",)), retries=2), on_unhealthy=OnUnhealthy.STOP)


def take(life: Life, *events: LifeEvent, policy: Policy = NEVER, now_ns: int = NOW, draw: float = 0.5) -> Transition:
    """The last of the steps."""
    assert events
    for event in events:
        change = step(life, event, policy, now_ns=now_ns, draw=draw)
        life = change.life
    return change


def run(policy: Policy = NEVER) -> Life:
    """It has run for a second."""
    return take(Life(), RunStarted(pid=7, boot_id="boot", at_ns=NOW - SECOND), policy=policy).life


def asked(verb: Verb, number: int = SIGTERM, by: Requester = BY, kill_at_ns: int = 0) -> SignalAsked:
    operation = PendingOperation(verb=verb, by=by, kill_at_ns=kill_at_ns)
    return SignalAsked(number=number, by=by, verb=verb, operation=operation)


def exited(code: int | None = 3, oom: Oom | None = None) -> Exited:
    return Exited(exit_code=code, finished_at_ns=NOW, oom=oom)


# --- starts and ends -------------------------------------------------------------------------------------------------


def test_a_start_is_written_only_once_it_has_a_process() -> None:
    change = take(Life(), StartAsked())
    assert (change.life, change.effects, change.durability) == (Life(), (Launch(),), Durability.NOT_WRITTEN)
    change = take(Life(), RunStarted(pid=7, boot_id="boot", at_ns=NOW))
    assert (change.notices, change.effects) == ((Notice("start"),), (WatchRun(),))
    assert change.durability is Durability.REQUIRED


def test_a_failed_start_has_its_code_and_text_and_no_event_of_dockers() -> None:
    change = take(Life(), StartFailed(exit_code=127, error="not found"))
    assert (change.life.state, change.life.last_end.exit_code, change.life.last_end.error) == (
        State.CREATED,
        127,
        "not found",
    )
    assert change.notices == () and change.effects == () and not change.keeps_sandbox
    assert change.death is not None and change.death.ending.start_error == "not found"


@pytest.mark.parametrize(("before", "code", "shown"), [(0, 128, 128), (3, 128, 3), (None, 128, None), (3, 127, 127)])
def test_a_failed_start_that_says_nothing_of_the_command_keeps_the_exit_code_of_the_run_before(
    before: int | None, code: int, shown: int | None
) -> None:
    ended = take(run(), exited(before)).life
    assert take(ended, StartFailed(exit_code=code, error="no network")).life.last_end.exit_code == shown


def test_a_restart_that_fails_keeps_the_exit_code_of_the_run_before_and_is_tried_again_only_for_a_shortage() -> None:
    waiting = take(run(), exited(3), policy=ALWAYS).life
    failed = take(waiting, StartFailed(exit_code=127, error="gone"), policy=ALWAYS)
    assert (failed.life.state, failed.life.last_end.exit_code, failed.life.last_end.error) == (State.EXITED, 3, "gone")
    again = take(waiting, StartFailed(exit_code=128, error="too little", shortage=True), policy=ALWAYS)
    assert again.life.state is State.RESTARTING and again.life.restarts.delay_ns == 2 * waiting.restarts.delay_ns
    assert next_alarm(again.life) == Alarm(NOW + again.life.restarts.delay_ns, RestartDue())


def test_a_start_by_a_person_begins_with_a_clean_slate_and_one_by_its_policy_does_not() -> None:
    waiting = take(run(), exited(), policy=ALWAYS).life
    started = RunStarted(pid=8, boot_id="boot", at_ns=NOW)
    assert take(waiting, started).life.restarts == replace(waiting.restarts, due_ns=0)
    ended = take(waiting, asked(Verb.STOP)).life
    assert take(ended, started).life.restarts == Life().restarts
    assert take(ended, started).life.ordinal == 2


def test_an_end_without_a_restart_gives_all_back_before_it_is_told() -> None:
    change = take(run(), exited(3))
    assert change.notices == (TeardownNotice(), Notice("die", {"execDuration": "1", "exitCode": "3"}))
    assert change.effects == (ReleaseAll(), TellWaiters()) and not change.keeps_sandbox
    assert change.death is not None and change.death.decision.reason == "the restart policy is no"


def test_an_end_with_a_restart_keeps_the_sandbox() -> None:
    change = take(run(), exited(3), policy=ALWAYS)
    assert change.notices == (Notice("die", {"execDuration": "1", "exitCode": "3"}),)
    assert change.effects == (ForgetProcess(), TellWaiters()) and change.keeps_sandbox
    assert change.death is not None
    assert change.death.decision.next_try_at_ns == change.life.restarts.due_ns == NOW + 100 * 10**6


def test_an_unknown_exit_code_is_unknown_on_record_and_255_in_dockers_event() -> None:
    change = take(run(), exited(None))
    assert change.life.last_end.exit_code is None
    assert change.notices[-1] == Notice("die", {"execDuration": "1", "exitCode": "255"})


@pytest.mark.parametrize(("told", "is_news"), [(0, True), (2, False)])
def test_a_memory_kill_is_told_once(told: int, is_news: bool) -> None:
    life = take(run(), MemoryKilled(told)).life if told else run()
    change = take(life, exited(137, oom=Oom(2, 0, 0, True)))
    assert (Notice("oom") in change.notices) == is_news and change.life.last_end.oom_killed


def test_delay_score_and_due_time_of_an_end_are_of_one_instant() -> None:
    policy = replace(ALWAYS, governor=Governor(jitter=1.0))
    restarts = take(run(), exited(), policy=policy, draw=0.25).life.restarts
    assert restarts.due_ns - NOW == restarts.delay_ns == 50 * 10**6
    assert restarts.scored_at_ns == restarts.instants_ns[-1] == NOW and restarts.score == 1.0


def test_a_restart_asked_for_now_is_due_now() -> None:
    waiting = take(run(), exited(), policy=ALWAYS).life
    assert next_alarm(take(waiting, RestartNowAsked()).life) == Alarm(NOW, RestartDue())


# --- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_is_on_record_before_it_is_sent_and_a_full_disk_does_not_keep_it() -> None:
    change = take(run(), asked(Verb.STOP))
    assert change.effects == (SendSignal(SIGTERM, thaw=False),) and change.notices == ()
    assert change.life.run.undelivered == SIGTERM and change.durability is Durability.IF_POSSIBLE
    sent = take(change.life, SignalSent())
    assert sent.notices == (Notice("kill", {"signal": "15"}),) and not sent.life.run.undelivered


def test_a_signal_that_came_too_late_has_no_part_in_the_end() -> None:
    missed = take(run(), asked(Verb.STOP), SignalMissed())
    assert missed.life.run.signals == () and not missed.life.run.undelivered and missed.notices == ()
    repeated = take(run(), asked(Verb.STOP), SignalMissed(again=True))
    assert [sent.number for sent in repeated.life.run.signals] == [SIGTERM], "a daemon that died may have sent it"


def test_what_a_signal_means_to_a_paused_container_is_sent_with_it() -> None:
    paused = take(run(), Paused()).life
    assert take(paused, asked(Verb.STOP)).effects == (SendSignal(SIGTERM, thaw=True),)
    sent = take(paused, asked(Verb.STOP), SignalSent())
    assert sent.life.state is State.RUNNING and sent.effects == (WatchRun(),)
    assert sent.notices == (Notice("kill", {"signal": "15"}), Notice("unpause"))
    hangup = SignalAsked(number=SIGHUP, by=BY, verb=Verb.KILL)
    declared = replace(NEVER, stop_signal=SIGTERM)
    assert take(paused, hangup, policy=declared).effects == (SendSignal(SIGHUP, thaw=False),)


def test_sigkill_follows_once_when_the_grace_is_over_in_the_name_of_who_asked() -> None:
    life = take(run(), asked(Verb.STOP, kill_at_ns=NOW + SECOND), SignalSent()).life
    assert next_alarm(life) == Alarm(NOW + SECOND, GraceOver())
    change = take(life, GraceOver())
    assert change.effects == (SendSignal(SIGKILL, thaw=False),) and next_alarm(change.life) is None
    assert [(sent.number, sent.by, sent.verb) for sent in change.life.run.signals] == [
        (SIGTERM, BY, Verb.STOP),
        (SIGKILL, BY, Verb.STOP),
    ]
    assert change.life.is_killed and not life.is_killed


def test_a_stop_calls_a_pending_restart_off() -> None:
    waiting = take(run(), exited(), policy=ALWAYS).life
    change = take(waiting, asked(Verb.STOP), policy=ALWAYS)
    assert (change.life.state, change.notices) == (State.EXITED, (TeardownNotice(),))
    assert change.effects == (ReleaseAll(), TellWaiters()) and change.life.pending is None
    assert take(waiting, asked(Verb.RESTART), policy=ALWAYS).life.pending is not None


def test_a_signal_that_does_not_mean_the_end_leaves_a_pending_restart_alone() -> None:
    declared = replace(ALWAYS, stop_signal=SIGTERM)
    waiting = take(run(), exited(), policy=declared).life
    change = take(waiting, SignalAsked(number=SIGHUP, by=BY, verb=Verb.KILL), policy=declared)
    assert change.life.state is State.RESTARTING and change.effects == ()


def test_what_crashes_while_its_connections_end_stays_down() -> None:
    drain = DrainBegun(PendingOperation(verb=Verb.STOP, by=BY, unbegun=SIGTERM, grace_s=10))
    change = take(run(ALWAYS), drain, exited(), policy=ALWAYS)
    assert change.life.state is State.EXITED
    assert change.death is not None and change.death.decision.reason == "a person stopped it"


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (Verb.STOP, Verb.RESTART, Verb.RESTART),
        (Verb.RESTART, Verb.STOP, Verb.RESTART),
        (Verb.RESTART, Verb.REMOVE, Verb.REMOVE),
        (Verb.REMOVE, Verb.RESTART, Verb.REMOVE),
        (Verb.STOP, Verb.STOP, Verb.STOP),
    ],
)
def test_of_two_requests_for_one_end_the_one_that_asks_for_more_stays_on_record(
    first: Verb, second: Verb, kept: Verb
) -> None:
    one = asked(first, by=BY, kill_at_ns=NOW + SECOND)
    two = asked(second, by=OTHER, kill_at_ns=NOW + 5 * SECOND)
    pending = take(run(), one, SignalSent(), two).life.pending
    assert pending is not None and pending.verb is kept
    assert pending.kill_at_ns == NOW + SECOND, "the first to be out of patience"


# --- pause and health ------------------------------------------------------------------------------------------------


def test_a_brief_pause_is_on_record_before_and_another_is_not() -> None:
    assert take(run(), PauseAsked()).durability is Durability.NOT_WRITTEN
    change = take(run(), PauseAsked(briefly=True))
    assert change.durability is Durability.REQUIRED and change.effects == (Freeze(),)


def test_a_paused_container_counts_as_unhealthy_without_an_event() -> None:
    life = take(run(CHECKED), Probed(exit_code=0, started_after_ns=1), policy=CHECKED).life
    paused = take(life, Paused(), policy=CHECKED)
    assert paused.life.run.health == HealthState(HealthStatus.UNHEALTHY) and paused.notices == (Notice("pause"),)


def test_only_a_change_of_health_is_written_and_the_failures_that_are_enough_are_acted_on() -> None:
    failed = Probed(exit_code=1, started_after_ns=10**12)
    once = take(run(CHECKED), failed, policy=CHECKED)
    assert (once.durability, once.notices, once.effects) == (Durability.NOT_WRITTEN, (), ())
    twice = take(once.life, failed, policy=CHECKED)
    assert twice.durability is Durability.REQUIRED and twice.notices == (Notice("health_status: unhealthy"),)
    assert twice.effects == (ActOnUnhealthy(OnUnhealthy.STOP, "2 probes in a row failed"),)
    assert take(twice.life, failed, policy=CHECKED).effects == ()


# --- after a daemon's death ------------------------------------------------------------------------------------------

PAUSED = take(run(), Paused()).life
HALF_PAUSED = take(run(), PauseAsked(briefly=True)).life


@pytest.mark.parametrize(
    ("life", "frozen", "events"),
    [
        pytest.param(run(), False, (), id="it runs"),
        pytest.param(run(), None, (), id="it has ended"),
        pytest.param(run(), True, (Paused(),), id="frozen and not written down"),
        pytest.param(PAUSED, True, (), id="it is paused"),
        pytest.param(PAUSED, False, (Thawed(),), id="thawed and not written down"),
        pytest.param(HALF_PAUSED, False, (Thawed(),), id="to be frozen for a request and not frozen yet"),
        pytest.param(HALF_PAUSED, True, (BriefPauseOver(),), id="frozen for a request that is over"),
        pytest.param(take(HALF_PAUSED, Paused()).life, True, (BriefPauseOver(),), id="the same, written down"),
        pytest.param(Life(), None, (), id="it never ran"),
    ],
)
def test_what_a_new_daemon_owes_a_life_that_it_finds(
    life: Life, frozen: bool | None, events: tuple[LifeEvent, ...]
) -> None:
    assert recover(life, Seen("boot", frozen)) == (*events, TakenUp())


@pytest.mark.parametrize("life", [run(), PAUSED, take(run(), exited(), policy=ALWAYS).life])
def test_what_lived_in_another_boot_is_lost_with_it(life: Life) -> None:
    assert recover(life, Seen("another boot")) == (HostRebooted(), TakenUp())
    lost = take(life, HostRebooted())
    assert lost.life.state is State.EXITED and not lost.keeps_sandbox
    assert recover(lost.life, Seen("another boot")) == (TakenUp(),)


def test_a_signal_that_may_not_have_been_sent_is_sent_and_the_run_watched_again() -> None:
    life = take(run(CHECKED), asked(Verb.STOP), policy=CHECKED).life
    taken_up = take(life, TakenUp(), policy=CHECKED)
    assert taken_up.effects == (SendSignal(SIGTERM, thaw=False, again=True), WatchRun())
    assert taken_up.life.run.health == HealthState(), "what was seen last is old"


def test_what_was_asked_for_is_owed_once_it_has_ended() -> None:
    assert find_owed(run(), NEVER) is None
    ended = take(run(), exited()).life
    assert find_owed(ended, NEVER) is None
    assert find_owed(ended, replace(NEVER, auto_remove=True)) is Owed.REMOVAL
    for verb, owed in ((Verb.STOP, None), (Verb.RESTART, Owed.START), (Verb.REMOVE, Owed.REMOVAL)):
        assert find_owed(take(run(), asked(verb), exited()).life, NEVER) is owed


def test_its_policy_has_a_say_at_the_start_of_the_daemon_only_if_nobody_else_has() -> None:
    ended = take(run(), exited()).life
    assert isinstance(decide_start(ended, ALWAYS), Start)
    assert not isinstance(decide_start(ended, NEVER), Start)
    for other in (Life(), run(), take(run(), asked(Verb.RESTART), exited()).life):
        assert not isinstance(decide_start(other, ALWAYS), Start)
