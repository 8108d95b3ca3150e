"""A container's log as Docker tells it: records, tail, bounds in time, following, rotation."""

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bennu.engine.logs import files as log_files
from bennu.engine.logs import reader as logs
from bennu.engine.logs.files import mark_end_of_run
from bennu.engine.logs.reader import LogQuery, check_readable, read_logs
from bennu.engine.logs.records import RECORD_BYTES, Assembler, LogRecord
from bennu.errors import NotImplementedHere
from bennu.logwriter.lines import JsonLines
from bennu.logwriter.rotated_file import Bounds, RotatedFile, compress

SECOND_NS = 10**9
START_NS = 1_790_000_000 * SECOND_NS  # 2026-09-21T14:13:20Z


def stamp(at: int) -> str:
    minutes, seconds = divmod(20 + at, 60)
    return f"2026-09-21T14:{13 + minutes:02d}:{seconds:02d}.000000000+00:00"


def line(content: str | bytes, stream: str = "stdout", tag: str = "F", at: int = 0) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return f"{stamp(at)} {stream} {tag} ".encode() + content + b"\n"


def ended(yes: bool = True) -> asyncio.Event:
    event = asyncio.Event()
    if yes:
        event.set()
    return event


async def read(path: Path, query: LogQuery | None = None, *, running: bool = False) -> list[LogRecord]:
    found: list[LogRecord] = []
    async for batch in read_logs(path, query or LogQuery(), ended=ended(not running)):
        found += batch
    return found


async def texts(path: Path, query: LogQuery | None = None, *, running: bool = False) -> list[str]:
    return [record.data.decode() for record in await read(path, query, running=running)]


# --- records ----------------------------------------------------------------------------------------------------


def assemble(*lines: bytes, over: bool = True) -> list[LogRecord]:
    assembler = Assembler()
    records = list(assembler.feed(b"".join(lines)))
    return records + (list(assembler.finish()) if over else [])


def test_a_line_is_a_record_with_its_newline_stream_and_time() -> None:
    assert assemble(line("hello", "stderr", at=3)) == [LogRecord(START_NS + 3 * SECOND_NS, "stderr", b"hello\n")]


def test_times_are_read_with_their_zone_and_nine_digits() -> None:
    [record] = assemble(b"2026-09-21T16:13:20.123456789+02:00 stdout F x\n")
    assert record.at_ns == START_NS + 123456789


def test_pieces_of_a_line_become_one_record_with_the_time_of_the_first() -> None:
    records = assemble(line("he", tag="P", at=1), line("other", "stderr", at=2), line("llo", at=3))
    assert records == [
        LogRecord(START_NS + 2 * SECOND_NS, "stderr", b"other\n"),
        LogRecord(START_NS + SECOND_NS, "stdout", b"hello\n"),
    ]


@pytest.mark.parametrize(
    ("length", "sizes"),
    [
        pytest.param(16383, [16384], id="just fits"),
        pytest.param(16384, [16384, 1], id="newline alone"),
        pytest.param(16385, [16384, 2], id="one over"),
        pytest.param(40000, [16384, 16384, 7233], id="three pieces"),
    ],
)
def test_long_lines_are_cut_at_16384_and_share_one_time(length: int, sizes: list[int]) -> None:
    whole = b"x" * length
    pieces = [whole[start : start + 8192] for start in range(0, length, 8192)]
    lines = [line(piece, tag="P", at=number) for number, piece in enumerate(pieces[:-1])] + [line(pieces[-1], at=9)]
    records = assemble(*lines)
    assert [len(record.data) for record in records] == sizes
    assert {record.at_ns for record in records} == {START_NS if len(pieces) > 1 else START_NS + 9 * SECOND_NS}
    assert b"".join(record.data for record in records) == whole + b"\n"


def test_an_unfinished_last_line_is_a_record_without_a_newline_once_the_run_is_over() -> None:
    assert assemble(line("prompt> ", tag="P"), over=False) == []
    assert [record.data for record in assemble(line("prompt> ", tag="P"))] == [b"prompt> "]


def test_a_line_left_unfinished_by_one_run_is_not_continued_by_the_next() -> None:
    records = assemble(line("one", tag="P"), line("", tag="E"), line("two"))
    assert [record.data for record in records] == [b"one", b"two\n"]


def test_damaged_lines_are_passed_over() -> None:
    records = assemble(line("a"), b"\0\0\0 garbage\n", b"2026-13-45T99:99:99.000000000+00:00 stdout F odd\n", line("b"))
    assert [record.data for record in records][:1] + [record.data for record in records][-1:] == [b"a\n", b"b\n"]


