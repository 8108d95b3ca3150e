"""Small readers: query values, filters, moments, detach keys, list and event filters."""

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from bennu.api.http.body import decode_clean
from bennu.api.http.detach_keys import DetachKeyMatcher, parse_keys
from bennu.api.http.query import Filters, filters, flag, instant_ns, integer
from bennu.api.routes.events import event_json, matches
from bennu.api.shapes.instants import parse_moment, rfc3339
from bennu.engine.events import Actor, Event
from bennu.errors import InvalidParameter

S = 10**9


def asked(query: str):  # type: ignore[no-untyped-def]
    return make_mocked_request("GET", f"/x?{query}")


@pytest.mark.parametrize("value", ["", "0", "no", "NO", "false", "False", "none", " none "])
def test_these_words_are_false(value: str) -> None:
    assert flag(asked(f"all={value}"), "all") is False


@pytest.mark.parametrize("value", ["1", "true", "yes", "2", "off", "x"])
def test_anything_else_is_true(value: str) -> None:
    assert flag(asked(f"all={value}"), "all") is True


def test_an_absent_flag_is_its_default() -> None:
    assert flag(asked(""), "all") is False
    assert flag(asked(""), "all", default=True) is True


@pytest.mark.parametrize(("value", "number"), [("5", 5), ("-1", -1), ("%2B7", 7), ("0", 0), ("", None)])
def test_integers(value: str, number: int | None) -> None:
    assert integer(asked(f"t={value}"), "t") == number


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("abc", "invalid syntax"),
        ("1.5", "invalid syntax"),
        ("1_0", "invalid syntax"),
        ("9223372036854775808", "value out of range"),
        ("1" * 5000, "value out of range"),
    ],
)
def test_bad_integers_are_told_in_gos_words(value: str, problem: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        integer(asked(f"t={value}"), "t")
    assert str(refused.value) == f'strconv.Atoi: parsing "{value[:100]}": {problem}'


def test_instants_have_nanoseconds() -> None:
    assert instant_ns(asked("since=5"), "since") == 5 * S
    assert instant_ns(asked("since=5.000000001"), "since") == 5 * S + 1
    assert instant_ns(asked("since=5.1"), "since") == 5 * S + S // 10
    assert instant_ns(asked(""), "since") is None
    with pytest.raises(InvalidParameter, match='invalid value for "since": invalid timestamp "abc"'):
        instant_ns(asked("since=abc"), "since")


def test_filters_in_both_forms() -> None:
    assert filters(asked('filters={"a":["x","y"]}')).all("a") == ["x", "y"]
    assert filters(asked('filters={"a":{"x":true,"y":false}}')).all("a") == ["x"]
    assert filters(asked("")).all("a") == []


@pytest.mark.parametrize("value", ["{", "[]", '{"a":1}', '{"a":[1]}', "x", "[" * 5000])
def test_bad_filters_are_refused(value: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter$"):
        filters(asked(f"filters={value}"))


def test_unknown_filters_are_named() -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'bogus'$"):
        Filters({"bogus": ["1"]}).check({"label"})


def test_labels_are_a_conjunction() -> None:
    labels = {"a": "1", "b": ""}
    assert Filters({"label": ["a", "a=1", "b="]}).labels_match(labels)
    assert not Filters({"label": ["a", "c"]}).labels_match(labels)
    assert Filters({"label!": ["c", "b"]}).labels_refuse(labels)
    assert not Filters({"label!": ["a=2"]}).labels_refuse(labels)


@pytest.mark.parametrize(
    ("instant_ns", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1_700_000_000 * S, "2023-11-14T22:13:20Z"),
        (1_700_000_000 * S + 120_000_000, "2023-11-14T22:13:20.12Z"),
        (1_700_000_000 * S + 1, "2023-11-14T22:13:20.000000001Z"),
    ],
)
def test_instants_are_written_without_trailing_zeros(instant_ns: int, text: str) -> None:
    assert rfc3339(instant_ns) == text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("100", 100 * S),
        ("100.5", 100 * S + S // 2),
        ("10m", 1000 * S - 600 * S),
        ("1h30m", 1000 * S - 5400 * S),
        ("1970-01-01T00:01:00Z", 60 * S),
        ("1970-01-01T01:01:00+01:00", 60 * S),
        ("1970-01-01", 0),
    ],
)
def test_moments(text: str, moment: int) -> None:
    assert parse_moment(text, 1000 * S) == moment


@pytest.mark.parametrize("text", ["", "x", "10 minutes", "1e5", "-5m", "99999-01-01"])
def test_bad_moments_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="failed to parse value as time or duration"):
        parse_moment(text, 0)


