"""The cause of a death, and who asked for it, from what was seen."""

from dataclasses import replace
from signal import SIGHUP, SIGKILL, SIGSEGV, SIGTERM, SIGUSR1, SIGWINCH

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
    find_wish,
)
from bennu.lifecycle.disposition import Disposition

SECOND = 10**9
RTMIN = 34
FATAL, IGNORED, HANDLED, BLOCKED, UNKNOWN = Disposition
END = 1000 * SECOND
ALICE = Requester("client", uid=1000, pid=7, command="docker stop web")
BOB = Requester("client", uid=0, pid=8, command="docker kill web")
HEALTH = Requester("health", command="3 probes in a row failed")
OOM = Oom(kills=1, limit_bytes=1 << 20, peak_bytes=1 << 20, main_process=True)
CHILD_OOM = Oom(kills=1, limit_bytes=1 << 20, peak_bytes=1 << 20, main_process=False)


def sent(
    number: int, by: Requester = ALICE, verb: Verb = Verb.STOP, *, ago_s: float = 1, does: Disposition = HANDLED
) -> SentSignal:
    return SentSignal(round(END - ago_s * SECOND), number, by, verb, FATAL if number == SIGKILL else does)


def ending(
    code: int | None,
    *signals: SentSignal,
    oom: Oom | None = None,
    error: str = "",
    lost: bool = False,
    stop_signal: int | None = None,
) -> Ending:
    return Ending(
        exit_code=code,
        finished_at_ns=END,
        signals=signals,
        oom=oom,
        start_error=error,
        lost=lost,
        stop_signal=stop_signal,
    )


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
        pytest.param(
            ending(3, sent(SIGTERM, does=IGNORED)), Cause.EXITED, NOBODY, id="ended by itself while a stop waited"
        ),
        pytest.param(
            ending(3, sent(SIGTERM, ago_s=10, does=IGNORED), sent(SIGKILL, ago_s=0)),
            Cause.EXITED,
            NOBODY,
            id="ended by itself before SIGKILL arrived",
        ),
        pytest.param(
            ending(137, sent(SIGTERM)), Cause.SIGNAL, NOBODY, id="kill -9 from the host while it was stopping"
        ),
        pytest.param(ending(137, sent(SIGKILL, BOB, Verb.KILL)), Cause.KILLED, BOB, id="docker kill"),
        pytest.param(ending(137, sent(SIGKILL, BOB, Verb.REMOVE)), Cause.KILLED, BOB, id="rm -f"),
        pytest.param(ending(None, sent(SIGKILL, BOB, Verb.KILL)), Cause.KILLED, BOB, id="killed, and nobody saw"),
        pytest.param(
            ending(10, sent(SIGUSR1, BOB, Verb.KILL)), Cause.EXITED, NOBODY, id="exits on a signal for something else"
        ),
        pytest.param(
            ending(10, sent(SIGUSR1, BOB, Verb.KILL), stop_signal=SIGUSR1),
            Cause.KILLED,
            BOB,
            id="which is its stop signal",
        ),
        pytest.param(ending(138, sent(SIGUSR1, BOB, Verb.KILL)), Cause.KILLED, BOB, id="and says that it died of it"),
        pytest.param(
            ending(3, sent(SIGHUP, BOB, Verb.KILL, ago_s=6)), Cause.EXITED, NOBODY, id="a reload, then an end"
        ),
        pytest.param(ending(0, sent(SIGHUP, BOB, Verb.KILL)), Cause.EXITED, NOBODY, id="a reload, then a clean end"),
        pytest.param(
            ending(137, sent(SIGHUP, BOB, Verb.KILL)), Cause.SIGNAL, NOBODY, id="a reload, then kill -9 from the host"
        ),
        pytest.param(
            ending(129, sent(SIGHUP, BOB, Verb.KILL, ago_s=60)), Cause.KILLED, BOB, id="it says of what it died"
        ),
        pytest.param(
            ending(129, sent(SIGHUP, BOB, Verb.KILL, does=IGNORED)),
            Cause.SIGNAL,
            NOBODY,
            id="but not of ours, which it ignored",
        ),
        pytest.param(
            ending(139, sent(SIGTERM, BOB, Verb.KILL, ago_s=60)),
            Cause.SIGNAL,
            NOBODY,
            id="a signal survived, then another",
        ),
        pytest.param(
            ending(143, sent(SIGTERM, BOB, Verb.KILL, does=BLOCKED)), Cause.KILLED, BOB, id="an init passed it on"
        ),
        pytest.param(ending(143, sent(SIGTERM, HEALTH)), Cause.UNHEALTHY, HEALTH, id="unhealthy"),
        pytest.param(ending(0, sent(SIGTERM, HEALTH)), Cause.UNHEALTHY, HEALTH, id="unhealthy, even with exit 0"),
        pytest.param(
            ending(1, sent(SIGTERM, HEALTH, does=IGNORED)), Cause.EXITED, NOBODY, id="unhealthy, and crashed first"
        ),
        pytest.param(
            ending(137, sent(SIGTERM, ago_s=5), sent(SIGKILL, BOB, Verb.KILL)),
            Cause.KILLED,
            BOB,
            id="killed while stopping",
        ),
        pytest.param(
            ending(137, sent(SIGKILL, BOB, Verb.KILL, ago_s=0.02), sent(SIGKILL, ago_s=0.01)),
            Cause.KILLED,
            BOB,
            id="the first SIGKILL was the one",
        ),
    ],
)
def test_causes(end: Ending, cause: Cause, by: Requester) -> None:
    assert classify_death(end) == (cause, by)


