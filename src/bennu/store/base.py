"""Durable state: keys, revisions and transactions, shaped like etcd so that a cluster can use etcd itself.

Keys are `/`-separated text, values are bytes. Each committed transaction is one revision; a key remembers the
revision of its last change. Nothing is acknowledged before it is on disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bennu.errors import Conflict


class CompareFailed(Conflict):
    """A key was not at the revision the transaction required; nothing was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands; `revision` is that of its last change."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Best effort: deleting an absent key is no error."""

    key: str


@dataclass(frozen=True, slots=True)
class Compare:
    """The transaction happens only if `key` was last changed at `revision`; 0 means: does not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """All of it or none of it."""

    writes: Sequence[Put | Delete]
    compares: Sequence[Compare] = field(default=())


class Store(Protocol):
    """What the engine and the cluster ask of durable state."""

    async def read(self, key: str) -> Entry | None: ...

    async def read_prefix(self, prefix: str, *, after: str = "", limit: int = 0) -> list[Entry]:
        """Entries under `prefix` in order of their keys; only keys greater than `after`; 0 = no limit."""
        ...

    async def count_prefix(self, prefix: str) -> int:
        """How many keys there are under `prefix`."""
        ...

    async def commit(self, transaction: Transaction) -> int:
        """Write it durably and answer its revision.

        Raises: CompareFailed (nothing written); Unavailable with the reason, when the disk refuses (nothing written).
        A cancellation does not undo: the write may or may not have happened.
        """
        ...
