"""The store on one machine: SQLite in WAL mode, one writer thread, group commit.

Commits that arrive while the disk is busy are written together in one SQLite transaction, hence one fsync; a
member of the group that fails is undone alone: it is refused before it writes. Reading has a connection and a thread
of its own too: a file system of somebody else's that never answers can fill every thread of the daemon but these.
"""

import asyncio
import contextlib
import queue
import secrets
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bennu.errors import BennuError, Unavailable
from bennu.store.ballast import Ballast
from bennu.store.base import (
    NO_LEASE,
    Changes,
    Compare,
    CompareFailed,
    Entry,
    LeaseId,
    LeaseLost,
    Put,
    Snapshot,
    Transaction,
)
from bennu.store.history import History
from bennu.store.leases import Leases
from bennu.store.mark import Mark, mark_of
from bennu.store.opening import check_whole, is_full, unreadable

SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL,
                               lease INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (lease INTEGER PRIMARY KEY, ttl_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('revision', 0);
INSERT OR IGNORE INTO meta VALUES ('instance', abs(random()));
"""
BEFORE_LEASES = "ALTER TABLE kv ADD COLUMN lease INTEGER NOT NULL DEFAULT 0"
WELL_FORMED_LEASES = "SELECT lease, ttl_ns FROM leases WHERE typeof(ttl_ns) = 'integer'"
LEASED = "CREATE INDEX IF NOT EXISTS leased ON kv (lease) WHERE lease != 0"
ENTRY = "key, CAST(value AS BLOB), revision"  # a value that somebody mended by hand may be text
PREFIX_END = "\U0010ffff"
RETRY_NS = 10**9  # before an end of leases that the disk refused is tried again
BALLAST = "ballast"
KEEP_HOUSE_S = 2.0  # between two looks at the mark and the ballast
NO_ROOM = "cannot write state: the disk is full. Nothing new is taken on until there is room: remove something"

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    write: Callable[[], int]  # in the writer's thread, within the group's transaction; raises BennuError to refuse
    then: Callable[[], None] = lambda: None  # once it is on disk, before anybody hears of it
    done: "Future[int]" = field(default_factory=Future)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA busy_timeout=5000")
    return db


class SqliteStore:
    """A `Store` in one file. Reads see every acknowledged commit.

    `whole`: it is proven to hold all that was ever acknowledged; False: nothing says so, nor the opposite.
    """

    def __init__(self, path: Path) -> None:
        """Open the database. Raises: Unavailable with the cure, when it has lost something; sqlite3.Error; OSError."""
        self._path = path
        self._ballast = Ballast(path.with_name(BALLAST))
        self.whole = check_whole(path)
        self._open_database(path)
        numbers = dict(self._writer.execute("SELECT name, number FROM meta").fetchall())
        self._revision: int = numbers["revision"]
        self._mark = Mark(mark_of(path), numbers["instance"], self._revision)
        self._history = History(self._revision)
        self._unseen: list[Changes] = []  # of the group that is being written
        self._leases = Leases(dict(self._writer.execute(WELL_FORMED_LEASES).fetchall()))
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._reading_thread = ThreadPoolExecutor(1, "store-reader")
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._write_jobs, "store-writer"), (self._keep_house, "store-keeper"))
        ]
        for thread in self._threads:
            thread.start()

    def _open_database(self, path: Path) -> None:
        # Environments and secrets are in it; SQLite gives its side files the same mode.
        path.touch(mode=0o600)
        path.chmod(0o600)
        self._writer = _connect(path)
        self._writer.executescript(SCHEMA)
        if not any(row[1] == "lease" for row in self._writer.execute("PRAGMA table_info(kv)")):
            self._writer.execute(BEFORE_LEASES)
        self._writer.execute(LEASED)
        self._reader = _connect(path)
        self._empty_log()

    def _empty_log(self) -> None:
        """Move all into the database: a log that is damaged later has then little to lose. On a full disk it stays."""
        with contextlib.suppress(sqlite3.OperationalError):
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def read(self, key: str) -> Entry | None:
        rows = await self._ask(lambda: self._select("WHERE key = ?", (key,)))
        return rows[0] if rows else None

    async def read_prefix(self, prefix: str, *, after: str = "", limit: int = 0) -> list[Entry]:
        condition = "WHERE key >= ? AND key < ? AND key > ? ORDER BY key LIMIT ?"
        arguments = (prefix, prefix + PREFIX_END, after, limit if limit > 0 else -1)
        return await self._ask(lambda: self._select(condition, arguments))

    async def snapshot(self, prefix: str) -> Snapshot:
        return await self._ask(lambda: self._snapshot(prefix))

    async def count_prefix(self, prefix: str) -> int:
        return await self._ask(lambda: self._count(prefix))

    async def commit(self, transaction: Transaction) -> int:
        return await self._do(_Job(lambda: self._write_one(transaction)))

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Changes, None]:
        return self._history.follow(prefix, after)

    async def grant(self, ttl_ns: int) -> LeaseId:
        lease = LeaseId(secrets.randbits(62) | 1)
        await self._do(_Job(lambda: self._write_lease(lease, ttl_ns), lambda: self._leases.begin(lease, ttl_ns)))
        return lease

    def keep_alive(self, lease: LeaseId) -> None:
        self._leases.keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        await self._do(self._ending(lease))

    def close(self) -> None:
        """Write what is queued, then close. No commit may follow."""
        self._jobs.put(None)
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._reading_thread.shutdown()
        self._reader.close()
        self._empty_log()
        self._writer.close()
        self._mark.close()

    def _keep_house(self) -> None:
        """Do, in a thread of its own, what takes its time and nobody waits for."""
        while True:
            self._mark.sync()
            with contextlib.suppress(OSError):
                self._ballast.take_back()
            if self._closing.wait(KEEP_HOUSE_S):
                return

    # --- reading: the reader's thread ---------------------------------------------------------------------------

    async def _ask(self, read: Callable[[], T]) -> T:
        """Read in the reader's thread. Raises: Unavailable."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading_thread, read)
        except sqlite3.Error as error:
            raise unreadable(self._path, error) from error

    def _select(self, condition: str, arguments: tuple[str | int, ...]) -> list[Entry]:
        rows = self._reader.execute(f"SELECT {ENTRY} FROM kv {condition}", arguments).fetchall()
        return [Entry(*row) for row in rows]

    def _snapshot(self, prefix: str) -> Snapshot:
        query = f"SELECT {ENTRY} FROM kv WHERE key >= ? AND key < ? ORDER BY key"
        self._reader.execute("BEGIN")
        try:
            (revision,) = self._reader.execute("SELECT number FROM meta WHERE name = 'revision'").fetchone()
            rows = self._reader.execute(query, (prefix, prefix + PREFIX_END)).fetchall()
        finally:
            self._reader.execute("COMMIT")
        return Snapshot(revision, [Entry(*row) for row in rows])

    def _count(self, prefix: str) -> int:
        query = "SELECT COUNT(*) FROM kv WHERE key >= ? AND key < ?"
        row = self._reader.execute(query, (prefix, prefix + PREFIX_END)).fetchone()
        return int(row[0])

    # --- writing: the writer's thread ---------------------------------------------------------------------------

    async def _do(self, job: _Job) -> int:
        self._jobs.put(job)
        return await asyncio.wrap_future(job.done)

    def _write_jobs(self) -> None:
        while True:
            try:
                first = self._jobs.get(timeout=self._leases.seconds_to_next_end())
            except queue.Empty:
                self._end_leases()
                continue
            group = [] if first is None else [first]
            last = first is None
            while not last and not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    last = True
                else:
                    group.append(job)
            if group:
                self._write_group(group)
            if last:
                return
            self._end_leases()

    def _end_leases(self) -> None:
        for lease in self._leases.take_ended():
            job = self._ending(lease)
            self._write_group([job])
            if isinstance(job.done.exception(), Unavailable):
                self._leases.postpone(lease, RETRY_NS)

    def _ending(self, lease: LeaseId) -> _Job:
        return _Job(lambda: self._end_lease(lease), lambda: self._leases.end(lease))

    def _write_group(self, group: list[_Job]) -> None:
        outcomes = self._write_with_ballast(group)
        self._mark.note(self._revision)
        self._history.add(self._unseen)
        for job, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, int):
                job.then()
            if job.done.cancelled():
                continue
            if isinstance(outcome, BennuError):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)

    def _write_with_ballast(self, group: list[_Job]) -> list[int | BennuError]:
        while True:
            try:
                return self._write_together(group)
            except sqlite3.Error as error:
                if not (is_full(error, self._path) and self._ballast.give_up_piece()):
                    return [Unavailable(f"cannot write state: {error}") for _ in group]
            except Exception as error:  # a value that SQLite cannot hold: the writer has others to serve
                return [Unavailable(f"cannot write state: {error}") for _ in group]

    def _write_together(self, group: list[_Job]) -> list[int | BennuError]:
        """Write in one transaction of SQLite, one sync. Raises: sqlite3.Error and others; then nothing is written."""
        before = self._revision
        self._unseen = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            outcomes = [_outcome(job) for job in group]
            self._writer.execute("UPDATE meta SET number = ? WHERE name = 'revision'", (self._revision,))
            self._writer.execute("COMMIT")
        except Exception:
            self._revision = before
            self._unseen = []
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise
        return outcomes

    def _write_one(self, transaction: Transaction) -> int:
        if transaction.adds and self._ballast.is_spent:
            raise Unavailable(NO_ROOM)
        for compare in transaction.compares:
            if not self._holds(compare):
                raise CompareFailed(f"{compare.key} has changed meanwhile")
        for write in transaction.writes:
            if isinstance(write, Put) and write.lease != NO_LEASE:
                self._check_lease(write.lease)
        self._revision += 1
        values: dict[str, bytes | None] = {}
        for write in transaction.writes:
            if isinstance(write, Put):
                row = (write.key, write.value, self._revision, write.lease)
                self._writer.execute("INSERT OR REPLACE INTO kv VALUES (?, ?, ?, ?)", row)
                values[write.key] = write.value
            elif self._writer.execute("DELETE FROM kv WHERE key = ?", (write.key,)).rowcount:
                values[write.key] = None
        self._unseen.append(Changes(self._revision, values))
        return self._revision

    def _holds(self, compare: Compare) -> bool:
        row = self._writer.execute("SELECT revision FROM kv WHERE key = ?", (compare.key,)).fetchone()
        return (row[0] if row else 0) == compare.revision

    def _check_lease(self, lease: LeaseId) -> None:
        if self._writer.execute("SELECT 1 FROM leases WHERE lease = ?", (lease,)).fetchone() is None:
            raise LeaseLost(f"lease {lease:x} has ended")

    def _write_lease(self, lease: LeaseId, ttl_ns: int) -> int:
        self._writer.execute("INSERT INTO leases VALUES (?, ?)", (lease, ttl_ns))
        return self._revision

    def _end_lease(self, lease: LeaseId) -> int:
        self._check_lease(lease)
        self._revision += 1
        keys = [row[0] for row in self._writer.execute("SELECT key FROM kv WHERE lease = ? AND lease != 0", (lease,))]
        self._writer.executemany("DELETE FROM kv WHERE key = ?", [(key,) for key in keys])
        self._writer.execute("DELETE FROM leases WHERE lease = ?", (lease,))
        self._unseen.append(Changes(self._revision, dict.fromkeys(keys)))
        return self._revision


def _outcome(job: _Job) -> int | BennuError:
    try:
        return job.write()
    except BennuError as refusal:
        return refusal


def _open(path: Path) -> SqliteStore:
    """Open the store; on a full disk the ballast makes the little room that SQLite needs to begin."""
    while True:
        try:
            return SqliteStore(path)
        except (sqlite3.Error, OSError) as error:
            if not (is_full(error, path) and Ballast(path.with_name(BALLAST)).give_up_piece()):
                raise unreadable(path, error) from error


@contextlib.asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[SqliteStore]:
    """Open (or make) the store at `path`; its folder must exist. Raises: Unavailable that says what to do."""
    store = await asyncio.to_thread(_open, path)
    try:
        yield store
    finally:
        await asyncio.to_thread(store.close)