# --- every kind of signal, of disposition, of end, and of time between ------------------------------------------------

OWN, OTHER_SIGNAL = 128, -128  # codes that are read together with the signal
CODES = {"unseen": None, "0": 0, "a code": 3, "its signal": OWN, "another signal": OTHER_SIGNAL}
AGES_S = {"before": -5.0, "soon": 0.2, "within": 60.0, "long after": 3600.0}


def matrix_ending(signal: int, does: Disposition, code: int | None, ago_s: float, verb: Verb) -> Ending:
    shown = {OWN: 128 + signal, OTHER_SIGNAL: 128 + SIGSEGV}.get(code, code) if code is not None else None
    return ending(shown, sent(signal, BOB, verb, ago_s=ago_s, does=does))


@pytest.mark.parametrize("verb", [Verb.KILL, Verb.STOP])
@pytest.mark.parametrize("age", AGES_S)
@pytest.mark.parametrize("does", Disposition)
@pytest.mark.parametrize("signal", [SIGHUP, SIGTERM, SIGUSR1, SIGWINCH, RTMIN])
def test_a_signal_is_the_cause_only_where_the_facts_bear_it(
    signal: int, does: Disposition, age: str, verb: Verb
) -> None:
    explained = {
        name
        for name, code in CODES.items()
        if classify_death(matrix_ending(signal, does, code, AGES_S[age], verb))[1] == BOB
    }
    if does is IGNORED or age == "before":
        assert explained == set()
    elif does is FATAL:
        assert explained == {"its signal"}
    elif verb is Verb.STOP or (signal == SIGTERM and age != "long after"):
        assert explained == {"0", "a code", "its signal"}
    else:
        assert explained == {"its signal"}


@pytest.mark.parametrize("verb", [Verb.KILL, Verb.STOP, Verb.REMOVE])
@pytest.mark.parametrize("age", AGES_S)
def test_sigkill_is_the_cause_of_its_own_code_and_of_an_end_that_nobody_saw(age: str, verb: Verb) -> None:
    explained = {
        name
        for name, code in CODES.items()
        if classify_death(matrix_ending(SIGKILL, FATAL, code, AGES_S[age], verb))[1] == BOB
    }
    assert explained == (set() if age == "before" else {"unseen", "its signal"})


