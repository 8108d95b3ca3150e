"""The files that a log is written to: their bounds, names and compression."""

import gzip
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bennu.logwriter.rotated_file import Bounds, RotatedFile, compress, read_inode


def open_log(folder: Path, *bounds: int, compress: bool = False) -> RotatedFile:
    return RotatedFile(folder / "log", Bounds(*bounds, compress=compress), lambda: None)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=10), st.integers(1, 100), st.integers(1, 5))
def test_a_file_is_rotated_before_the_line_that_follows_its_bound(
    tmp_path_factory: "object", batches: list[list[int]], bound: int, kept: int
) -> None:
    folder = tmp_path_factory.mktemp("log")  # type: ignore[attr-defined]
    log, expected = open_log(folder, bound, kept), [b""]
    for batch in batches:
        lines = [b"x" * length + b"\n" for length in batch]
        assert log.write(b"".join(lines)) == b""
        for one in lines:
            if len(expected[-1]) >= bound:
                expected.append(b"")
            expected[-1] += one
    log.close()
    names = ["log", *(f"log.{number}" for number in range(1, kept))]
    assert files(folder) == dict(zip(names, expected[::-1], strict=False)) if any(batches) else not files(folder)


def test_without_a_bound_there_is_one_file(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for _ in range(100):
        log.write(b"x" * 100 + b"\n")
    log.close()
    assert [len(data) for data in files(tmp_path).values()] == [10100]


@pytest.mark.timeout(10)
def test_a_log_that_cannot_be_rotated_grows_and_has_each_line_once(tmp_path: Path) -> None:
    (tmp_path / "log.1" / "in the way").mkdir(parents=True)
    log, lines = open_log(tmp_path, 25, 2), b"".join(b"line %04d\n" % number for number in range(20))
    assert log.write(lines) == b""
    log.close()
    assert (tmp_path / "log").read_bytes() == lines


def test_without_a_thread_to_compress_it_an_older_file_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    log = open_log(tmp_path, 5, 3, compress=True)
    assert log.write(b"a.....\nb.....\nc.....\n") == b""
    log.close()
    assert files(tmp_path) == {"log.2": b"a.....\n", "log.1": b"b.....\n", "log": b"c.....\n"}


def test_lines_go_on_after_one_that_was_cut_short(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"log":"to')
    log = open_log(tmp_path, 1000)
    log.write(b"next\n")
    log.close()
    assert files(tmp_path) == {"log": b'{"log":"to\nnext\n'}


def test_older_files_are_compressed_and_the_next_rotation_waits_for_that(tmp_path: Path) -> None:
    log = open_log(tmp_path, 10, 3, compress=True)
    rest = b"".join(b"line %d...\n" % number for number in range(6))
    while rest:
        rest = log.write(rest)
        log.wait()
    log.close()
    assert sorted(files(tmp_path)) == ["log", "log.1.gz", "log.2.gz"]
    texts = [gzip.decompress(files(tmp_path)[name]) for name in ("log.2.gz", "log.1.gz")]
    assert b"".join(texts) + files(tmp_path)["log"] == b"line 3...\nline 4...\nline 5...\n"


def test_a_compression_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_bytes(b"whole\n")
    (tmp_path / "log.1.gz.tmp").write_bytes(b"half")
    over = threading.Event()
    RotatedFile(tmp_path / "log", Bounds(10, 3, True), over.set).wait()
    assert over.wait(5)
    assert gzip.decompress((tmp_path / "log.1.gz").read_bytes()) == b"whole\n"
    assert sorted(files(tmp_path)) == ["log.1.gz"]


def test_a_long_compression_is_given_up_at_the_end_and_done_by_the_next_run(tmp_path: Path) -> None:
    lines = random.Random(1).randbytes(40 << 20).replace(b"\n", b"") + b"\n"
    (tmp_path / "log.1").write_bytes(lines)
    log = open_log(tmp_path, 10, 3, compress=True)
    assert log.is_busy
    log.close()
    assert (log.is_busy, [path.name for path in tmp_path.iterdir()]) == (False, ["log.1"])
    over = threading.Event()
    log = RotatedFile(tmp_path / "log", Bounds(10, 3, compress=True), over.set)
    assert over.wait(60)
    log.close()
    assert gzip.decompress((tmp_path / "log.1.gz").read_bytes()) == lines


def test_a_compressed_file_tells_which_one_it_was(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_bytes(b"x\n")
    inode = (tmp_path / "log.1").stat().st_ino
    compress(tmp_path / "log.1", threading.Event())
    assert read_inode((tmp_path / "log.1.gz").read_bytes()) == inode
    assert read_inode(gzip.compress(b"of another program")) == 0
    assert read_inode(b"") == 0


def test_a_folder_that_is_not_there_yet_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    log = RotatedFile(tmp_path / "later/log", Bounds(), lambda: None)
    for _ in range(2):
        try:
            log.write(b"lost\n")
        except OSError:
            (tmp_path / "later").mkdir(exist_ok=True)
    log.close()
    assert (tmp_path / "later/log").read_bytes() == b"lost\n"
