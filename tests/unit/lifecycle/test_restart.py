"""Whether, when and why a container is started again: Docker's rules, row by row, and what holds for all of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.lifecycle.restart import (
    BACK_OFF_FIRST_NS,
    BACK_OFF_MAX_NS,
    BACK_OFF_RESET_AFTER_NS,
    MS,
    Exit,
    Restart,
    RestartHistory,
    RestartMode,
    RestartPolicy,
    Start,
    Stay,
    decide_boot,
    decide_failed_restart,
    decide_restart,
    next_delay_ns,
)

NO, ON_FAILURE, UNLESS_STOPPED, ALWAYS = RestartMode
HUP, USR1, KILL, TERM = 1, 10, 9, 15


def policy(mode: RestartMode, max_retries: int = 0) -> RestartPolicy:
    return RestartPolicy(mode, max_retries)


def ended(code: int | None = 1, *, ran_ns: int = MS, stopped: bool = False) -> Exit:
    return Exit(code=code, ran_for_ns=ran_ns, stopped_by_user=stopped)


def past(count: int = 0, delay_ns: int = 0, *, cancelled: bool = False) -> RestartHistory:
    return RestartHistory(count=count, delay_ns=delay_ns, cancelled=cancelled)


POLICIES = st.builds(RestartPolicy, st.sampled_from(RestartMode), st.integers(0, 5))
EXITS = st.builds(Exit, st.none() | st.integers(0, 255), st.integers(0, 10**12), st.booleans())
HISTORIES = st.builds(RestartHistory, st.integers(0, 8), st.integers(0, 2 * BACK_OFF_MAX_NS), st.booleans())

# --- the back-off -------------------------------------------------------------------------------------------------


def test_delays_double_from_100_ms_to_a_minute() -> None:
    delays, last = [], 0
    for _ in range(13):
        last = next_delay_ns(last, MS)
        delays.append(last // MS)
    assert delays == [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000, 60000]


@pytest.mark.parametrize(("ran_s", "delay_ms"), [(0, 800), (9.999, 800), (10, 100), (3600, 100)])
def test_a_run_of_ten_seconds_begins_anew(ran_s: float, delay_ms: int) -> None:
    assert next_delay_ns(400 * MS, round(ran_s * 10**9)) == delay_ms * MS


@pytest.mark.parametrize("mode", RestartMode)
def test_back_off_advances_even_where_nothing_is_restarted(mode: RestartMode) -> None:
    decision = decide_restart(policy(mode), ended(0, stopped=True), past(delay_ns=400 * MS))
    assert decision.delay_ns == 800 * MS


# --- the decision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "code", "restarts"),
    [
        (NO, 0, False),
        (NO, 1, False),
        (ON_FAILURE, 0, False),
        (ON_FAILURE, 1, True),
        (ON_FAILURE, 137, True),
        (ON_FAILURE, None, True),
        (UNLESS_STOPPED, 0, True),
        (UNLESS_STOPPED, 1, True),
        (ALWAYS, 0, True),
        (ALWAYS, 1, True),
        (ALWAYS, None, True),
    ],
)
def test_an_end_that_nobody_asked_for(mode: RestartMode, code: int | None, restarts: bool) -> None:
    assert isinstance(decide_restart(policy(mode), ended(code), past()), Restart) == restarts


@pytest.mark.parametrize(
    ("mode", "restarted"),
    [(NO, set()), (ON_FAILURE, set(range(1, 256))), (UNLESS_STOPPED, set(range(256))), (ALWAYS, set(range(256)))],
)
def test_every_exit_code(mode: RestartMode, restarted: set[int]) -> None:
    decisions = {code: decide_restart(policy(mode), ended(code), past()) for code in range(256)}
    assert {code for code, decision in decisions.items() if isinstance(decision, Restart)} == restarted


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_on_failure_with_a_limit_gives_that_many_restarts(most: int) -> None:
    count = 0
    while isinstance(decide_restart(policy(ON_FAILURE, most), ended(), past(count)), Restart):
        count += 1
        assert count <= most
    assert count == most


@pytest.mark.parametrize("code", [0, 1, 137, None])
@pytest.mark.parametrize("mode", RestartMode)
def test_what_was_ended_for_bad_health_is_restarted_whatever_its_policy_and_code(
    mode: RestartMode, code: int | None
) -> None:
    decision = decide_restart(policy(mode), replace(ended(code), unhealthy=True), past(delay_ns=400 * MS))
    assert isinstance(decision, Restart)
    assert decision.delay_ns == 800 * MS
    assert "unhealthy" in decision.reason


def test_bad_health_uses_up_retries_and_yields_to_a_person() -> None:
    sick = replace(ended(0), unhealthy=True)
    decision = decide_restart(policy(ON_FAILURE, 3), sick, past(1))
    assert decision.reason == "the restart policy is on-failure and it was unhealthy: retry 2 of 3"
    assert isinstance(decide_restart(policy(ON_FAILURE, 3), sick, past(3)), Stay)
    assert isinstance(decide_restart(policy(NO), sick, past(cancelled=True)), Stay)
    assert isinstance(decide_restart(policy(UNLESS_STOPPED), replace(sick, stopped_by_user=True), past()), Stay)


@pytest.mark.parametrize("mode", RestartMode)
def test_what_was_called_off_stays_down(mode: RestartMode) -> None:
    assert isinstance(decide_restart(policy(mode), ended(), past(cancelled=True)), Stay)


@pytest.mark.parametrize(
    ("decision", "reason"),
    [
        (decide_restart(policy(NO), ended(), past()), "the restart policy is no"),
        (decide_restart(policy(ALWAYS), ended(), past(cancelled=True)), "a person stopped it"),
        (decide_restart(policy(ALWAYS), ended(), past()), "the restart policy is always"),
        (
            decide_restart(policy(ON_FAILURE), ended(0), past()),
            "the restart policy is on-failure and it exited with 0",
        ),
        (
            decide_restart(policy(ON_FAILURE, 3), ended(9), past(1)),
            "the restart policy is on-failure and it exited with 9: retry 2 of 3",
        ),
        (
            decide_restart(policy(ON_FAILURE), ended(None), past(1)),
            "the restart policy is on-failure and it exited with an unknown code: retry 2",
        ),
        (
            decide_restart(policy(ON_FAILURE, 3), ended(9), past(3)),
            "the restart policy is on-failure and all 3 retries are used",
        ),
    ],
)
def test_every_decision_says_why(decision: Restart | Stay, reason: str) -> None:
    assert decision.reason == reason


@given(POLICIES, EXITS, HISTORIES)
def test_no_decision_raises_and_every_delay_is_in_bounds(
    rule: RestartPolicy, end: Exit, before: RestartHistory
) -> None:
    decision = decide_restart(rule, end, before)
    assert decision.reason
    assert BACK_OFF_FIRST_NS <= decision.delay_ns <= BACK_OFF_MAX_NS or before.delay_ns < BACK_OFF_FIRST_NS // 2
    if end.ran_for_ns >= BACK_OFF_RESET_AFTER_NS:
        assert decision.delay_ns == BACK_OFF_FIRST_NS
    if isinstance(decision, Restart):
        assert rule.mode is not NO and not before.cancelled
        assert not (rule.mode is UNLESS_STOPPED and end.stopped_by_user)
        assert rule.mode is not ON_FAILURE or end.code != 0


# --- at the start of a daemon -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "code", "stopped", "starts"),
    [
        (NO, 1, False, False),
        (NO, 1, True, False),
        (ALWAYS, 0, False, True),
        (ALWAYS, 0, True, True),
        (ALWAYS, 137, True, True),
        (UNLESS_STOPPED, 0, False, True),
        (UNLESS_STOPPED, 0, True, False),
        (UNLESS_STOPPED, 137, True, False),
        (ON_FAILURE, 0, False, False),
        (ON_FAILURE, 0, True, False),
        (ON_FAILURE, 9, False, True),
        (ON_FAILURE, None, False, True),
        (ON_FAILURE, 137, True, False),
    ],
)
def test_boot(mode: RestartMode, code: int | None, stopped: bool, starts: bool) -> None:
    # What a person stopped has its policy called off too; at boot only `always` forgets that.
    decision = decide_boot(policy(mode), ended(code, stopped=stopped), past(cancelled=stopped))
    assert isinstance(decision, Start) == starts
    assert decision.reason


def test_boot_does_not_go_beyond_the_retries() -> None:
    assert isinstance(decide_boot(policy(ON_FAILURE, 3), ended(), past(2)), Start)
    assert isinstance(decide_boot(policy(ON_FAILURE, 3), ended(), past(3)), Stay)


@given(POLICIES, EXITS, HISTORIES)
def test_only_always_starts_what_a_person_stopped(rule: RestartPolicy, end: Exit, before: RestartHistory) -> None:
    decision = decide_boot(rule, end, before)
    if end.stopped_by_user and rule.mode is not ALWAYS:
        assert isinstance(decision, Stay)
    if rule.mode is ALWAYS:
        assert isinstance(decision, Start)


def test_policies_are_read_from_the_apis_words() -> None:
    assert RestartPolicy.parse("", 7) == policy(NO, 7)
    assert RestartPolicy.parse("on-failure", 3) == policy(ON_FAILURE, 3)
    assert [RestartPolicy.parse(str(mode), 0).mode for mode in RestartMode] == list(RestartMode)


def test_a_restart_that_the_host_had_too_little_for_is_tried_again_ever_more_slowly_and_no_other_is() -> None:
    tried = decide_failed_restart(400 * MS, shortage=True)
    assert isinstance(tried, Restart) and tried.delay_ns == 800 * MS
    assert isinstance(decide_failed_restart(400 * MS, shortage=False), Stay)