# --- detach keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a,b", b"ab"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("DEL", b"\x7f"),
        ("ctrl-A", b"\x01"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ab", "ctrl-", "ctrl-1", "ctrl-pp", "a,,b", "é", "ctrl-p, ctrl-q"])
def test_bad_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_keys(text)
    assert str(refused.value) == f"Invalid detach keys ({text}) provided"


def type_in(keys: bytes, pieces: list[bytes]) -> tuple[bytes, bool]:
    watch = DetachKeyMatcher(keys)
    seen = b""
    for piece in pieces:
        through, left = watch.feed(piece)
        seen += through
        if left:
            return seen, True
    return seen, False


def test_the_sequence_is_found_across_pieces_and_not_passed_on() -> None:
    assert type_in(b"\x10\x11", [b"ls\n\x10", b"\x11rest"]) == (b"ls\n", True)


def test_a_partial_match_is_passed_on_when_it_fails() -> None:
    assert type_in(b"\x10\x11", [b"a\x10", b"b"]) == (b"a\x10b", False)
    assert type_in(b"aab", [b"aaab"]) == (b"a", True)


@given(st.binary(min_size=1, max_size=4), st.lists(st.binary(max_size=6), max_size=6))
def test_key_watch_agrees_with_a_search_of_the_whole_input(keys: bytes, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    seen, left = type_in(keys, pieces)
    place = whole.find(keys)
    assert left == (place >= 0)
    if left:
        assert seen == whole[:place]
    else:
        assert whole.startswith(seen)
        assert keys.startswith(whole[len(seen) :])


@given(st.lists(st.sampled_from([b"a", b"b"]), max_size=12))
def test_key_watch_with_repeating_keys(pieces: list[bytes]) -> None:
    test_key_watch_agrees_with_a_search_of_the_whole_input.hypothesis.inner_test(b"aab", pieces)  # type: ignore[attr-defined]


# --- events -----------------------------------------------------------------------------------------------------

DIED = Event(
    type="container",
    action="die",
    actor=Actor(id="abc123", attributes={"name": "web-1", "image": "busybox:1", "exitCode": "3", "tier": "front"}),
    time=5,
    time_nano=5 * S,
)


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({}, True),
        ({"type": ["container", "network"]}, True),
        ({"type": ["network"]}, False),
        ({"event": ["die"]}, True),
        ({"event": ["di"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["abc"]}, True),
        ({"container": ["eb-1"]}, False),
        ({"image": ["busybox"]}, True),
        ({"image": ["busybox:1"]}, True),
        ({"image": ["busybox:2"]}, False),
        ({"label": ["tier=front", "exitCode=3"]}, True),
        ({"label": ["tier=front", "exitCode=4"]}, False),
        ({"type": ["container"], "event": ["start"]}, False),
        ({"bogus": ["x"]}, True),
        ({"scope": ["swarm"]}, False),
    ],
)
def test_event_filters(wanted: dict[str, list[str]], shown: bool) -> None:
    assert matches(DIED, Filters(wanted)) is shown


def test_actions_with_arguments_are_matched_by_prefix_if_one_of_them_was_asked_for() -> None:
    sick = Event(type="container", action="health_status: unhealthy", actor=Actor(id="a", attributes={}))
    assert matches(sick, Filters({"event": ["health_status"]}))
    assert matches(sick, Filters({"event": ["health_status: unhealthy"]}))
    assert not matches(sick, Filters({"event": ["health"]}))


def test_container_events_carry_the_fields_old_clients_read() -> None:
    shown = event_json(DIED)
    assert list(shown) == ["status", "id", "from", "Type", "Action", "Actor", "scope", "time", "timeNano"]
    assert (shown["status"], shown["id"], shown["from"]) == ("die", "abc123", "busybox:1")
    network = Event(type="network", action="connect", actor=Actor(id="n", attributes={}))
    assert "status" not in event_json(network)


@pytest.mark.parametrize("text", [r'{"a":"\u0000"}', r'{"a":"x\\\u0000"}', r'{"\u0000":1}', r'["\n\u0000"]'])
def test_a_nul_character_is_refused_in_values_and_keys(text: str) -> None:
    with pytest.raises(InvalidParameter, match="NUL character"):
        decode_clean(text.encode(), dict[str, object] if text.startswith("{") else list[object])


@pytest.mark.parametrize("text", [r'["\\u0000"]', r'["\\\\u0000"]', r'["u0000"]'])
def test_what_only_looks_like_a_nul_character_is_let_through(text: str) -> None:
    assert decode_clean(text.encode(), list[str])
