"""The cluster's state: durable in the store under `cluster/`, and whole in memory, as the store's watch tells it.

Laws.
* A change is on disk, together with the events that announce it, before any reader sees it.
* What is in memory comes from the watch alone, whichever process wrote it; a commit returns when it is seen there.
* One writer at a time: a caller that reads in order to write holds `lock` from the read to the commit. Only the life
  and the end of leases (`alive`) come without it.
* Every row of one transaction gets the same index, the store's revision; indexes of later ones are larger.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from bennu.cluster import codec
from bennu.cluster.errors import not_found, not_manager
from bennu.cluster.reading import check_row
from bennu.cluster.tables import AliveRow, BlobRow, ClusterRow, MetricsRow, NodeRow, Row, ServiceRow, TaskRow
from bennu.engine.background import Background
from bennu.engine.events import Event, Journal
from bennu.errors import InvalidParameter
from bennu.pace import paced
from bennu.store import Compacted, Delete, Entry, LeaseId, Put, Store, Transaction, aside

PREFIX: Final = "cluster/"
R = TypeVar("R", bound=Row)
log = logging.getLogger(__name__)


class Table(Generic[R]):
    """The rows of one kind, by id."""

    def __init__(self, name: str, kind: type[R]) -> None:
        self.name = name
        self.kind = kind
        self.rows: dict[str, R] = {}

    def get(self, row_id: str) -> R | None:
        return self.rows.get(row_id)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows.values())

    def find(self, ref: str, name_of: Callable[[R], str], word: str) -> R:
        """Find a row by full id, exact name, or unique beginning of an id.

        Raises: NotFound, InvalidParameter (ambiguous).
        """
        if ref in self.rows:
            return self.rows[ref]
        for found in (
            [row for row in self if name_of(row) == ref],
            [row for row in self if ref and row.id.startswith(ref)],
        ):
            if len(found) == 1:
                return found[0]
            if len(found) > 1:
                raise InvalidParameter(f"{word} {ref} is ambiguous ({len(found)} matches found)")
        raise not_found(word, ref)

    def key(self, row_id: str) -> str:
        return f"{PREFIX}{self.name}/{row_id}"


@dataclass(slots=True)
class Change:
    """A transaction being prepared. A row put twice is written once, as it was put last."""

    puts: dict[tuple[str, str], Row] = field(default_factory=dict)
    deletes: dict[tuple[str, str], None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def put(self, table: Table[R], row: R) -> None:
        self.deletes.pop((table.name, row.id), None)
        self.puts[table.name, row.id] = row

    def delete(self, table: Table[R], row_id: str) -> None:
        self.puts.pop((table.name, row_id), None)
        self.deletes[table.name, row_id] = None


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of a row as a watcher is told it: the row before and after; None: it was, or is, not there."""

    table: str
    row_id: str
    before: Row | None
    after: Row | None


Watcher = Callable[[list[Changed]], None]


