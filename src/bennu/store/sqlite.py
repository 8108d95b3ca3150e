"""The store on one machine: SQLite in WAL mode, one writer thread, group commit.

Commits that arrive while the disk is busy are written together in one SQLite transaction, hence one fsync; a
member of the group that fails is undone alone (savepoint). Readers use a connection of their own.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from bennu.errors import Unavailable
from bennu.store.base import Compare, CompareFailed, Delete, Entry, Put, Transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('revision', 0);
"""
PREFIX_END = "\U0010ffff"


@dataclass(slots=True)
class _Job:
    transaction: Transaction
    done: Future[int]


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA busy_timeout=5000")
    return db


class SqliteStore:
    """A `Store` in one file. Reads see every acknowledged commit."""

    def __init__(self, path: Path) -> None:
        # Environments and secrets are in it; SQLite gives its side files the same mode.
        path.touch(mode=0o600)
        path.chmod(0o600)
        self._writer = _connect(path)
        self._writer.executescript(SCHEMA)
        self._reader = _connect(path)
        self._read_lock = threading.Lock()
        row = self._writer.execute("SELECT number FROM meta WHERE name = 'revision'").fetchone()
        self._revision: int = row[0]
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_jobs, name="store-writer", daemon=True)
        self._thread.start()

    async def read(self, key: str) -> Entry | None:
        rows = await asyncio.to_thread(self._select, "WHERE key = ?", (key,))
        return rows[0] if rows else None

    async def read_prefix(self, prefix: str, *, after: str = "", limit: int = 0) -> list[Entry]:
        condition = "WHERE key >= ? AND key < ? AND key > ? ORDER BY key LIMIT ?"
        return await asyncio.to_thread(
            self._select, condition, (prefix, prefix + PREFIX_END, after, limit if limit > 0 else -1)
        )

    async def count_prefix(self, prefix: str) -> int:
        return await asyncio.to_thread(self._count, prefix)

    async def commit(self, transaction: Transaction) -> int:
        job = _Job(transaction, Future())
        self._jobs.put(job)
        return await asyncio.wrap_future(job.done)

    def close(self) -> None:
        """Write what is queued, then close. No commit may follow."""
        self._jobs.put(None)
        self._thread.join()
        self._writer.close()
        self._reader.close()

    def _select(self, condition: str, arguments: tuple[str | int, ...]) -> list[Entry]:
        with self._read_lock:
            rows = self._reader.execute(f"SELECT key, value, revision FROM kv {condition}", arguments).fetchall()
        return [Entry(*row) for row in rows]

    def _count(self, prefix: str) -> int:
        query = "SELECT COUNT(*) FROM kv WHERE key >= ? AND key < ?"
        with self._read_lock:
            row = self._reader.execute(query, (prefix, prefix + PREFIX_END)).fetchone()
        return int(row[0])

    def _write_jobs(self) -> None:
        while (first := self._jobs.get()) is not None:
            group = [first]
            last = False
            while not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    last = True
                    break
                group.append(job)
            self._write_group(group)
            if last:
                return

    def _write_group(self, group: list[_Job]) -> None:
        before = self._revision
        outcomes: list[int | Exception] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            outcomes = [self._write_one(job.transaction) for job in group]
            self._writer.execute("UPDATE meta SET number = ? WHERE name = 'revision'", (self._revision,))
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._revision = before
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            outcomes = [Unavailable(f"cannot write state: {error}") for _ in group]
        for job, outcome in zip(group, outcomes, strict=True):
            if job.done.cancelled():
                continue
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)

    def _write_one(self, transaction: Transaction) -> int | Exception:
        for compare in transaction.compares:
            if not self._holds(compare):
                return CompareFailed(f"{compare.key} has changed meanwhile")
        self._revision += 1
        for write in transaction.writes:
            if isinstance(write, Put):
                self._writer.execute(
                    "INSERT OR REPLACE INTO kv VALUES (?, ?, ?)", (write.key, write.value, self._revision)
                )
            elif isinstance(write, Delete):
                self._writer.execute("DELETE FROM kv WHERE key = ?", (write.key,))
        return self._revision

    def _holds(self, compare: Compare) -> bool:
        row = self._writer.execute("SELECT revision FROM kv WHERE key = ?", (compare.key,)).fetchone()
        return (row[0] if row else 0) == compare.revision


@contextlib.asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[SqliteStore]:
    """Open (or make) the store at `path`; its folder must exist. Raises: sqlite3.Error."""
    store = await asyncio.to_thread(SqliteStore, path)
    try:
        yield store
    finally:
        await asyncio.to_thread(store.close)
