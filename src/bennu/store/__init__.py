"""Durable key-value state: revisions, transactions, one interface for one machine and for many."""

from bennu.store.base import Compare, CompareFailed, Delete, Entry, Put, Store, Transaction
from bennu.store.sqlite import SqliteStore, open_sqlite

__all__ = [
    "Compare",
    "CompareFailed",
    "Delete",
    "Entry",
    "Put",
    "SqliteStore",
    "Store",
    "Transaction",
    "open_sqlite",
]
