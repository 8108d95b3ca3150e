"""The health check: what is run, when, and what its results mean, over the whole table of states and results."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.errors import InvalidParameter
from bennu.lifecycle.health import (
    Check,
    HealthState,
    HealthStatus,
    OnUnhealthy,
    cut_output,
    judge,
    next_wait_ns,
    on_unhealthy,
    plan_check,
    timeout_text,
)
from bennu.lifecycle.probe import CommandProbe, TcpProbe, command_probe

SECOND = 10**9
STARTING, HEALTHY, UNHEALTHY = HealthStatus
PROBE = CommandProbe(("true",))
CHECK = Check(probe=PROBE, start_period_ns=10 * SECOND)  # three failures in a row make it unhealthy
INSIDE, AT_END, AFTER = 10 * SECOND - 1, 10 * SECOND, 60 * SECOND

# --- the machine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "streak", "code", "started_after", "after", "new_streak", "changed"),
    [
        # a success is healthy, whatever was
        (STARTING, 0, 0, INSIDE, HEALTHY, 0, True),
        (STARTING, 2, 0, AFTER, HEALTHY, 0, True),
        (HEALTHY, 0, 0, AFTER, HEALTHY, 0, False),
        (HEALTHY, 2, 0, AFTER, HEALTHY, 0, False),
        (UNHEALTHY, 9, 0, AFTER, HEALTHY, 0, True),
        # within the start period failures of what was never healthy do not count
        (STARTING, 0, 1, 0, STARTING, 0, False),
        (STARTING, 0, 1, INSIDE, STARTING, 0, False),
        (STARTING, 0, 1, AT_END, STARTING, 1, False),
        (STARTING, 2, 1, AT_END, UNHEALTHY, 3, True),
        # after a first success they do
        (HEALTHY, 0, 1, INSIDE, HEALTHY, 1, False),
        (HEALTHY, 2, 1, INSIDE, UNHEALTHY, 3, True),
        # and the streak goes on growing
        (HEALTHY, 1, 1, AFTER, HEALTHY, 2, False),
        (UNHEALTHY, 3, 1, AFTER, UNHEALTHY, 4, False),
        (UNHEALTHY, 0, 1, AFTER, UNHEALTHY, 1, False),
    ],
)
def test_transitions(
    before: HealthStatus,
    streak: int,
    code: int,
    started_after: int,
    after: HealthStatus,
    new_streak: int,
    changed: bool,
) -> None:
    judged = judge(HealthState(before, streak), CHECK, exit_code=code, started_after_ns=started_after)
    assert judged.state == HealthState(after, new_streak)
    assert judged.changed == changed
    assert judged.reason


@pytest.mark.parametrize("code", [-1, *range(1, 256)])
def test_every_code_but_0_is_a_failure(code: int) -> None:
    judged = judge(HealthState(HEALTHY, 0), CHECK, exit_code=code, started_after_ns=AFTER)
    assert judged.state == HealthState(HEALTHY, 1)


@pytest.mark.parametrize(
    ("status", "streak", "retries", "failed", "started_after"),
    list(product(HealthStatus, range(4), (1, 2, 3), (False, True), (INSIDE, AT_END))),
)
def test_the_whole_table_agrees_with_dockers_sentences(
    status: HealthStatus, streak: int, retries: int, failed: bool, started_after: int
) -> None:
    check = Check(probe=PROBE, start_period_ns=10 * SECOND, retries=retries)
    judged = judge(HealthState(status, streak), check, exit_code=int(failed), started_after_ns=started_after)
    counts = failed and not (status is STARTING and started_after < check.start_period_ns)
    expected_streak = streak + 1 if counts else streak if failed else 0
    expected = HEALTHY if not failed else UNHEALTHY if counts and expected_streak >= retries else status
    assert judged.state == HealthState(expected, expected_streak)
    assert judged.changed == (expected is not status)
    assert judged.failed == (counts and expected_streak == retries)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=40), st.integers(1, 5), st.integers(0, 20))
def test_a_history_of_probes(results: list[tuple[bool, int]], retries: int, period_s: int) -> None:
    """Unhealthy only after enough failures in a row; an event at each change and only then."""
    check = Check(probe=PROBE, start_period_ns=period_s * SECOND, retries=retries)
    state, now_s, seen = HealthState(), 0, [STARTING]
    failures = 0
    for succeeded, gap_s in results:
        now_s += gap_s
        judged = judge(state, check, exit_code=0 if succeeded else 1, started_after_ns=now_s * SECOND)
        failures = 0 if succeeded else failures + 1
        assert judged.changed == (judged.state.status is not state.status)
        if judged.changed:
            seen.append(judged.state.status)
        if judged.state.status is UNHEALTHY:
            assert failures >= retries
        assert (judged.state.status is HEALTHY) or not succeeded
        assert judged.state.failing_streak <= failures
        state = judged.state
    assert STARTING not in seen[1:]
    assert all(first is not second for first, second in pairwise(seen))


@pytest.mark.parametrize(
    ("status", "streak"), [pytest.param(HEALTHY, 0, id="healthy"), pytest.param(UNHEALTHY, 0, id="was paused")]
)
def test_something_is_done_once_in_a_row_of_failures_also_after_a_pause(status: HealthStatus, streak: int) -> None:
    """A pause makes a healthy container count as unhealthy: there is no event later, but it must be acted upon."""
    state, failed = HealthState(status, streak), []
    for _ in range(7):
        judged = judge(state, CHECK, exit_code=1, started_after_ns=AFTER)
        state = judged.state
        failed.append(judged.failed)
    assert failed == [False, False, True, False, False, False, False]


# --- when -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "running_for", "wait_s"),
    [(STARTING, 0, 5), (STARTING, INSIDE, 5), (STARTING, AT_END, 30), (HEALTHY, 0, 30), (UNHEALTHY, 0, 30)],
)
def test_the_start_interval_holds_while_starting_within_the_start_period(
    status: HealthStatus, running_for: int, wait_s: int
) -> None:
    assert next_wait_ns(HealthState(status), CHECK, running_for_ns=running_for) == wait_s * SECOND


def test_defaults_are_dockers() -> None:
    check = plan_check(["CMD", "true"])
    assert check == Check(
        probe=PROBE,
        interval_ns=30 * SECOND,
        timeout_ns=30 * SECOND,
        start_period_ns=0,
        start_interval_ns=5 * SECOND,
        retries=3,
    )
    asked = plan_check(["CMD", "true"], interval_ns=1, timeout_ns=2, start_period_ns=3, start_interval_ns=4, retries=5)
    assert asked == Check(probe=PROBE, interval_ns=1, timeout_ns=2, start_period_ns=3, start_interval_ns=4, retries=5)


# --- what -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "shell", "args"),
    [
        (["CMD", "curl", "-f", "x"], None, ("curl", "-f", "x")),
        (["CMD-SHELL", "exit 1"], None, ("/bin/sh", "-c", "exit 1")),
        (["CMD-SHELL", "exit $0", "7"], None, ("/bin/sh", "-c", "exit $0", "7")),
        (["CMD-SHELL"], None, ("/bin/sh", "-c")),
        (["CMD-SHELL", "true"], ["/bin/bash", "-ec"], ("/bin/bash", "-ec", "true")),
        (["NONE"], None, None),
        ([], None, None),
        (None, None, None),
        (["cmd", "true"], None, None),
        (["curl"], None, None),
    ],
)
def test_forms_of_the_test(test: list[str] | None, shell: list[str] | None, args: tuple[str, ...] | None) -> None:
    probe = command_probe(test, shell)
    assert (probe.args if probe else None) == args
    assert (plan_check(test, shell=shell) is None) == (args is None)


def test_labels_take_the_place_of_the_command() -> None:
    check = plan_check(["CMD", "curl"], retries=2, labels={"bennu.health.tcp": ":1"})
    assert check is not None and check.probe == TcpProbe("127.0.0.1", 1) and check.retries == 2


def test_none_switches_off_what_labels_ask_for_too() -> None:
    assert plan_check(["NONE"], labels={"bennu.health.tcp": ":1"}) is None


def test_what_is_done_about_an_unhealthy_one_is_asked_for_by_label() -> None:
    assert on_unhealthy({}) is OnUnhealthy.NONE
    for action in OnUnhealthy:
        assert on_unhealthy({"bennu.on-unhealthy": str(action)}) is action
    of_a_task = {"bennu.on-unhealthy": "restart", "com.docker.swarm.task.id": "t"}
    assert on_unhealthy(of_a_task) is OnUnhealthy.NONE
    with pytest.raises(InvalidParameter, match=r"label bennu\.on-unhealthy: 'Restart' is not one of"):
        on_unhealthy({"bennu.on-unhealthy": "Restart"})


# --- words ----------------------------------------------------------------------------------------------------------


def test_a_timeout_is_told_with_what_was_said_until_then() -> None:
    assert timeout_text(SECOND, "") == "Health check exceeded timeout (1s)"
    assert timeout_text(90 * SECOND, "half") == "Health check exceeded timeout (1m30s): half"


@pytest.mark.parametrize(("length", "kept"), [(0, 0), (4095, 4095), (4096, 4096), (4097, 4099), (10**5, 4099)])
def test_4096_bytes_of_output_are_kept(length: int, kept: int) -> None:
    text = cut_output(b"x" * length)
    assert len(text) == kept and text.endswith("...") == (length > 4096)
