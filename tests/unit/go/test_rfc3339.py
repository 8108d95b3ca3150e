"""Instants, read and written as Go's `time.RFC3339Nano`."""

import datetime
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.go.rfc3339 import ZERO_TIME_NS, format_rfc3339, format_rfc3339_padded, parse_rfc3339

LAST_NS = 253402300800 * 10**9 - 1  # of the year 9999


@pytest.mark.parametrize("text", ["2024-02-29T23:59:59.123456789Z", "1969-12-31T23:59:59.5Z", "0001-01-01T00:00:00Z"])
def test_an_instant_survives_a_round_trip(text: str) -> None:
    instant_ns = parse_rfc3339(text)
    assert instant_ns is not None and format_rfc3339(instant_ns) == text


@given(st.integers(ZERO_TIME_NS, LAST_NS))
def test_what_is_written_is_read_as_the_same_instant(instant_ns: int) -> None:
    assert parse_rfc3339(format_rfc3339(instant_ns)) == instant_ns
    assert parse_rfc3339(format_rfc3339_padded(instant_ns)) == instant_ns


@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_the_standard_library_reads_the_same(moment: datetime.datetime) -> None:
    instant_ns = parse_rfc3339(moment.isoformat())
    assert instant_ns is not None
    assert datetime.datetime.fromisoformat(format_rfc3339_padded(instant_ns)[:26] + "+00:00") == moment


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2024-02-30T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00Z\n"],
)
def test_what_is_no_instant(text: str) -> None:
    assert parse_rfc3339(text) is None


def test_digits_behind_the_ninth_are_cut_off() -> None:
    assert parse_rfc3339("1970-01-01T00:00:00.0000000019Z") == 1


@given(st.integers(253402300800, 2**40))
def test_years_of_five_digits_are_written_as_the_c_library_does(seconds: int) -> None:
    assert format_rfc3339(seconds * 10**9) == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
