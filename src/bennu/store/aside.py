"""Records that this bennud can make nothing of: set aside, told, and never lost.

Law: one record's trouble is that record's alone. What cannot be decoded, or cannot be taken up, is moved as it is to
where nobody looks for it, with the reason beside it; everything else goes on without. Each start tries again: a record
that only a newer bennud understood is back when that one returns, and so is one that somebody has mended.

    set-aside/KEY       the value of KEY, byte for byte
    set-aside-why/KEY   what was wrong with it, in words
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from bennu.errors import Unavailable
from bennu.store.base import Delete, Entry, Put, Store, Transaction

PREFIX: Final = "set-aside/"
REASONS: Final = "set-aside-why/"
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetAside:
    """One of them: its key when it was in its place, and why it is not any more."""

    key: str
    reason: str

    def __str__(self) -> str:
        return f"the record {self.key} is set aside: {self.reason}"


async def put_back(store: Store) -> None:
    """Put all that is set aside back, to be tried again; what has a newer record in its place stays aside."""
    for entry in await store.read_prefix(PREFIX):
        key = entry.key.removeprefix(PREFIX)
        if await store.read(key) is None:
            await store.commit(Transaction([Put(key, entry.value), Delete(entry.key), Delete(REASONS + key)]))


async def set_aside(store: Store, entry: Entry, error: Exception) -> None:
    """Set a record aside. Never raises.

    A store that cannot write now keeps the record in its place, where the next start finds it.
    """
    found = SetAside(entry.key, f"{type(error).__name__}: {error}")
    log.error("%s", found)
    writes: list[Put | Delete] = [
        Put(PREFIX + entry.key, entry.value),
        Put(REASONS + entry.key, found.reason.encode(errors="replace")),
        Delete(entry.key),
    ]
    try:
        await store.commit(Transaction(writes))
    except Unavailable as refusal:
        log.error("the record %s stays where it is: %s", entry.key, refusal)


async def read_aside(store: Store, prefix: str = "") -> list[SetAside]:
    """List all that is set aside, or only what was under `prefix`."""
    start = REASONS + prefix
    return [
        SetAside(entry.key.removeprefix(REASONS), entry.value.decode(errors="replace"))
        for entry in await store.read_prefix(start)
    ]


async def forget(store: Store, prefix: str) -> None:
    """Delete for good what is set aside of `prefix`; only when a person asks for it. Raises: Unavailable."""
    keys = [one.key for one in await read_aside(store, prefix)]
    await store.commit(Transaction([Delete(start + key) for key in keys for start in (PREFIX, REASONS)]))


async def take_in(store: Store, entries: Iterable[Entry], read: Callable[[Entry], T]) -> list[T]:
    """Read each entry with `read`, in their order; an entry on which it raises is set aside."""
    found: list[T] = []
    for entry in entries:
        try:
            found.append(read(entry))
        except Exception as error:  # whatever is wrong with one record, the others are taken in
            await set_aside(store, entry, error)
    return found


async def load(store: Store, prefix: str, read: Callable[[bytes], T]) -> list[T]:
    """Read with `take_in` all values under `prefix`."""
    return await take_in(store, await store.read_prefix(prefix), lambda entry: read(entry.value))