class ClusterState:
    """All tables of the cluster. Made by `open_state`."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self.lock = asyncio.Lock()
        self.services = Table("services", ServiceRow)
        self.tasks = Table("tasks", TaskRow)
        self.metrics = Table("sightings", MetricsRow)  # of services whose rollout is watched
        self.nodes = Table("nodes", NodeRow)
        self.alive = Table("alive", AliveRow)  # the nodes whose agent holds its lease
        self.secrets = Table("secrets", BlobRow)
        self.configs = Table("configs", BlobRow)
        self.swarm = Table("swarm", ClusterRow)
        self._tables: dict[str, Table[Any]] = {
            table.name: table
            for table in (
                *(self.services, self.tasks, self.metrics, self.nodes, self.alive),
                *(self.secrets, self.configs, self.swarm),
            )
        }
        self._of_service: dict[str, dict[str, None]] = defaultdict(dict)
        self._aside: dict[str, str] = {}  # by key: records that could not be read, and why
        self._revision = 0  # up to here the tables are as the store is
        self._moved = asyncio.Event()
        self._written: dict[str, tuple[bytes, Row]] = {}  # what `commit` writes need not be decoded when it comes back
        self.watchers: list[Watcher] = []

    # --- as the store has it ------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read everything that is stored, and tell the watchers what differs from the tables."""
        snapshot = await self._store.snapshot(PREFIX)
        told: list[Changed] = []
        there = {entry.key for entry in snapshot.entries}
        for changes in await aside.take_in(self._store, snapshot.entries, self._read):
            told += changes
        self._aside = {one.key: one.reason for one in await aside.read_aside(self._store, PREFIX)}
        gone = [table.key(row_id) for table, row_id in self.everything() if table.key(row_id) not in there]
        for key in gone:
            told += self._take_in(key, None, snapshot.revision)
        self._move(snapshot.revision, told)

    async def follow(self) -> None:
        """Keep the tables as the store is and tell the watchers, until cancelled."""
        while True:
            try:
                async with aclosing(self._store.watch(PREFIX, after=self._revision)) as watch:
                    async for changes in watch:
                        told: list[Changed] = []
                        for key, value in changes.values.items():
                            told += self._take_in(key, value, changes.revision)
                        self._move(changes.revision, told)
            except Compacted:
                await self.load()

    def _read(self, entry: Entry) -> list[Changed]:
        """Read a record into the tables. Raises: the error of whatever is wrong with the record."""
        told = self._take_in(entry.key, entry.value, entry.revision)
        for item in told:
            try:
                check_row(item.row_id, item.after)
            except Exception:
                self._take_in(entry.key, None, entry.revision)
                raise
        return told

    def _take_in(self, key: str, value: bytes | None, revision: int) -> list[Changed]:
        name, _, row_id = key.removeprefix(PREFIX).partition("/")
        table = self._tables.get(name)
        if table is None:
            return []  # of a newer bennud
        before = table.rows.get(row_id)
        if value is None:
            if before is None:
                return []
            del table.rows[row_id]
            if isinstance(before, TaskRow):
                self._leave(before)
            return [Changed(name, row_id, before, None)]
        if before is not None and before.index == revision:
            return []
        written = self._written.pop(key, None)
        row = written[1] if written is not None and written[0] == value else codec.decode(table.kind, value)
        after: Row = replace(row, index=revision)
        table.rows[row_id] = after
        if isinstance(after, TaskRow):
            self._of_service[after.task.service_id][row_id] = None
        return [Changed(name, row_id, before, after)]

    def _move(self, revision: int, told: list[Changed]) -> None:
        self._revision = revision
        for watcher in list(self.watchers) if told else ():
            try:
                watcher(told)
            except Exception:  # a bug of one must not leave the others, and every commit, waiting
                log.exception("a watcher of the cluster's state failed")
        self._moved.set()
        self._moved = asyncio.Event()

    def why_aside(self, table: Table[Any], row_id: str) -> str:
        """Say why the row is not in its table although it was once; "" when it never was, or is."""
        return self._aside.get(table.key(row_id), "") if row_id not in table.rows else ""

    async def forget_aside(self) -> None:
        """Delete the rows that could not be read, when the swarm is left. Raises: Unavailable."""
        await aside.forget(self._store, PREFIX)
        self._aside.clear()

    @property
    def aside(self) -> list[str]:
        """The keys of all rows that are set aside."""
        return list(self._aside)

    # --- reading ------------------------------------------------------------------------------------------------

    @property
    def cluster(self) -> ClusterRow | None:
        """The swarm of this node; None when it is in none."""
        return next(iter(self.swarm), None)

    def require_cluster(self) -> ClusterRow:
        """Return this node's swarm. Raises: Unavailable outside a swarm."""
        cluster = self.cluster
        if cluster is None:
            raise not_manager()
        return cluster

    def tasks_of(self, service_id: str) -> list[TaskRow]:
        rows = self.tasks.rows
        return [rows[task_id] for task_id in self._of_service.get(service_id, ())]

    def service_ids(self) -> list[str]:
        """List the services that are there or have tasks left."""
        return list(dict.fromkeys((*self.services.rows, *(key for key, ids in self._of_service.items() if ids))))

    # --- writing ------------------------------------------------------------------------------------------------

    async def commit(self, change: Change) -> int:
        """Make a change durable; when this returns it is visible here and the watchers were told.

        The caller holds `lock`. Answers the new index (0 when there was nothing to write). Raises: Unavailable; then
        nothing has changed.
        """
        now_ns = time.time_ns()
        self._written = {}
        writes: list[Put | Delete] = []
        async for (name, row_id), row in paced(change.puts.items()):
            key, stamped = self._tables[name].key(row_id), self._stamped(name, row, now_ns)
            value = codec.encode(stamped)
            self._written[key] = (value, stamped)
            writes.append(Put(key, value))
        for name, row_id in change.deletes:
            if row_id in self._tables[name].rows:
                writes.append(Delete(self._tables[name].key(row_id)))
        if not writes and not change.events:
            return 0
        revision = await self._journal.commit(writes, change.events)
        while writes and self._revision < revision:
            await self._moved.wait()
        return revision

    def _stamped(self, name: str, row: Row, now_ns: int) -> Row:
        before = self._tables[name].get(row.id)
        created = before.created_ns if before is not None else row.created_ns or now_ns
        return replace(row, index=0, created_ns=created, updated_ns=now_ns)

    async def hold_alive(self, node_id: str, ttl_ns: int) -> LeaseId:
        """Grant a new lease on which the node's life hangs. Raises: Unavailable, LeaseLost."""
        lease = await self._store.grant(ttl_ns)
        await self._store.commit(Transaction([Put(self.alive.key(node_id), codec.encode(AliveRow(id=node_id)), lease)]))
        return lease

    def keep_alive(self, lease: LeaseId) -> None:
        """Keep the node's lease alive. Raises: LeaseLost."""
        self._store.keep_alive(lease)

    def _leave(self, row: TaskRow) -> None:
        ids = self._of_service[row.task.service_id]
        ids.pop(row.id, None)
        if not ids:
            del self._of_service[row.task.service_id]

    def everything(self) -> Iterable[tuple[Table[Any], str]]:
        """List the table and id of every row, for the end of a swarm."""
        return [(table, row_id) for table in self._tables.values() for row_id in table.rows]

    def newest_instant_ns(self) -> int:
        """Find the latest instant of the steady clock in the tables."""
        newest = [0]
        for row in self.tasks:
            newest += [row.task.created_at_ns, row.task.status.applied_at_ns]
        newest += [row.service.updated_at_ns for row in self.services]
        return max(newest)


@asynccontextmanager
async def open_state(store: Store, journal: Journal) -> AsyncIterator[ClusterState]:
    """Open the state as it is stored, and keep it so until the end of the block."""
    state = ClusterState(store, journal)
    await state.load()
    async with Background() as following:
        following.create_task(state.follow(), name="state of the cluster")
        yield state
