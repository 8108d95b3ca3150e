"""The lines of a `json-file` log, as dockerd 28.5.2 writes them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.logwriter.lines import JsonLines, PlainLines, escape

TIME = b"2026-12-01T11:14:40.033782190+01:00"
SHOWN = "2026-12-01T10:14:40.03378219Z"


def line(content: bytes, stream: str = "stdout", tag: str = "F", time: bytes = TIME) -> bytes:
    return b"%b %b %b %b\n" % (time, stream.encode(), tag.encode(), content)


def test_a_line_is_an_object_with_its_newline_stream_and_time() -> None:
    assert JsonLines().feed(line(b"hello")) == f'{{"log":"hello\\n","stream":"stdout","time":"{SHOWN}"}}\n'.encode()


def test_attributes_stand_before_the_time() -> None:
    made = JsonLines('{"tag":"web"}').feed(line(b"err", "stderr"))
    assert made == f'{{"log":"err\\n","stream":"stderr","attrs":{{"tag":"web"}},"time":"{SHOWN}"}}\n'.encode()


@pytest.mark.parametrize(
    ("said", "escaped"),
    [
        (b'a\tb\x1b[1m<>&"\\ \xc3\xa9', '\\u0009b\\u001b[1m\\u003c\\u003e\\u0026\\"\\\\ é'.join(["a", ""])),
        (b"\xff\xe2\x82 x", "\\ufffd\\ufffd\\ufffd x"),
        (b"\r\x00\x7f", "\\r\\u0000\x7f"),
        ("\u2028\u2029\ufffd".encode(), "\\u2028\\u2029\ufffd"),
    ],
)
def test_what_is_no_plain_text_is_escaped_as_go_does(said: bytes, escaped: str) -> None:
    assert escape(said).decode() == escaped


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        (b"2026-12-01T00:30:00.000000000+01:00", "2026-11-30T23:30:00Z"),
        (b"2026-12-01T00:30:00.120000000-00:30", "2026-12-01T01:00:00.12Z"),
        (b"2026-12-01T00:30:00.000000001Z", "2026-12-01T00:30:00.000000001Z"),
    ],
)
def test_times_are_of_utc_without_zeros_at_their_end(time: bytes, shown: str) -> None:
    assert json.loads(JsonLines().feed(line(b"x", time=time)))["time"] == shown


PIECES = st.lists(
    st.tuples(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"x" * 16384, b"y" * 20000])),
        st.sampled_from(["stdout", "stderr"]),
        st.sampled_from("FFFP"),
        st.sampled_from([TIME, b"2026-12-01T11:14:40.033782191+01:00"]),
    ),
    max_size=40,
)


def told(lines: bytes) -> dict[str, str]:
    """What each stream said, as the records tell it."""
    said = {"stdout": "", "stderr": ""}
    for record in map(json.loads, lines.splitlines()):
        assert len(record["log"]) <= 16384
        said[record["stream"]] += record["log"]
    return said


@given(PIECES, st.integers(0, 40))
def test_every_byte_is_told_in_order_however_it_comes(pieces: list[tuple[bytes, str, str, bytes]], cut: int) -> None:
    pieces = [(content.replace(b"\n", b"."), *rest) for content, *rest in pieces]  # type: ignore[misc]
    written = [line(*piece) for piece in pieces]
    at_once, in_two = JsonLines(), JsonLines()
    made = at_once.feed(b"".join(written))
    assert made == in_two.feed(b"".join(written[:cut])) + in_two.feed(b"".join(written[cut:]))
    said = told(made + at_once.finish())
    for stream in said:
        expected = b"".join(
            content + (b"\n" if tag == "F" else b"") for content, own, tag, _ in pieces if own == stream
        )
        if expected.isascii():
            assert said[stream].encode() == expected


def test_long_lines_are_cut_at_16384_bytes_and_share_the_time_of_the_first() -> None:
    lines = JsonLines()
    made = lines.feed(line(b"x" * 8192, tag="P") + line(b"x" * 8192, tag="P", time=TIME.replace(b".03", b".04")))
    assert (json.loads(made)["log"], json.loads(made)["time"]) == ("x" * 16384, SHOWN)
    last = json.loads(lines.feed(line(b"", time=TIME.replace(b".03", b".05"))))
    assert (last["log"], last["time"]) == ("\n", SHOWN)


def test_an_unfinished_line_is_a_record_without_a_newline() -> None:
    lines = JsonLines()
    assert lines.feed(line(b"end", tag="P")) == b""
    assert json.loads(lines.finish())["log"] == "end"
    assert lines.finish() == b""


def test_the_next_writer_goes_on_with_what_is_unfinished() -> None:
    first, second = JsonLines(), JsonLines()
    first.feed(line(b"be\xffgun", tag="P"))
    second.resume(json.loads(json.dumps(first.held())))
    assert json.loads(second.feed(line(b" done")))["log"] == "be�gun done\n"


def test_damaged_lines_are_passed_over() -> None:
    made = JsonLines().feed(b"nonsense\n" + line(b"a") + b"2026 stdout F\n" + line(b"b"))
    assert [json.loads(one)["log"] for one in made.splitlines()] == ["a\n", "b\n"]


def test_the_local_driver_keeps_every_byte() -> None:
    written = line(b"\xff\x00") + line(b"x", tag="P")
    assert PlainLines().feed(written) == written
    assert PlainLines().finish() == b""
