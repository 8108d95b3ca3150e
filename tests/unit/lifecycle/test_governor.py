"""The governor: what the labels say, its delays, its budget, the score that does not forget at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.errors import InvalidParameter
from bennu.lifecycle.governor import (
    HALF_LIFE_NS,
    MAX_BUDGET,
    CrashHistory,
    Governor,
    govern,
    govern_boot,
    parse_governor,
    score_after_end,
)
from bennu.lifecycle.life_runs import KEPT_RESTARTS
from bennu.lifecycle.restart import MS, Restart, Start, Stay

SECOND = 10**9
RESTART = Restart(100 * MS, "the restart policy is always")
STAY = Stay(100 * MS, "the restart policy is no")


def labels(**asked: str) -> dict[str, str]:
    return {f"bennu.restart.{name.replace('_', '-')}": value for name, value in asked.items()}


def read(**asked: str) -> Governor:
    governor = parse_governor(labels(**asked))
    assert governor is not None
    return governor


def decide(
    governor: Governor, past: CrashHistory, *, now_ns: int = 0, code: int | None = 1, draw: float = 0.5
) -> object:
    return govern(governor, RESTART, past, code=code, now_ns=now_ns, draw=draw)


def test_without_a_label_of_its_own_there_is_no_governor() -> None:
    assert parse_governor({}) is None
    assert parse_governor({"bennu.restartable": "1", "other": "x"}) is None


def test_labels_are_read() -> None:
    assert read(max_delay="1m30s", multiplier="1.5", jitter="0.2", budget="5 in 10m", never_codes="3, 64") == Governor(
        max_delay_ns=90 * SECOND,
        multiplier=1.5,
        jitter=0.2,
        budget=5,
        window_ns=600 * SECOND,
        never_codes=frozenset({3, 64}),
    )
    assert read(budget="5 in 10 min").window_ns == 600 * SECOND
    assert read(max_delay="250ms").max_delay_ns == 250 * MS


@pytest.mark.parametrize(
    "asked",
    [
        {"max_delay": ""},
        {"max_delay": "soon"},
        {"max_delay": "-1s"},
        {"max_delay": "0s"},
        {"max_delay": "1s x"},
        {"max_delay": "9" * 500 + "h"},
        {"multiplier": "0.5"},
        {"multiplier": "nan"},
        {"multiplier": "inf"},
        {"jitter": "1.1"},
        {"jitter": "-0.1"},
        {"budget": "5"},
        {"budget": "0 in 10m"},
        {"budget": "five in 10m"},
        {"budget": "5 in"},
        {"budget": "9" * 5000 + " in 10m"},
        {"budget": "² in 10m"},
        {"never_codes": "256"},
        {"never_codes": "3;4"},
        {"max_dealy": "1s"},
    ],
)
def test_what_cannot_be_read_is_refused_and_named(asked: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_governor(labels(**asked))
    assert "bennu.restart." in str(caught.value)


@given(st.dictionaries(st.sampled_from(["max_delay", "multiplier", "jitter", "budget", "never_codes"]), st.text()))
def test_no_label_does_anything_but_parse_or_be_refused(asked: dict[str, str]) -> None:
    try:
        parse_governor(labels(**asked))
    except InvalidParameter:
        return


def test_what_stays_down_stays_down() -> None:
    assert govern(Governor(), STAY, CrashHistory(), code=1, now_ns=0, draw=0.5) is STAY


def test_codes_that_are_never_restarted() -> None:
    governor = read(never_codes="3")
    assert isinstance(decide(governor, CrashHistory(), code=3), Stay)
    assert isinstance(decide(governor, CrashHistory(), code=4), Restart)
    assert isinstance(decide(governor, CrashHistory(), code=None), Restart)


def test_the_budget_gives_up_with_its_reason_and_forgets_what_left_the_window() -> None:
    governor = read(budget="3 in 10s")
    spent = CrashHistory(restarts_ns=[0, 4 * SECOND, 8 * SECOND])
    decision = decide(governor, spent, now_ns=9 * SECOND)
    assert isinstance(decision, Stay) and "all 3 restarts of its budget are used" in decision.reason
    assert isinstance(decide(governor, spent, now_ns=10 * SECOND), Restart)


def test_a_container_that_dies_every_eleven_seconds_is_slowed() -> None:
    """Docker's own back-off forgets it each time."""
    past, now_ns, delays = CrashHistory(), 0, []
    for _ in range(40):
        now_ns += 11 * SECOND
        decision = decide(Governor(), past, now_ns=now_ns)
        assert isinstance(decision, Restart)
        delays.append(decision.delay_ns)
        past = CrashHistory(score_after_end(past, now_ns), now_ns)
        now_ns += decision.delay_ns
    assert delays[0] == 100 * MS
    assert delays == sorted(delays) or delays[-1] == 60 * SECOND
    assert delays[-1] == 60 * SECOND


