"""Detach keys, frames and tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.cli.command import Words, command, several, switch, text
from bennu.cli.commands.list_containers import format_ports
from bennu.cli.failure import Failure, UsageFailure
from bennu.cli.output import align, ellipsis, go_quote, human_size
from bennu.cli.session import Frames
from bennu.cli.terminal import DetachFilter, parse_detach_keys


@pytest.mark.parametrize(
    ("keys", "expected"),
    [(None, b"\x10\x11"), ("a,b", b"ab"), ("ctrl-a", b"\x01"), ("ctrl-@,DEL", b"\x00\x7f"), ("ctrl-[", b"\x1b")],
)
def test_detach_keys_are_read(keys: str | None, expected: bytes) -> None:
    assert parse_detach_keys(keys) == expected


@pytest.mark.parametrize("keys", ["ctrl-", "ctrl-aa", "ab", "a,,b", "ctrl-1"])
def test_bad_detach_keys_are_refused(keys: str) -> None:
    with pytest.raises(Failure, match="invalid detach keys"):
        parse_detach_keys(keys)


def test_what_is_typed_before_the_detach_keys_passes_and_nothing_after_them() -> None:
    assert DetachFilter(b"\x10\x11").feed(b"ab\x10\x11cd") == (b"ab", True)


def test_a_broken_match_is_passed_on_whole() -> None:
    keys = DetachFilter(b"\x10\x11")
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"x") == (b"\x10x", False)
    assert keys.feed(b"\x10\x10") == (b"\x10", False)
    assert keys.feed(b"\x11") == (b"", True)


@given(st.binary(max_size=40), st.integers(1, 7))
def test_without_the_detach_keys_everything_typed_arrives(typed: bytes, size: int) -> None:
    keys = DetachFilter(b"\x10\x11")
    passed = b""
    for start in range(0, len(typed), size):
        part, complete = keys.feed(typed[start : start + size])
        passed += part
        if complete:
            assert typed[: typed.index(b"\x10\x11")] == passed
            return
    assert b"\x10\x11" not in typed
    assert passed + keys.keys[: keys.matched] == typed


def test_frames_split_anywhere_come_out_on_their_streams(
    capfd: pytest.CaptureFixture[str],
) -> None:
    stream = b"".join(
        bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data
        for kind, data in [(1, b"out "), (2, b"err "), (1, b""), (1, b"more\n"), (2, b"again\n")]
    )
    for size in (1, 3, len(stream)):
        frames = Frames()
        for start in range(0, len(stream), size):
            frames.feed(stream[start : start + size])
        assert capfd.readouterr() == ("out more\n", "err again\n")


def test_a_table_has_three_spaces_and_ten_columns_at_least() -> None:
    assert align([["ID", "A LONG HEADING", "LAST"], ["1", "x", ""]]) == (
        "ID        A LONG HEADING   LAST\n1         x                "
    )


def test_sizes_are_decimal() -> None:
    assert [human_size(size, 3) for size in (0, 999, 1983456, 10**9)] == ["0B", "999B", "1.98MB", "1GB"]


def test_a_command_is_cut_and_quoted_as_go_does() -> None:
    assert go_quote(ellipsis("sh -c 'echo \"hello\" again'", 20)) == '"sh -c \'echo \\"hello\\"…"'
    assert go_quote("a\n\x01é") == '"a\\n\\x01é"'


PORTS = [
    ("published", [("0.0.0.0", 80, 8080), ("::", 80, 8080)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
    ("exposed", [("", 90, 0), ("", 91, 0), ("", 93, 0)], "90-91/tcp, 93/tcp"),
    ("same numbers", [("0.0.0.0", 80, 80), ("0.0.0.0", 81, 81)], "0.0.0.0:80-81->80-81/tcp"),
    ("mixed", [("", 9, 0), ("127.0.0.1", 7, 7), ("0.0.0.0", 8, 1)], "127.0.0.1:7->7/tcp, 9/tcp, 0.0.0.0:1->8/tcp"),
    ("none", [], ""),
]


@pytest.mark.parametrize(("ports", "expected"), [row[1:] for row in PORTS], ids=[row[0] for row in PORTS])
def test_ports_are_shown_as_docker_shows_them(ports: list[tuple[str, int, int]], expected: str) -> None:
    items = []
    for address, private, public in ports:
        item = {"PrivatePort": private, "Type": "tcp"}
        items.append({**item, "IP": address, "PublicPort": public} if address else item)
    assert format_ports(items) == expected


@command(
    "IMAGE [ARG...]",
    switch("-t, --tty", ""),
    switch("--proxy", "", default=True),
    several("-e, --env", ""),
    text("-n, --name", ""),
    interspersed=False,
)
def example() -> None:
    """A command line to read."""


WORDS = [
    ("image -t x", {}, ["image", "-t", "x"]),
    ("-t image", {"tty": True}, ["image"]),
    ("--tty=false image", {"tty": False}, ["image"]),
    ("--proxy=false image", {"proxy": False}, ["image"]),
    ("-te A=1 image", {"tty": True, "env": ["A=1"]}, ["image"]),
    ("-eA=1 -e=B=2 --env C=3 --env=D=4 image", {"env": ["A=1", "B=2", "C=3", "D=4"]}, ["image"]),
    ("-n --tty image", {"name": "--tty"}, ["image"]),
    ("-- -t image", {}, ["-t", "image"]),
    ("-n a -n b image", {"name": "b"}, ["image"]),
    ("- x", {}, ["-", "x"]),
]


@pytest.mark.parametrize(("line", "values", "positional"), WORDS, ids=[row[0] for row in WORDS])
def test_words_are_read_as_docker_reads_them(line: str, values: dict[str, object], positional: list[str]) -> None:
    words = Words(example, line.split())
    words.read()
    assert words.positional == positional
    assert words.values == {"tty": False, "proxy": True, "env": [], "name": None, **values}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--nosuch image", "unknown flag: --nosuch"),
        ("-tz image", "unknown shorthand flag: 'z' in -tz"),
        ("--name", "flag needs an argument: --name"),
        ("-n", "flag needs an argument: 'n' in -n"),
        ("--tty=maybe", 'invalid argument "maybe" for "-t, --tty" flag: strconv.ParseBool'),
    ],
)
def test_words_that_make_no_sense_are_refused(line: str, complaint: str) -> None:
    with pytest.raises(UsageFailure) as caught:
        Words(example, line.split()).read()
    assert complaint in str(caught.value)
