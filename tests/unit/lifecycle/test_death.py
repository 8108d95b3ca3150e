"""The cause of a death, and who asked for it, from what was seen."""

from signal import SIGHUP, SIGKILL, SIGTERM, SIGUSR1

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.lifecycle.death import (
    NOBODY,
    Cause,
    Ending,
    Oom,
    Requester,
    SentSignal,
    Verb,
    classify_death,
    find_escalation,
)

SECOND = 10**9
END = 1000 * SECOND
ALICE = Requester("client", uid=1000, pid=7, command="docker stop web")
BOB = Requester("client", uid=0, pid=8, command="docker kill web")
HEALTH = Requester("health", command="3 probes in a row failed")
OOM = Oom(kills=1, limit_bytes=1 << 20, peak_bytes=1 << 20, main_process=True)
CHILD_OOM = Oom(kills=1, limit_bytes=1 << 20, peak_bytes=1 << 20, main_process=False)


def sent(number: int, by: Requester = ALICE, verb: Verb = Verb.STOP, *, ago_s: float = 1) -> SentSignal:
    return SentSignal(round(END - ago_s * SECOND), number, by, verb)


def ending(
    code: int | None, *signals: SentSignal, oom: Oom | None = None, error: str = "", lost: bool = False
) -> Ending:
    return Ending(exit_code=code, finished_at_ns=END, signals=signals, oom=oom, start_error=error, lost=lost)


@pytest.mark.parametrize(
    ("end", "cause", "by"),
    [
        pytest.param(ending(0), Cause.EXITED, NOBODY, id="by itself"),
        pytest.param(ending(255), Cause.EXITED, NOBODY, id="with an error"),
        pytest.param(ending(139), Cause.SIGNAL, NOBODY, id="segmentation fault"),
        pytest.param(ending(137), Cause.SIGNAL, NOBODY, id="kill -9 from outside"),
        pytest.param(ending(None), Cause.UNKNOWN, NOBODY, id="nobody saw"),
        pytest.param(ending(None, lost=True), Cause.LOST, NOBODY, id="the host went down"),
        pytest.param(ending(127, error="not found"), Cause.START_FAILED, NOBODY, id="never started"),
        pytest.param(ending(137, oom=OOM), Cause.OOM, NOBODY, id="out of memory"),
        pytest.param(ending(9, oom=CHILD_OOM), Cause.EXITED, NOBODY, id="only a child was killed for memory"),
        pytest.param(ending(0, sent(SIGTERM)), Cause.STOPPED, ALICE, id="stopped, exits with 0"),
        pytest.param(ending(143, sent(SIGTERM)), Cause.STOPPED, ALICE, id="stopped, dies of it"),
        pytest.param(
            ending(137, sent(SIGTERM, ago_s=11), sent(SIGKILL)), Cause.STOPPED, ALICE, id="stopped the hard way"
        ),
        pytest.param(
            ending(137, sent(SIGTERM, ago_s=11), sent(SIGKILL), oom=OOM),
            Cause.STOPPED,
            ALICE,
            id="we killed, not memory",
        ),
        pytest.param(
            ending(137, sent(SIGTERM, ago_s=1), oom=OOM), Cause.OOM, NOBODY, id="memory ended it while it was stopping"
        ),
        pytest.param(ending(0, sent(SIGTERM, ago_s=3600)), Cause.STOPPED, ALICE, id="a stop without a limit"),
        pytest.param(ending(0, sent(SIGTERM, verb=Verb.RESTART)), Cause.STOPPED, ALICE, id="an API restart"),
        pytest.param(ending(137, sent(SIGKILL, BOB, Verb.KILL)), Cause.KILLED, BOB, id="docker kill"),
        pytest.param(ending(137, sent(SIGKILL, BOB, Verb.REMOVE)), Cause.KILLED, BOB, id="rm -f"),
        pytest.param(ending(10, sent(SIGUSR1, BOB, Verb.KILL)), Cause.KILLED, BOB, id="kill -s USR1, exits by it"),
        pytest.param(
            ending(1, sent(SIGHUP, BOB, Verb.KILL, ago_s=60)),
            Cause.EXITED,
            NOBODY,
            id="a reload long ago, then a crash",
        ),
        pytest.param(
            ending(129, sent(SIGHUP, BOB, Verb.KILL, ago_s=60)), Cause.KILLED, BOB, id="it says of what it died"
        ),
        pytest.param(
            ending(139, sent(SIGTERM, BOB, Verb.KILL, ago_s=60)),
            Cause.SIGNAL,
            NOBODY,
            id="a signal survived, then another",
        ),
        pytest.param(ending(143, sent(SIGTERM, HEALTH)), Cause.UNHEALTHY, HEALTH, id="unhealthy"),
        pytest.param(ending(0, sent(SIGTERM, HEALTH)), Cause.UNHEALTHY, HEALTH, id="unhealthy, even with exit 0"),
        pytest.param(
            ending(137, sent(SIGTERM, ago_s=5), sent(SIGKILL, BOB, Verb.KILL)),
            Cause.KILLED,
            BOB,
            id="killed while stopping",
        ),
    ],
)
def test_causes(end: Ending, cause: Cause, by: Requester) -> None:
    assert classify_death(end) == (cause, by)


SIGNALS = st.builds(
    SentSignal,
    st.integers(0, 2 * END),
    st.integers(1, 64),
    st.sampled_from([ALICE, BOB, HEALTH]),
    st.sampled_from(Verb),
)
ENDINGS = st.builds(
    Ending,
    exit_code=st.none() | st.integers(0, 255),
    finished_at_ns=st.integers(0, 2 * END),
    signals=st.lists(SIGNALS, max_size=5),
    oom=st.sampled_from([None, OOM, CHILD_OOM]),
    start_error=st.sampled_from(["", "no"]),
    lost=st.booleans(),
)


@given(ENDINGS)
def test_a_certificate_says_what_is_known_and_no_more(end: Ending) -> None:
    cause, by = classify_death(end)
    assert (by is NOBODY) == (cause not in (Cause.STOPPED, Cause.KILLED, Cause.UNHEALTHY))
    assert by is NOBODY or by in {signal.by for signal in end.signals}
    if cause is Cause.OOM:
        assert end.oom is not None and end.oom.main_process
    if cause is Cause.UNKNOWN:
        assert end.exit_code is None
    if cause in (Cause.EXITED, Cause.SIGNAL):
        assert end.exit_code is not None


@pytest.mark.parametrize(
    ("signals", "escalated"),
    [
        ((), False),
        ((sent(SIGTERM),), False),
        ((sent(SIGKILL),), False),
        ((sent(SIGTERM), sent(SIGKILL)), True),
        ((sent(SIGHUP, BOB, Verb.KILL), sent(SIGTERM), sent(SIGKILL)), True),
        ((sent(SIGTERM), sent(SIGKILL, BOB, Verb.KILL)), False),
        ((sent(SIGTERM, BOB, Verb.KILL), sent(SIGKILL, BOB, Verb.KILL)), False),
        ((sent(SIGTERM, HEALTH), sent(SIGKILL, HEALTH)), True),
    ],
)
def test_an_escalation_is_one_request_that_needed_sigkill(signals: tuple[SentSignal, ...], escalated: bool) -> None:
    assert find_escalation(signals) == (signals[-2:] if escalated else None)