def test_the_score_halves_in_ten_minutes_and_a_clock_set_back_changes_nothing() -> None:
    assert score_after_end(CrashHistory(), 0) == 1.0
    assert score_after_end(CrashHistory(4.0, 0), HALF_LIFE_NS) == 3.0
    assert score_after_end(CrashHistory(4.0, 10 * HALF_LIFE_NS), 0) == 5.0
    assert score_after_end(CrashHistory(10.0, 0), 10**30) == pytest.approx(1.0)


GOVERNORS = st.builds(
    Governor,
    max_delay_ns=st.integers(1, 10**13),
    multiplier=st.floats(1, 100),
    jitter=st.floats(0, 1),
    budget=st.integers(0, 10),
    window_ns=st.integers(1, 10**12),
    never_codes=st.frozensets(st.integers(0, 255), max_size=3),
)
PASTS = st.builds(
    CrashHistory, st.floats(0, 10**6), st.integers(0, 10**18), st.lists(st.integers(0, 10**13), max_size=12).map(sorted)
)


@given(GOVERNORS, PASTS, st.none() | st.integers(0, 255), st.integers(0, 2 * 10**18), st.floats(0, 1))
def test_no_delay_exceeds_the_limit_and_no_window_the_budget(
    governor: Governor, past: CrashHistory, code: int | None, now_ns: int, draw: float
) -> None:
    decision = govern(governor, RESTART, past, code=code, now_ns=now_ns, draw=draw)
    if isinstance(decision, Restart):
        assert 0 <= decision.delay_ns <= governor.max_delay_ns
        assert code not in governor.never_codes
        within = [instant for instant in past.restarts_ns if now_ns - instant < governor.window_ns]
        assert not governor.budget or len(within) < governor.budget


def test_jitter_spreads_by_its_part() -> None:
    governor = read(jitter="0.5", max_delay="1h")
    past = CrashHistory(3.0, 0)
    delays = [decide(governor, past, draw=draw) for draw in (0.0, 0.5, 1.0)]
    assert [one.delay_ns // MS for one in delays if isinstance(one, Restart)] == [400, 800, 1200]


def test_as_many_restarts_are_remembered_as_a_budget_may_have() -> None:
    assert KEPT_RESTARTS >= MAX_BUDGET


START = Start("the daemon started and the restart policy is always")


@pytest.mark.parametrize(
    ("decision", "code", "gave_up", "starts"),
    [
        pytest.param(START, 1, False, True, id="nothing-against-it"),
        pytest.param(START, None, False, True, id="lost-at-reboot"),
        pytest.param(START, 3, False, False, id="a-code-that-is-never-restarted"),
        pytest.param(START, 1, True, False, id="its-budget-was-used-up"),
        pytest.param(Stay(0, "a person stopped it"), 1, False, False, id="stays-anyhow"),
    ],
)
def test_what_it_gave_up_on_stays_down_when_the_daemon_starts(
    decision: Start | Stay, code: int | None, gave_up: bool, starts: bool
) -> None:
    governor = Governor(budget=2, window_ns=600 * SECOND, never_codes=frozenset({3}))
    after = govern_boot(governor, decision, code=code, gave_up=gave_up)
    assert isinstance(after, Start) is starts
    assert after.reason
