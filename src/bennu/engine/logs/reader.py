"""Reading a container's log: tail, since, until, follow; over rotated files, never blocking the event loop.

    reader = read_logs(path, LogQuery(follow=True), ended=container.exited)
    async for records in reader: ...

Everything is read in threads, a block at a time, so a log may be larger than memory.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bennu.engine.logs.files import BLOCK, LogFile, open_after, open_all, tail_start
from bennu.engine.logs.records import Assembler, LogRecord
from bennu.errors import NotImplementedHere
from bennu.kernel.inotify import FolderWatch

__all__ = ["LogQuery", "LogRecord", "check_readable", "read_logs"]

READABLE_DRIVERS: Final = frozenset({"", "json-file", "local"})
GATHER_S: Final = 0.005  # after a change: what else comes at once is told together
LOOK_AGAIN_S: Final = 5.0  # against a lost wake-up


@dataclass(frozen=True, slots=True)
class LogQuery:
    """A selection of records. `tail` counts records of both streams, before any other filter; None = all of them.

    `since_ns` and `until_ns` are inclusive; 0 = no bound.
    """

    stdout: bool = True
    stderr: bool = True
    tail: int | None = None
    since_ns: int = 0
    until_ns: int = 0
    follow: bool = False

    def wants(self, record: LogRecord) -> bool:
        return (
            (self.stdout if record.stream == "stdout" else self.stderr)
            and record.at_ns >= self.since_ns
            and (not self.until_ns or record.at_ns <= self.until_ns)
        )


def check_readable(driver: str) -> None:
    """Check that the log driver keeps a readable log. Raises: NotImplementedHere otherwise."""
    if driver not in READABLE_DRIVERS:
        raise NotImplementedHere("configured logging driver does not support reading")


async def read_logs(path: Path, query: LogQuery, *, ended: asyncio.Event) -> AsyncGenerator[list[LogRecord], None]:
    """Read the records of the log at `path`, in batches; an absent log is an empty one.

    `ended` is set while no process writes to the log. A following reader ends once `ended` was set since the call,
    after all records written until then. Close the generator (`aclosing`) to give its descriptors back early.
    Raises: OSError.
    """
    follow = query.follow and not ended.is_set()
    end = asyncio.ensure_future(ended.wait())  # an end counts even if the next run clears the event at once
    log = _Log(path, follow=follow)
    try:
        with FolderWatch(path.parent) if follow else contextlib.nullcontext() as watch:
            over = ended.is_set()
            await asyncio.to_thread(log.open, query.tail, query.since_ns, over)
            async for batch in _drain(log, query, last=over):
                yield batch
            while watch is not None and not over and not _is_past(query.until_ns):
                await _wait(watch, end, query.until_ns)
                over = end.done()
                async for batch in _drain(log, query, last=over):
                    yield batch
    finally:
        end.cancel()
        await asyncio.shield(asyncio.to_thread(log.close))


async def _drain(log: "_Log", query: LogQuery, *, last: bool) -> AsyncGenerator[list[LogRecord], None]:
    """Read all records available now. `last`: no process writes any more, so an unfinished line is complete."""
    while (records := await asyncio.to_thread(log.read)) is not None:
        wanted = [record for record in records if query.wants(record)]
        if wanted:
            yield wanted
    if last and (wanted := [record for record in log.finish() if query.wants(record)]):
        yield wanted


async def _wait(watch: FolderWatch, end: "asyncio.Future[Literal[True]]", until_ns: int) -> None:
    """Wait until the log may have changed, the container has ended, or `until_ns` has come."""
    limit = min(LOOK_AGAIN_S, max(0, until_ns - time.time_ns()) / 1e9) if until_ns else LOOK_AGAIN_S
    changed = asyncio.ensure_future(watch.wait_changed())
    try:
        await asyncio.wait((changed, end), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        changed.cancel()
    if not end.done():
        await asyncio.sleep(GATHER_S)


def _is_past(instant_ns: int) -> bool:
    return 0 < instant_ns < time.time_ns()


class _Log:
    """The files of a log as one stream of records. Blocking; `close` may come from another thread at any time."""

    def __init__(self, path: Path, *, follow: bool) -> None:
        """Make it; without `follow` it ends with what was there when it was opened, however fast more is written."""
        self._path = path
        self._follow = follow
        self._end = 0  # of the last file, unless it is followed
        self._files: list[LogFile] = []  # still to be read, the first of them from `_offset` on
        self._offset = 0
        self._torn = b""
        self._skip = 0  # records before those asked for
        self._since_ns = 0
        self._passed = b""  # the last lines that were not looked at, for they are older than that
        self._assembler = Assembler()
        self._lock = threading.Lock()
        self._closed = False

    def open(self, tail: int | None, since_ns: int, complete: bool) -> None:
        """Begin so that the last `tail` records follow, and those since an instant; maybe more of older ones.

        `complete`: no process writes any more.
        """
        with self._lock:
            if self._closed:
                return
            self._files = open_all(self._path)
            self._end = self._files[-1].size() if self._files and not self._follow else 0
            if tail is None or not self._files:
                self._since_ns = since_ns
                return
            index, self._offset = tail_start(self._files, max(1, tail))
            self._leave_behind(index)
            self._skip = max(0, self._count(complete) - tail)

    def read(self) -> list[LogRecord] | None:
        """Read the records in the next block, which may be none; None when there is no further block by now."""
        with self._lock:
            while not self._closed and (self._files or self._find_next()):
                block = self._files[0].read(self._portion(self._files[0], self._offset), self._offset)
                if block:
                    self._offset += len(block)
                    lines, self._torn = _cut(self._torn + block)
                    return self._take(lines)
                if len(self._files) == 1 and not self._find_next():
                    return None
                # A new file is there, so the old one is complete: look once more, then leave it.
                if not self._files[0].read(1, self._offset):
                    self._leave_behind(1)
                    self._offset, self._torn = 0, b""
            return None

    def finish(self) -> list[LogRecord]:
        """Return the unfinished lines, when no process writes any more."""
        return self._wanted(self._assembler.finish())

    def close(self) -> None:
        """Close the files, waiting for a read under way, which is at most one block. Idempotent."""
        self._closed = True
        with self._lock:
            self._leave_behind(len(self._files))

    def _take(self, lines: bytes) -> list[LogRecord]:
        """Parse a block into records, but skip one that ends before `_since_ns`: a big log is passed over quickly."""
        if not lines:
            return []
        if self._since_ns and self._assembler.last_instant(lines) < self._since_ns:
            self._passed = lines
            return []
        # The first line that is asked for may be the end of one that began in the block before.
        lines, self._passed, self._since_ns = self._passed + lines, b"", 0
        return self._wanted(self._assembler.feed(lines))

    def _wanted(self, records: Iterator[LogRecord]) -> list[LogRecord]:
        found = list(records)
        kept = found[self._skip :]
        self._skip = max(0, self._skip - len(found))
        return kept

    def _count(self, complete: bool) -> int:
        """Count the records that follow, without moving on."""
        counted, offset, assembler = 0, self._offset, Assembler()
        for file in self._files:
            torn = b""
            while not self._closed and (block := file.read(self._portion(file, offset), offset)):
                offset += len(block)
                lines, torn = _cut(torn + block)
                counted += sum(1 for _ in assembler.feed(lines))
            offset = 0
        return counted + (sum(1 for _ in assembler.finish()) if complete else 0)

    def _leave_behind(self, count: int) -> None:
        for file in self._files[:count]:
            file.close()
        del self._files[:count]

    def _portion(self, file: LogFile, offset: int) -> int:
        """Compute how much to read at once."""
        if self._follow or file is not self._files[-1]:
            return BLOCK
        return max(0, min(BLOCK, self._end - offset))

    def _find_next(self) -> bool:
        """Find the file after the last known one, add it, and tell whether there is one."""
        if not self._follow:
            return False
        if not self._files:
            self._files = open_all(self._path)
            return bool(self._files)
        following = open_after(self._path, self._files[-1].inode)
        if following is not None:
            self._files.append(following)
        return following is not None


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Split off whole lines from the beginning of the last one."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]
