"""The cluster's state: durable in the store under `cluster/`, and whole in memory.

Laws.
* A change is on disk, together with the events that announce it, before anybody sees it.
* One writer at a time: whoever reads in order to write holds `lock` from the read to the commit.
* Every row of one transaction gets the same index, the store's revision; indexes of later ones are larger.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from bennu.cluster import codec
from bennu.cluster.errors import not_found, not_manager
from bennu.cluster.records import BlobRow, ClusterRow, NodeRow, Row, ServiceRow, TaskRow
from bennu.engine.events import Event, Journal
from bennu.errors import InvalidParameter
from bennu.store import Delete, Put, Store

PREFIX: Final = "cluster/"
R = TypeVar("R", bound=Row)


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
        """By full id, exact name, or unique beginning of an id. Raises: NotFound, InvalidParameter (ambiguous)."""
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
    """One transaction being prepared. A row put twice is written once, as it was put last."""

    puts: dict[tuple[str, str], Row] = field(default_factory=dict)
    deletes: dict[tuple[str, str], None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def put(self, table: Table[R], row: R) -> None:
        self.deletes.pop((table.name, row.id), None)
        self.puts[table.name, row.id] = row

    def delete(self, table: Table[R], row_id: str) -> None:
        self.puts.pop((table.name, row_id), None)
        self.deletes[table.name, row_id] = None

    @property
    def is_empty(self) -> bool:
        return not (self.puts or self.deletes or self.events)


@dataclass(frozen=True, slots=True)
class Changed:
    """What a watcher is told: a row before and after; None: was, or is, not there."""

    table: str
    row_id: str
    before: Row | None
    after: Row | None


Watcher = Callable[[list[Changed]], None]


class State:
    """All tables. `open` first."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self.lock = asyncio.Lock()
        self.services = Table("services", ServiceRow)
        self.tasks = Table("tasks", TaskRow)
        self.nodes = Table("nodes", NodeRow)
        self.secrets = Table("secrets", BlobRow)
        self.configs = Table("configs", BlobRow)
        self.swarm = Table("swarm", ClusterRow)
        self._tables: dict[str, Table[Any]] = {
            table.name: table
            for table in (self.services, self.tasks, self.nodes, self.secrets, self.configs, self.swarm)
        }
        self._of_service: dict[str, dict[str, None]] = defaultdict(dict)
        self.watchers: list[Watcher] = []

    async def open(self) -> None:
        for table in self._tables.values():
            prefix = table.key("")
            for entry in await self._store.read_prefix(prefix):
                row = codec.decode(table.kind, entry.value)
                self._enter(table, replace(row, index=entry.revision))

    @property
    def cluster(self) -> ClusterRow | None:
        """This node's swarm; None when it is in none."""
        return next(iter(self.swarm), None)

    def require_cluster(self) -> ClusterRow:
        """Raises: Unavailable outside a swarm."""
        cluster = self.cluster
        if cluster is None:
            raise not_manager()
        return cluster

    def tasks_of(self, service_id: str) -> list[TaskRow]:
        rows = self.tasks.rows
        return [rows[task_id] for task_id in self._of_service.get(service_id, ())]

    def service_ids(self) -> list[str]:
        """Services that are there or have tasks left."""
        return list(dict.fromkeys((*self.services.rows, *(key for key, ids in self._of_service.items() if ids))))

    async def commit(self, change: Change) -> int:
        """Make it durable, then visible, then known to the watchers. The caller holds `lock`.

        Answers the new index (0 when there was nothing to write). Raises: Unavailable; then nothing has changed.
        """
        if change.is_empty:
            return 0
        now_ns = time.time_ns()
        rows = {key: self._stamped(key, row, now_ns) for key, row in change.puts.items()}
        writes: list[Put | Delete] = [
            Put(self._tables[name].key(row_id), codec.encode(replace(row, index=0)))
            for (name, row_id), row in rows.items()
        ]
        writes += [Delete(self._tables[name].key(row_id)) for name, row_id in change.deletes]
        revision = await self._journal.commit(writes, change.events)
        told: list[Changed] = []
        for (name, row_id), row in rows.items():
            table = self._tables[name]
            before = table.get(row_id)
            after = replace(row, index=revision)
            self._enter(table, after)
            told.append(Changed(name, row_id, before, after))
        for name, row_id in change.deletes:
            before = self._tables[name].rows.pop(row_id, None)
            if isinstance(before, TaskRow):
                self._leave(before)
            told.append(Changed(name, row_id, before, None))
        for watcher in list(self.watchers):
            watcher(told)
        return revision

    def _stamped(self, key: tuple[str, str], row: Row, now_ns: int) -> Row:
        before = self._tables[key[0]].get(key[1])
        created = before.created_ns if before is not None else row.created_ns or now_ns
        return replace(row, created_ns=created, updated_ns=now_ns)

    def _enter(self, table: Table[Any], row: Row) -> None:
        table.rows[row.id] = row
        if isinstance(row, TaskRow):
            self._of_service[row.task.service_id][row.id] = None

    def _leave(self, row: TaskRow) -> None:
        ids = self._of_service[row.task.service_id]
        ids.pop(row.id, None)
        if not ids:
            del self._of_service[row.task.service_id]

    def everything(self) -> Iterable[tuple[Table[Any], str]]:
        """All there is, for the end of a swarm."""
        return [(table, row_id) for table in self._tables.values() for row_id in table.rows]

    def newest_instant_ns(self) -> int:
        """The latest instant of the steady clock found in here."""
        newest = [0]
        for row in self.tasks:
            newest += [row.task.created_at_ns, row.task.status.applied_at_ns]
        newest += [row.service.updated_at_ns for row in self.services]
        return max(newest)
