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
    "open_sqlite",
]