def test_empty_lines_and_carriage_returns_are_kept() -> None:
    assert [record.data for record in assemble(line(""), line("tty\r"))] == [b"\n", b"tty\r\n"]


# --- reading ----------------------------------------------------------------------------------------------------


async def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    assert await texts(tmp_path / "log") == []


async def test_streams_are_selected(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("out") + line("err", "stderr"))
    assert await texts(log, LogQuery(stdout=False)) == ["err\n"]
    assert await texts(log, LogQuery(stderr=False)) == ["out\n"]


async def test_since_and_until_are_inclusive(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(line(str(at), at=at) for at in range(6)))
    query = LogQuery(since_ns=START_NS + 2 * SECOND_NS, until_ns=START_NS + 4 * SECOND_NS)
    assert await texts(log, query) == ["2\n", "3\n", "4\n"]


async def test_tail_counts_both_streams_before_one_is_selected(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("err", "stderr") + b"".join(line(str(number)) for number in range(3)))
    assert await texts(log, LogQuery(tail=3, stdout=False)) == []
    assert await texts(log, LogQuery(tail=4, stdout=False)) == ["err\n"]


async def test_tail_zero_is_nothing_and_more_than_there_is_is_everything(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("a") + line("b", tag="P"))
    assert await texts(log, LogQuery(tail=0)) == []
    assert await texts(log, LogQuery(tail=99)) == ["a\n", "b"]
    assert await texts(log, LogQuery(tail=1)) == ["b"]


async def test_what_a_running_container_has_not_finished_is_withheld(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("a") + line("b", tag="P"))
    assert await texts(log, running=True) == ["a\n"]
    assert await texts(log, LogQuery(tail=1), running=True) == ["a\n"]


async def test_a_line_being_written_is_not_torn(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("a") + line("half")[:-3])
    assert await texts(log, running=True) == ["a\n"]
    assert await texts(log, LogQuery(tail=1)) == ["a\n"]


