"""Signals by name and number: the whole domain, against the host's own table."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.errors import InvalidParameter
from bennu.lifecycle.signals import NUMBER_OF, is_linux_signal, parse_signal, signal_name

# The names dockerd knows, written out.
NAMES = """
ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN
TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ
""".split()  # noqa: SIM905
REAL_TIME = (
    {"RTMIN": 34, "RTMAX": 64}
    | {f"RTMIN+{step}": 34 + step for step in range(1, 16)}
    | {f"RTMAX-{step}": 64 - step for step in range(1, 15)}
)


def test_the_names_are_exactly_dockers() -> None:
    assert set(NUMBER_OF) == set(NAMES) | set(REAL_TIME)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_means_what_the_host_says(name: str) -> None:
    known = {member.name: member.value for member in signal.Signals} | {
        name: value for name, value in vars(signal).items() if name.startswith("SIG") and isinstance(value, int)
    }
    known.setdefault("SIGSTKFLT", 16)
    assert parse_signal(name) == known[f"SIG{name}"]


@pytest.mark.parametrize(("name", "number"), REAL_TIME.items())
def test_real_time_signals_are_counted_from_both_ends(name: str, number: int) -> None:
    assert parse_signal(name) == number == parse_signal(f"sig{name.lower()}")


@pytest.mark.parametrize("name", sorted(NUMBER_OF))
def test_case_and_prefix_do_not_matter(name: str) -> None:
    forms = (name, f"SIG{name}", name.lower(), f"sig{name.lower()}", f"Sig{name.title()}")
    assert {parse_signal(form) for form in forms} == {NUMBER_OF[name]}


@pytest.mark.parametrize("number", range(-70, 71))
def test_any_number_but_zero_is_taken_as_it_is(number: int) -> None:
    if number == 0:
        with pytest.raises(InvalidParameter):
            parse_signal("0")
    else:
        assert parse_signal(str(number)) == number


@pytest.mark.parametrize("number", range(-5, 300))
def test_linux_signals_are_1_to_31_and_34_to_64(number: int) -> None:
    assert is_linux_signal(number) == (number in {*range(1, 32), *range(34, 65)})


@pytest.mark.parametrize("text", ["", "BOGUS", "SIG", "SIGSIGTERM", "RTMIN 1", "RTMIN+16", "TERM ", "9.0", "00", "0x9"])
def test_anything_else_is_refused_in_dockers_words(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_signal(text)
    assert str(caught.value) == f"invalid signal: {text}"


@given(st.text(max_size=20))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        number = parse_signal(text)
    except InvalidParameter:
        return
    assert number != 0


@pytest.mark.parametrize("number", [*range(1, 32), *range(34, 65)])
def test_a_signals_name_leads_back_to_it(number: int) -> None:
    assert parse_signal(signal_name(number)) == number


def test_names_are_the_common_ones() -> None:
    named = {number: signal_name(number) for number in (6, 17, 29, 34, 64, 99)}
    assert named == {6: "SIGABRT", 17: "SIGCHLD", 29: "SIGIO", 34: "SIGRTMIN", 64: "SIGRTMAX", 99: "signal 99"}
