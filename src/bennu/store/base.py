"""Durable state: keys, revisions, transactions, watches and leases, shaped like etcd so that a cluster can use etcd.

Keys are `/`-separated text, values are bytes. Each committed transaction is one revision; a key remembers the
revision of its last change. Nothing is acknowledged before it is on disk.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

from bennu.errors import BennuError, Conflict, NotFound

LeaseId = NewType("LeaseId", int)
NO_LEASE = LeaseId(0)


class CompareFailed(Conflict):
    """A key was not at the revision the transaction required; nothing was written."""


class LeaseLost(NotFound):
    """The lease was revoked, ran out, or never was; nothing was written."""


class Compacted(BennuError):
    """What followed this revision is not kept any more: take a snapshot and watch on from there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands; `revision` is that of its last change."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries under a prefix, in order of their keys, as they stood at one revision of the store."""

    revision: int
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Put:
    """A key with a lease vanishes with it; a later put without one keeps the key for good."""

    key: str
    value: bytes
    lease: LeaseId = NO_LEASE


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
    """All of it or none of it.

    `adds`: it makes something that was not there before. A store that is short of room refuses such, and takes what
    room it has kept for all others: the deaths, stops and removals of what there is.
    """

    writes: Sequence[Put | Delete]
    compares: Sequence[Compare] = field(default=())
    adds: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction did to the keys under a prefix: each key as it was left; None: it is gone."""

    revision: int
    values: dict[str, bytes | None]


class Store(Protocol):
    """What the engine and the cluster ask of durable state."""

    async def read(self, key: str) -> Entry | None: ...

    async def read_prefix(self, prefix: str, *, after: str = "", limit: int = 0) -> list[Entry]:
        """Read the entries under `prefix` in order of their keys, only keys greater than `after`; 0 = no limit."""
        ...

    async def snapshot(self, prefix: str) -> Snapshot:
        """Read where a watch begins: `watch(prefix, after=snapshot.revision)` tells all that this does not show."""
        ...

    async def count_prefix(self, prefix: str) -> int:
        """Count the keys under `prefix`."""
        ...

    async def commit(self, transaction: Transaction) -> int:
        """Write it durably and answer its revision.

        Raises: CompareFailed, LeaseLost (nothing written); Unavailable with the reason, when the disk refuses
        (nothing written). A cancellation does not undo: the write may or may not have happened.
        """
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Changes, None]:
        """Yield every transaction later than revision `after` that changed keys under `prefix`, in order, without end.

        Resumable: a reader that goes on with `after` the last revision it was told misses nothing, hears nothing twice.
        Raises: Compacted, when `after` lies before what is kept.
        """
        ...

    async def grant(self, ttl_ns: int) -> LeaseId:
        """Grant a lease that ends `ttl_ns` after its last sign of life, and takes its keys with it.

        It outlives the store's own restart, and then has its whole time again: the store judges only the silence that
        it was there to hear. Raises: Unavailable.
        """
        ...

    def keep_alive(self, lease: LeaseId) -> None:
        """Give a sign of life; costs no write. Raises: LeaseLost."""
        ...

    async def revoke(self, lease: LeaseId) -> None:
        """End it now; its keys go in one transaction. Raises: LeaseLost, Unavailable."""
        ...
