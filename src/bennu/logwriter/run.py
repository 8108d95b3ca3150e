"""One run's log: from its pipe to its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bennu.logwriter.lines import JsonLines, Lines, PlainLines
from bennu.logwriter.pipes import LineSource, Pipe, Ring
from bennu.logwriter.rotated_file import Bounds, RotatedFile
from bennu.logwriter.words import Job


class LogRun:
    """The log of one run while it is written. Blocking; for one thread."""

    def __init__(
        self, job: Job, pipe: int, held: Any, *, compressed: Callable[[], None], complain: Callable[[str], None]
    ) -> None:
        """Take over the pipe; `held` is what another writer's `leave` answered, or None.

        `compressed` is called, from any thread, when `is_waiting` may have changed; `complain` when lines are lost.
        """
        self.job = job
        self._complain = complain
        self._lines: Lines = JsonLines(job.attrs) if job.json else PlainLines()
        self._waiting = b""  # lines that wait for a compression
        self._complaint = ""
        self._file = RotatedFile(Path(job.log), Bounds(job.max_bytes, job.max_files, job.compress), compressed)
        self.source = self._open(pipe)
        if held is not None:
            self.source.torn = held["torn"].encode("latin-1")
            self._lines.resume(held["lines"])

    def _open(self, pipe: int) -> LineSource:
        if self.job.ring >= 0:
            try:
                return Ring(pipe, self.job.ring)
            except (OSError, RuntimeError) as error:
                self._complain(f"container {self.job.id[:12]} waits for its log, though it was not to: {error}")
        return Pipe(pipe)

    @property
    def has_waiting(self) -> bool:
        """Whether there are lines that were read and not written yet."""
        return bool(self._waiting)

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is to be read until a compression is over."""
        return bool(self._waiting) and self._file.is_busy

    def take_turn(self) -> None:
        """Write what has come, at most one block."""
        if self._waiting:
            self._write(b"")
        if not self._waiting:
            self._write(self._lines.feed(self.source.read()))

    def finish(self) -> None:
        """Write everything that has come and what is unfinished, and close the log and the pipe."""
        for lines in self.source.drain():
            self._write_all(self._lines.feed(lines))
        torn = self.source.torn + b"\n" if self.source.torn else b""  # conmon was killed within a line
        self._write_all(self._lines.feed(torn) + self._lines.finish())
        self._close()

    def leave(self) -> Any:
        """Write what was read, close everything, and answer what is unfinished as a value of JSON."""
        if isinstance(self.source, Ring):
            for lines in self.source.drain():
                self._write_all(self._lines.feed(lines))
        self._write_all(b"")
        self._close()
        return {"torn": self.source.torn.decode("latin-1"), "lines": self._lines.held()}

    def _close(self) -> None:
        self._file.close()
        self.source.close()

    def _write(self, lines: bytes) -> None:
        try:
            self._waiting = self._file.write(self._waiting + lines)
        except OSError as error:  # a full disk: these lines are lost, later ones may not be
            self._waiting = b""
            if self._complaint != (complaint := f"lines of container {self.job.id[:12]} are lost: {error.strerror}"):
                self._complaint = complaint
                self._complain(complaint)

    def _write_all(self, lines: bytes) -> None:
        self._write(lines)
        while self._waiting:
            self._file.wait()
            self._write(b"")