class ReadBytes:
    """Counts what is read from descriptors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        pread = os.pread

        def counting(descriptor: int, size: int, offset: int) -> bytes:
            data = pread(descriptor, size, offset)
            self.count += len(data)
            return data

        monkeypatch.setattr(os, "pread", counting)


async def test_tail_of_a_big_log_reads_only_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(line(f"{number:07d}") for number in range(200_000)))
    counted = ReadBytes(monkeypatch)
    assert await texts(log, LogQuery(tail=3)) == ["0199997\n", "0199998\n", "0199999\n"]
    assert counted.count < 4 * log_files.BLOCK < log.stat().st_size


CONTENT = st.sampled_from([b"", b"x", b"word", b"y" * 16384, b"z" * 20000])
LOG_LINES = st.lists(st.tuples(CONTENT, st.sampled_from(["stdout", "stderr"]), st.sampled_from("FFFPE")), max_size=30)


@contextlib.contextmanager
def small_blocks(size: int) -> Iterator[None]:
    before = log_files.BLOCK
    log_files.BLOCK = logs.BLOCK = size  # type: ignore[misc, attr-defined]
    try:
        yield
    finally:
        log_files.BLOCK = logs.BLOCK = before  # type: ignore[misc, attr-defined]


@settings(max_examples=150, deadline=None)
@given(
    lines=LOG_LINES, cuts=st.lists(st.integers(0, 30), max_size=2), tail=st.integers(0, 12), block=st.integers(60, 300)
)
async def test_tail_is_the_end_of_everything(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[tuple[bytes, str, str]],
    cuts: list[int],
    tail: int,
    block: int,
) -> None:
    log = tmp_path_factory.mktemp("log") / "log"
    written = [line(b"" if tag == "E" else content, stream, tag) for content, stream, tag in lines]
    bounds = [0, *sorted(min(cut, len(written)) for cut in cuts), len(written)]
    files = [b"".join(written[begin:end]) for begin, end in itertools.pairwise(bounds)]
    for number, data in enumerate(reversed(files)):
        (log.with_name(f"log.{number}") if number else log).write_bytes(data)
    everything = assemble(*written)
    assert await read(log) == everything
    with small_blocks(block):
        found = await read(log, LogQuery(tail=tail))
    assert found == (everything[-tail:] if tail else []) or has_overtaken(lines)


def has_overtaken(lines: list[tuple[bytes, str, str]]) -> bool:
    """Whether a line that was never finished was followed by whole ones of the other stream: it comes after them when
    the run is over, but its beginning is not looked for among all that was written before."""
    last: dict[str, tuple[int, str]] = {}
    whole = -1
    for number, (_, stream, tag) in enumerate([*lines, (b"", "stdout", "E")]):
        if tag == "E":
            if any(tag == "P" and begun < whole for begun, tag in last.values()):
                return True
            last, whole = {}, -1
        else:
            last[stream] = (number, tag)
            whole = number if tag == "F" else whole
    return False


async def test_a_line_that_others_overtook_is_shown_whole_or_not_at_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("he", tag="P") + line("a", "stderr") + line("llo", tag="P") + line("b", "stderr"))
    for tail in range(1, 5):
        found = await texts(log, LogQuery(tail=tail))
        assert found == ["a\n", "b\n", "hello"][-tail:]


UNITS = st.sampled_from(["F", "PF", "PXF", "PPF"])  # how a line is put together; X: the other stream comes between


@settings(max_examples=100, deadline=None)
@given(
    units=st.lists(st.tuples(UNITS, st.integers(0, 2)), max_size=40),
    since=st.integers(0, 50),
    block=st.integers(400, 900),
)
async def test_since_is_all_that_is_not_older(
    tmp_path_factory: pytest.TempPathFactory, units: list[tuple[str, int]], since: int, block: int
) -> None:
    log = tmp_path_factory.mktemp("log") / "log"
    written, at = [], 0
    for unit, pause in units:
        for tag in unit:
            written.append(line("word", "stderr" if tag == "X" else "stdout", "F" if tag == "X" else tag, at))
            at += pause
    log.write_bytes(b"".join(written))
    since_ns = START_NS + since * SECOND_NS
    with small_blocks(block):
        assert await read(log, LogQuery(since_ns=since_ns)) == [
            record for record in assemble(*written) if record.at_ns >= since_ns
        ]


# --- following --------------------------------------------------------------------------------------------------


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


class Follower:
    """Reads in the background and keeps what it got."""

    def __init__(self, path: Path, query: LogQuery, end: asyncio.Event) -> None:
        self.got: list[str] = []
        self.arrived = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(path, query, end))

    async def _run(self, path: Path, query: LogQuery, end: asyncio.Event) -> None:
        async for batch in read_logs(path, query, ended=end):
            self.got += [record.data.decode() for record in batch]
            self.arrived.set()

    async def wait_for(self, *expected: str) -> None:
        async with asyncio.timeout(10):
            while self.got != list(expected):
                await self.arrived.wait()
                self.arrived.clear()


async def test_a_follower_sees_what_comes_and_ends_with_the_container_after_draining(tmp_path: Path) -> None:
    log, end = tmp_path / "log", ended(False)
    log.write_bytes(line("before"))
    follower = Follower(log, LogQuery(follow=True), end)
    await follower.wait_for("before\n")
    append(log, line("one") + line("unfini", tag="P"))
    await follower.wait_for("before\n", "one\n")
    append(log, line("shed") + line("last", tag="P"))
    end.set()
    end.clear()  # restarted at once: this follower's run is over all the same
    async with asyncio.timeout(10):
        await follower.task
    assert follower.got == ["before\n", "one\n", "unfinished\n", "last"]


async def test_following_a_container_that_is_not_running_ends_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("a"))
    async with asyncio.timeout(10):
        assert await texts(log, LogQuery(follow=True)) == ["a\n"]


async def test_a_follower_may_come_before_the_log(tmp_path: Path) -> None:
    log, end = tmp_path / "log", ended(False)
    follower = Follower(log, LogQuery(follow=True), end)
    await asyncio.sleep(0.02)
    append(log, line("first"))
    await follower.wait_for("first\n")
    end.set()
    await follower.task


async def test_following_from_tail_zero_shows_only_what_is_new_but_whole_lines(tmp_path: Path) -> None:
    log, end = tmp_path / "log", ended(False)
    log.write_bytes(line("old") + line("ha", tag="P"))
    follower = Follower(log, LogQuery(follow=True, tail=0), end)
    await asyncio.sleep(0.05)
    append(log, line("lf"))
    await follower.wait_for("half\n")
    end.set()
    await follower.task


async def test_following_ends_at_until(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("a"))
    async with asyncio.timeout(10):
        query = LogQuery(follow=True, until_ns=time.time_ns() + SECOND_NS // 5)
        assert await texts(log, query, running=True) == ["a\n"]


async def test_a_follower_goes_on_over_rotations(tmp_path: Path) -> None:
    log, end = tmp_path / "log", ended(False)
    log.write_bytes(line("1"))
    follower = Follower(log, LogQuery(follow=True), end)
    await follower.wait_for("1\n")
    log.rename(tmp_path / "log.1")
    append(tmp_path / "log.1", line("2"))  # there is no new file yet
    await follower.wait_for("1\n", "2\n")
    append(tmp_path / "log.1", line("3"))
    log.write_bytes(line("4"))
    await follower.wait_for("1\n", "2\n", "3\n", "4\n")
    (tmp_path / "log.1").rename(tmp_path / "log.2")
    log.rename(tmp_path / "log.1")
    log.write_bytes(line("5"))
    await follower.wait_for("1\n", "2\n", "3\n", "4\n", "5\n")
    end.set()
    await follower.task


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_readers_give_their_descriptors_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(line(str(number)) for number in range(50_000)))
    before = open_descriptors()
    for _ in range(5):
        async with contextlib.aclosing(read_logs(log, LogQuery(follow=True), ended=ended(False))) as reader:
            await anext(reader)
        follower = Follower(log, LogQuery(follow=True), ended(False))
        await asyncio.sleep(0.01)
        follower.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower.task
    assert open_descriptors() <= before + 1


# --- rotation and compression -------------------------------------------------------------------------------------


def json_line(content: str, at: int = 0, attrs: str = "") -> bytes:
    return JsonLines(attrs).feed(line(content, at=at))


async def test_a_file_of_dockers_lines_may_follow_an_earlier_versions(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line("old", at=1) + line("left", tag="P", at=2))
    mark_end_of_run(log, START_NS)
    append(log, json_line("new", at=3, attrs='{"a":"1"}') + json_line("last", at=4) + b'{"log":"torn')
    assert await texts(log) == ["old\n", "left", "new\n", "last\n"]
    assert await texts(log, LogQuery(tail=3)) == ["left", "new\n", "last\n"]
    assert await texts(log, LogQuery(since_ns=START_NS + 4 * SECOND_NS)) == ["last\n"]
    assert [dict(record.attrs) for record in await read(log)] == [{}, {}, {"a": "1"}, {}]


async def test_compressed_files_are_read_and_only_those_that_are_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number in range(4):
        rotated = tmp_path / "log.1"
        if number:
            for older in range(number - 1, 0, -1):
                (tmp_path / f"log.{older}.gz").rename(tmp_path / f"log.{older + 1}.gz")
            log.rename(rotated)
            compress(rotated, threading.Event())
        log.write_bytes(json_line(f"{number} a") + json_line(f"{number} b"))
    everything = [f"{number} {letter}\n" for number in range(4) for letter in "ab"]
    assert await texts(log) == everything
    assert await texts(log, LogQuery(tail=5)) == everything[-5:]
    (tmp_path / "log.3.gz").write_bytes(b"damaged")
    assert await texts(log, LogQuery(tail=3)) == everything[-3:]
    assert await texts(log) == everything[2:]


async def test_a_follower_goes_on_over_the_compression_of_what_it_reads(tmp_path: Path) -> None:
    log, end = tmp_path / "log", ended(False)
    log.write_bytes(json_line("1"))
    follower = Follower(log, LogQuery(follow=True), end)
    await follower.wait_for("1\n")
    log.rename(tmp_path / "log.1")
    compress(tmp_path / "log.1", threading.Event())
    log.write_bytes(json_line("2"))
    await follower.wait_for("1\n", "2\n")
    end.set()
    await follower.task


async def test_a_reader_sees_every_file_while_they_are_rotated(tmp_path: Path) -> None:
    log, over = tmp_path / "log", threading.Event()

    def keep_rotating() -> None:
        file, number = RotatedFile(log, Bounds(1000, 10), lambda: None), 0
        while not over.is_set():
            file.write(json_line(str(number)))
            number += 1
            if number % 15 == 0:
                time.sleep(0.001)  # some 800 files a second
        file.close()

    writing = threading.Thread(target=keep_rotating)
    writing.start()
    try:
        for _ in range(30):
            await asyncio.sleep(0.001)
            numbers = [int(text) for text in await texts(log, running=True)]
            assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        over.set()
        writing.join()


# --- the end of a run -------------------------------------------------------------------------------------------


async def test_the_end_of_a_run_is_marked_only_where_a_line_is_unfinished(tmp_path: Path) -> None:
    log = tmp_path / "log"
    mark_end_of_run(log, START_NS)
    assert not log.exists()
    log.write_bytes(line("a"))
    mark_end_of_run(log, START_NS)
    assert log.read_bytes() == line("a")
    append(log, line("b", tag="P"))
    mark_end_of_run(log, START_NS)
    append(log, line("c"))
    assert await texts(log) == ["a\n", "b", "c\n"]
    append(log, line("torn")[:-2])
    mark_end_of_run(log, START_NS)
    append(log, line("d"))
    assert (await texts(log))[-1] == "d\n"


def test_a_driver_that_keeps_nothing_cannot_be_read() -> None:
    check_readable("json-file")
    with pytest.raises(NotImplementedHere, match="configured logging driver does not support reading"):
        check_readable("none")


def test_records_of_docker_are_16384_bytes() -> None:
    assert RECORD_BYTES == 16384
