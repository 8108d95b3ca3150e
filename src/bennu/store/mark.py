"""The mark beside a database: which one belongs here, and up to which revision it was acknowledged.

SQLite ends the recovery of a damaged write-ahead log at the first bad frame without a word, and makes a new database
where one is missing. The mark knows better: a database that is not the one it names, or lies behind it, has lost
something that a client was told is kept. It is written in place after each group of commits, which no death of the
process can undo, and brought to the disk every few seconds, which bounds what a power failure hides from it.

One line, far smaller than a sector: `bennu INSTANCE REVISION`. A mark taken away by hand means: take the database as
it is.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.errors import Unavailable
from bennu.files import sync_folder

LINE: Final = re.compile(rb"bennu ([0-9a-f]{16}) ([0-9]{20})\n")


@dataclass(frozen=True, slots=True)
class Marked:
    """What a mark says."""

    instance: int
    revision: int


def mark_of(database: Path) -> Path:
    return database.with_suffix(".mark")


def read_mark(path: Path) -> Marked | None:
    """Read the mark; None: there is none. Raises: Unavailable when it cannot be read; OSError."""
    try:
        line = path.read_bytes()
    except FileNotFoundError:
        return None
    found = LINE.fullmatch(line)
    if found is None:
        raise Unavailable(f"{path}, which tells whether the state is whole, is damaged")
    return Marked(int(found[1], 16), int(found[2]))


class Mark:
    """Written by the store's own thread (`note`), brought to the disk by another (`sync`)."""

    def __init__(self, path: Path, instance: int, revision: int) -> None:
        """Write the mark and sync it. Raises: OSError."""
        self._instance = instance
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._noted = self._synced = -1
        os.pwrite(self._file, self._line(revision), 0)
        os.fsync(self._file)
        sync_folder(path.parent)
        self._noted = self._synced = revision

    def _line(self, revision: int) -> bytes:
        return b"bennu %016x %020d\n" % (self._instance, revision)

    def note(self, revision: int) -> None:
        """Note that everything up to `revision` is on the disk in the database. Cheap: no sync."""
        if revision == self._noted:
            return
        with contextlib.suppress(OSError):  # a mark that lies behind accuses nobody
            os.pwrite(self._file, self._line(revision), 0)
            self._noted = revision

    def sync(self) -> None:
        """Sync the mark to the disk, if it has moved since the last time."""
        noted = self._noted
        if noted != self._synced:
            with contextlib.suppress(OSError):
                os.fdatasync(self._file)
                self._synced = noted

    def close(self) -> None:
        self.sync()
        os.close(self._file)
