"""Whether a database may be opened at all, and what an operator is told when it may not.

Nothing is changed before it is judged, not even by SQLite, which would throw away what it cannot read of a log.
"""

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from bennu.errors import Unavailable
from bennu.store.mark import Marked, mark_of, read_mark

PRIMARY_CODE: Final = 0xFF  # of SQLite's extended result codes
DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


def check_whole(path: Path) -> bool:
    """Tell whether the state is proven to hold all that was acknowledged; False: no mark proves it, nor the opposite.

    Raises: Unavailable with the cure, when it is damaged or has lost something; OSError.
    """
    try:
        mark = read_mark(mark_of(path))
    except Unavailable as error:
        raise Unavailable(f"{error}. {cure(path)}") from None
    if not has_database(path):
        if mark is not None:
            raise Unavailable(f"the state in {path} is missing, and containers were there. {cure(path)}")
        return True
    with contextlib.closing(connect_unchanged(path)) as db:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Unavailable(f"the state in {path} is damaged ({' '.join(verdict.split())}). {cure(path)}")
        if mark is None:
            return False
        _compare(path, mark, read_numbers(db))
    return True


def has_database(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def connect_unchanged(path: Path) -> sqlite3.Connection:
    """Connect for reading only: when the connection is closed the log is as it was."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def read_numbers(db: sqlite3.Connection) -> dict[str, int]:
    """Read `revision` and `instance`, as far as the database has them. Raises: sqlite3.Error."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return {}
    return dict(db.execute("SELECT name, number FROM meta").fetchall())


def _compare(path: Path, mark: Marked, found: dict[str, int]) -> None:
    """Compare the database with its mark. Raises: Unavailable when it is another's or has lost changes."""
    if found and found.get("instance") != mark.instance:
        raise Unavailable(f"the state in {path} is that of another bennud. {cure(path)}")
    if found.get("revision", -1) < mark.revision:
        raise Unavailable(
            f"the state in {path} has lost its latest changes: it ends at revision {found.get('revision', 0)}, "
            f"but {mark.revision} was acknowledged. {cure(path)}"
        )


def cure(path: Path) -> str:
    return (
        "Nothing was touched, and containers run on. Either of these brings all back: "
        f"`bennu doctor --repair --data-root {path.parent}`, which makes the state anew from what lies beside it; "
        f"or a backup of {path.name}, put in its place, with {mark_of(path)} removed to say that you want it as it is"
    )


def is_full(error: Exception, path: Path) -> bool:
    """Tell whether this went wrong because the disk is full."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
        other = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and os.statvfs(path.parent).f_bavail == 0
        return code == sqlite3.SQLITE_FULL or other
    return isinstance(error, OSError) and error.errno in NO_SPACE


def unreadable(path: Path, error: sqlite3.Error | OSError) -> Unavailable:
    """Word for the operator what is wrong with the state, and what to do about it."""
    what = f"cannot read the state in {path}: {error}"
    if getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE in DAMAGE:
        return Unavailable(f"{what}. {cure(path)}")
    if is_full(error, path):
        return Unavailable(f"{what}. The disk is full: delete something there")
    return Unavailable(what)
