"""Durable key-value state, shaped like etcd: one interface for one machine and for many."""

from bennu.store.base import (
    NO_LEASE,
    Changes,
    Compacted,
    Compare,
    CompareFailed,
    Delete,
    Entry,
    LeaseId,
    LeaseLost,
    Put,
    Snapshot,
    Store,
    Transaction,
)
from bennu.store.mark import mark_of
from bennu.store.opening import cure, has_database
from bennu.store.salvage import judge, put_database_aside, read_what_is_left
from bennu.store.sqlite import SqliteStore, open_sqlite

__all__ = [
    "NO_LEASE",
    "Changes",
    "Compacted",
    "Compare",
    "CompareFailed",
    "Delete",
    "Entry",
    "LeaseId",
    "LeaseLost",
    "Put",
    "Snapshot",
    "SqliteStore",
    "Store",
    "Transaction",
    "cure",
    "has_database",
    "judge",
    "mark_of",
    "open_sqlite",
    "put_database_aside",
    "read_what_is_left",
]
