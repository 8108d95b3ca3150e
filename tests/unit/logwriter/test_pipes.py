"""How a run's lines are read: at the pace of the log, or at once and with losses."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bennu.logwriter.pipes import Pipe, Ring
from bennu.logwriter.run import LogRun
from bennu.logwriter.words import Job


@pytest.fixture
def ends() -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    return reading, writing


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_whole_lines_are_read_and_the_rest_waits(ends: tuple[int, int]) -> None:
    pipe = Pipe(ends[0])
    assert (pipe.read(), pipe.ended) == (b"", False)
    os.write(ends[1], b"a\nb")
    assert (pipe.read(), pipe.torn) == (b"a\n", b"b")
    os.write(ends[1], b"c\n")
    os.close(ends[1])
    assert (pipe.read(), pipe.ended) == (b"bc\n", False)
    assert (pipe.read(), pipe.ended) == (b"", True)
    pipe.close()


def test_a_container_waits_for_its_log_where_the_host_gives_no_thread(
    ends: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    complaints: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    job = Job("a" * 64, str(tmp_path / "log"), json=False, ring=1000)
    run = LogRun(job, ends[0], None, compressed=lambda: None, complain=complaints.append)
    os.write(ends[1], b"a\n")
    run.take_turn()
    run.finish()
    assert (tmp_path / "log").read_bytes() == b"a\n"
    assert complaints == ["container aaaaaaaaaaaa waits for its log, though it was not to: can't start new thread"]


def test_a_ring_takes_what_comes_and_drops_what_does_not_fit(ends: tuple[int, int]) -> None:
    ring = Ring(ends[0], 100)
    for number in range(1000):
        os.write(ends[1], b"%04d\n" % number * 100)  # far more than pipe and ring can hold: the writer never waits
    os.close(ends[1])
    kept = b"".join(ring.drain())
    ring.close()
    lines = kept.splitlines()
    assert lines[0] == b"0000" and len(kept) <= 100 + 65536
    assert lines == sorted(lines)


def test_a_ring_wakes_its_reader_and_tells_the_end(ends: tuple[int, int]) -> None:
    ring = Ring(ends[0], 100)
    os.write(ends[1], b"a\n")
    wait_until(lambda: ring.read() == b"a\n")
    os.close(ends[1])
    wait_until(lambda: ring.read() == b"" and ring.ended)
    ring.close()