@pytest.mark.parametrize("age", AGES_S)
@pytest.mark.parametrize("does", Disposition)
@pytest.mark.parametrize("signal", [SIGHUP, SIGTERM])
def test_the_kernels_kill_for_memory_is_told_whatever_was_sent_but_sigkill(
    signal: int, does: Disposition, age: str
) -> None:
    end = ending(137, sent(signal, BOB, Verb.KILL, ago_s=AGES_S[age], does=does), oom=OOM)
    assert classify_death(end) == (Cause.OOM, NOBODY)
    if age != "before":
        assert classify_death(replace(end, signals=(*end.signals, sent(SIGKILL, BOB, Verb.KILL))))[1] == BOB


# --- a wish that it end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "is_wish"),
    [
        pytest.param(ending(137, sent(SIGKILL, BOB, Verb.KILL)), True, id="docker kill"),
        pytest.param(ending(0, sent(SIGTERM, BOB, Verb.KILL)), True, id="kill -s TERM, and it ends"),
        pytest.param(ending(1, sent(SIGTERM, BOB, Verb.KILL, ago_s=300)), True, id="an end that takes minutes"),
        pytest.param(ending(139, sent(SIGTERM, BOB, Verb.KILL)), True, id="it crashes while it ends"),
        pytest.param(ending(1, sent(SIGTERM, BOB, Verb.KILL, ago_s=3600)), False, id="it went on, and crashes later"),
        pytest.param(ending(1, sent(SIGTERM, BOB, Verb.KILL, does=IGNORED)), False, id="it never heard of it"),
        pytest.param(ending(1, sent(SIGHUP, BOB, Verb.KILL)), False, id="a reload, then a crash"),
        pytest.param(ending(137, sent(SIGHUP, BOB, Verb.KILL)), False, id="a reload, then kill -9 from the host"),
        pytest.param(ending(129, sent(SIGHUP, BOB, Verb.KILL)), True, id="it dies of a hang-up"),
        pytest.param(
            ending(129, sent(SIGHUP, BOB, Verb.KILL), stop_signal=SIGTERM), False, id="which is not its stop signal"
        ),
        pytest.param(ending(0, sent(SIGUSR1, BOB, Verb.KILL), stop_signal=SIGUSR1), True, id="its own stop signal"),
        pytest.param(
            ending(143, sent(SIGTERM, BOB, Verb.KILL), stop_signal=SIGUSR1), False, id="TERM is not its stop signal"
        ),
        pytest.param(ending(137, sent(SIGKILL, BOB, Verb.KILL), stop_signal=SIGUSR1), True, id="SIGKILL always is"),
        pytest.param(ending(137, sent(SIGKILL, HEALTH, Verb.KILL)), False, id="no person"),
        pytest.param(
            ending(0, sent(SIGTERM, BOB, Verb.KILL), sent(SIGTERM)), True, id="a person first, then the daemon"
        ),
        pytest.param(
            ending(None, sent(SIGTERM, BOB, Verb.KILL, ago_s=3600), lost=True), True, id="TERM, then no power"
        ),
        pytest.param(
            ending(None, sent(SIGTERM, BOB, Verb.KILL, does=IGNORED), lost=True),
            False,
            id="ignored, then no power",
        ),
        pytest.param(ending(None, sent(SIGHUP, BOB, Verb.KILL), lost=True), False, id="a reload, then no power"),
    ],
)
def test_a_wish_is_in_force_unless_the_process_survived_its_signal(end: Ending, is_wish: bool) -> None:
    assert (find_wish(end) is not None) == is_wish


SIGNALS = st.builds(
    SentSignal,
    st.integers(0, 2 * END),
    st.integers(1, 64),
    st.sampled_from([ALICE, BOB, HEALTH]),
    st.sampled_from(Verb),
    st.sampled_from(Disposition),
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
