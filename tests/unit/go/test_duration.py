"""Durations, read and written as Go does."""

import pytest

from bennu.go.duration import format_duration, parse_duration

MS, S = 10**6, 10**9
MINUTE, HOUR = 60 * S, 3600 * S

DURATIONS = {
    "0": 0,
    "0s": 0,
    "1ns": 1,
    "5us": 5000,
    "5µs": 5000,
    "5μs": 5000,
    "500ms": 500 * MS,
    ".5s": 500 * MS,
    "1.s": S,
    "1.5h": 90 * MINUTE,
    "1m30s": 90 * S,
    "1h1m1.001s": HOUR + MINUTE + S + MS,
    "0.000000001s": 1,
    "9223372036854775807ns": 2**63 - 1,
}


@pytest.mark.parametrize(("text", "ns"), DURATIONS.items(), ids=DURATIONS)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns
    assert parse_duration(f"-{text}", signed=True) == -ns
    assert parse_duration(f"+{text}", signed=True) == ns


@pytest.mark.parametrize(
    "text",
    ["", "1", "s", ".s", "1 s", "1S", "1d", "1s2", "s1", "1e3s", "-", "٣s", "1s\n", "9223372036854775808ns", "1h" * 40],
)
@pytest.mark.parametrize("signed", [False, True])
def test_what_is_no_duration(text: str, signed: bool) -> None:
    with pytest.raises(ValueError, match="time: invalid duration"):
        parse_duration(text, signed=signed)


@pytest.mark.parametrize("text", ["-1s", "+1s", "-0"])
def test_a_sign_is_read_where_it_means_something(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (MS, "1ms"),
        (500 * MS, "500ms"),
        (S, "1s"),
        (1500 * MS, "1.5s"),
        (90 * S, "1m30s"),
        (MINUTE, "1m0s"),
        (HOUR, "1h0m0s"),
        (HOUR + MINUTE + S + MS, "1h1m1.001s"),
    ],
)
def test_durations_as_go_prints_them(ns: int, text: str) -> None:
    assert format_duration(ns) == text
    assert parse_duration(text) == ns
