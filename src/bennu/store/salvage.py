"""What can still be read of a database, and how it is put out of the way."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bennu.errors import Unavailable
from bennu.store.base import Put
from bennu.store.mark import mark_of
from bennu.store.opening import check_whole, connect_unchanged, has_database

SIDE_FILES: Final = ("", "-wal", "-shm")


def judge(path: Path) -> str:
    """Say what is wrong with the database at `path`; "" when it can be opened. Changes nothing."""
    try:
        check_whole(path)
    except (Unavailable, OSError, sqlite3.Error) as error:
        return str(error).partition(". ")[0]
    return "" if has_database(path) else f"the state in {path} is missing"


def put_database_aside(path: Path, lost: Path) -> Path:
    """Move the database to a new folder below `lost`; answer where it is now.

    Its log and its mark go with it, under their own names.
    """
    folder = lost / time.strftime("state-%Y%m%d-%H%M%S")
    folder.mkdir(mode=0o700, parents=True)
    for old in (*(path.with_name(path.name + side) for side in SIDE_FILES), mark_of(path)):
        if old.exists():
            old.rename(folder / old.name)
    return folder / path.name


def read_what_is_left(path: Path) -> Iterator[Put]:
    """Yield all entries up to the first damage, without their leases."""
    if not has_database(path):
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect_unchanged(path)) as db:
        for key, value in db.execute("SELECT key, value FROM kv WHERE lease = 0 ORDER BY key"):
            yield Put(key, value)
