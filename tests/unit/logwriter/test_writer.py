"""The writer's process: what it writes, how it is replaced, and when it ends."""

import asyncio
import contextlib
import gzip
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.kernel.pidfd import wait_gone
from bennu.logwriter import client
from bennu.logwriter.client import LogWriter, make_pipe
from bennu.logwriter.words import HELD, Job

ID = "a" * 64
SAID = 120


class Host:
    """A folder with runs, and the bennud that has their logs written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids: list[int] = []
        self.writer = self.next_bennud()

    def next_bennud(self) -> LogWriter:
        async def enter(pid: int) -> None:
            self.pids.append(pid)

        self.writer = LogWriter(self.folder, enter)
        return self.writer

    async def begin(self, run: str = "1", **more: object) -> "Run":
        return await Run(self, run).begin(**more)


class Run:
    def __init__(self, host: Host, run: str) -> None:
        self.host = host
        self.log = host.folder / "log"
        self.job = Job(ID, str(self.log), run, str(host.folder / f"pipe{run}"))
        self.conmons = -1  # what conmon has open: the writing end, and a reading end that is never read
        self.keeper = -1
        self.number = 0

    async def begin(self, **more: object) -> "Run":
        self.job = self.job._replace(**more)  # type: ignore[arg-type]
        self.keeper = make_pipe(Path(self.job.pipe))
        await self.host.writer.write(self.job, os.dup(self.keeper))
        self.conmons = os.open(self.job.pipe, os.O_WRONLY)
        return self

    def say(self, text: str, tag: str = "F") -> None:
        os.write(self.conmons, f"2026-12-01T00:00:00.000000001Z stdout {tag} {text}\n".encode())

    async def end(self) -> list[str]:
        for descriptor in (self.conmons, self.keeper):
            os.close(descriptor)
        await self.host.writer.finish(ID)
        return self.said()

    def said(self) -> list[str]:
        return [json.loads(line)["log"] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    async def heard(self, *expected: str) -> None:
        async with asyncio.timeout(10):
            while self.said() != list(expected):
                await asyncio.sleep(0.01)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    yield host
    host.writer.close()
    for pid in host.pids:
        async with asyncio.timeout(10):
            await wait_gone(pid)  # it ends by itself


async def test_what_a_run_says_is_in_its_log_when_it_is_finished(host: Host) -> None:
    run = await host.begin()
    run.say("a")
    await run.heard("a\n")
    run.say("b")
    run.say("left", tag="P")
    assert await run.end() == ["a\n", "b\n", "left"]
    again = await host.begin("2")
    again.say("c")
    assert await again.end() == ["a\n", "b\n", "left", "c\n"]


async def test_a_run_may_be_over_before_there_is_a_writer(host: Host) -> None:
    run = Run(host, "1")
    run.keeper = make_pipe(Path(run.job.pipe))
    writing = asyncio.ensure_future(host.writer.write(run.job, os.dup(run.keeper)))
    await asyncio.sleep(0)
    run.conmons = os.open(run.job.pipe, os.O_WRONLY)
    run.say("quick")
    os.close(run.conmons)
    os.close(run.keeper)
    Path(run.job.pipe).unlink()
    await writing
    await host.writer.finish(ID)
    assert run.said() == ["quick\n"]


async def test_a_log_is_written_on_while_no_bennud_lives(host: Host) -> None:
    run = await host.begin()
    run.say("a")
    host.writer.close()
    run.say("b")
    await run.heard("a\n", "b\n")
    await host.next_bennud().take_up([run.job])
    run.say("c")
    assert await run.end() == ["a\n", "b\n", "c\n"]
    assert len(host.pids) == 1


async def test_a_writer_of_other_sources_hands_over_what_is_unfinished(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await host.begin()
    run.say("a")
    run.say("beg", tag="P")
    os.write(run.conmons, b"2026-12-01T00:00:00.0000")
    await run.heard("a\n")
    host.writer.close()
    monkeypatch.setattr(client, "fingerprint", lambda: "of the next version")
    await host.next_bennud().take_up([run.job])
    os.write(run.conmons, b"00002Z stdout F un\n")
    run.say("c")
    assert await run.end() == ["a\n", "begun\n", "c\n"]
    assert len(host.pids) == 2
    assert not (host.folder / HELD).exists()


async def test_a_writer_that_is_killed_is_replaced_at_once(host: Host) -> None:
    run = await host.begin()
    run.say("a")
    await run.heard("a\n")
    os.kill(host.pids[0], 9)
    run.say("b")  # no broken pipe
    await run.heard("a\n", "b\n")
    assert await run.end() == ["a\n", "b\n"]
    assert len(host.pids) == 2


async def test_runs_that_are_not_taken_up_are_finished(host: Host) -> None:
    run = await host.begin()
    run.say("a")
    await run.heard("a\n")
    host.writer.close()
    await host.next_bennud().take_up([])
    assert await (await host.begin("2")).end() == ["a\n"]
    run.say("b")
    await asyncio.sleep(0.05)
    assert await run.end() == ["a\n"]


async def test_a_log_that_cannot_be_written_holds_nobody_up(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    run = await host.begin(log=str(host.folder / "missing/log"))
    for _ in range(50):
        run.say("x" * 8000)
    await run.end()
    assert "lines of container aaaaaaaaaaaa are lost: No such file or directory" in caplog.text


async def test_what_waited_for_a_compression_is_written_when_that_is_over(host: Host) -> None:
    run = await host.begin(max_bytes=300_000, max_files=20, compress=True)
    for _ in range(SAID):
        run.say(os.urandom(4000).hex())
    async with asyncio.timeout(10):
        while True:  # and nothing more is said
            files = [*host.folder.glob("log*[0-9]"), *host.folder.glob("log*.gz"), run.log]
            with contextlib.suppress(FileNotFoundError):
                if sum(count_lines(path) for path in files if path.exists()) == SAID:
                    break
            await asyncio.sleep(0.05)
    await run.end()


def count_lines(path: Path) -> int:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data).count(b"\n")
    return 0 if path.with_name(f"{path.name}.gz").exists() else data.count(b"\n")


async def test_what_each_line_tells_may_be_longer_than_a_message(host: Host) -> None:
    run = await host.begin(attrs=json.dumps({"A": "x" * 300_000}))
    run.say("a")
    await run.heard("a\n")
    assert len(json.loads(run.log.read_text())["attrs"]["A"]) == 300_000
    await run.end()
    assert len(host.pids) == 1


async def test_a_writer_that_cannot_be_started_is_started_later(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    start, refused = client.start_writer, [OSError(11, "no process"), RuntimeError("can't start new thread")]

    def start_at_last(folder: Path) -> object:
        if refused:
            raise refused.pop()
        return start(folder)

    run = await host.begin()
    os.kill(host.pids[0], 9)
    host.writer.close()
    monkeypatch.setattr(client, "start_writer", start_at_last)
    with pytest.raises(RuntimeError):
        await host.next_bennud().take_up([run.job])
    run.say("a")
    await run.heard("a\n")
    await run.end()


async def test_a_run_whose_log_nobody_can_write_is_not_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise OSError(11, "no process")

    monkeypatch.setattr(client, "start_writer", refuse)
    with pytest.raises(OSError, match="no process"):
        await host.begin()
    async with asyncio.timeout(1):
        await host.writer.finish(ID)


async def test_a_writer_that_always_dies_at_once_is_not_started_again_without_a_pause(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PROGRAM", "")
    await host.begin()
    await asyncio.sleep(1)
    assert 1 < len(host.pids) < 7


async def test_without_blocking_a_writer_that_stands_still_costs_lines_and_no_time(host: Host) -> None:
    run = await host.begin(ring=1_000_000)
    run.say("first")
    await run.heard("first\n")
    for number in range(2000):
        run.say(f"{number:06d}")
    said = await run.end()
    assert said == ["first\n", *(f"{number:06d}\n" for number in range(2000))]
