"""Remembers which registries have a layer, and under which digest: what was pulled or pushed is not sent again.

A layer's tar is compressed on its way to a registry, so that its digest there is another one, which costs as much to
find out as sending it. As moby `distribution/metadata/v2_metadata_service.go`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from bennu.store import Delete, Put, Store, Transaction, aside

PREFIX: Final = "images/remote/"
MOST: Final = 50  # of one layer; the oldest is forgotten first


class RemoteBlob(msgspec.Struct, frozen=True):
    """A blob that a registry has; `repository` is in full, with its domain."""

    digest: str
    size: int
    repository: str


class RemoteBlobs(msgspec.Struct):
    diff_id: str
    blobs: list[RemoteBlob]  # the youngest last


class RemoteLayers:
    """What is known of each layer, by diff ID; for one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, list[RemoteBlob]] = {}

    async def open(self) -> None:
        for entry in await aside.load(self._store, PREFIX, msgspec.json.Decoder(RemoteBlobs).decode):
            self._known[entry.diff_id] = entry.blobs

    def of(self, diff_id: str) -> Sequence[RemoteBlob]:
        """List where a layer was seen, the youngest first."""
        return self._known.get(diff_id, [])[::-1]

    async def note(self, seen: Iterable[tuple[str, RemoteBlob]]) -> None:
        """Note layers, by diff ID, that a registry has."""
        changed: dict[str, list[RemoteBlob]] = {}
        for diff_id, blob in seen:
            known = changed.get(diff_id) or self._known.get(diff_id, [])
            if not known or known[-1] != blob:
                changed[diff_id] = [*(one for one in known if one != blob), blob][-MOST:]
        if changed:
            self._known |= changed
            puts = [Put(_key(key), msgspec.json.encode(RemoteBlobs(key, blobs))) for key, blobs in changed.items()]
            await self._store.commit(Transaction(puts, adds=True))

    async def forget(self, diff_ids: Iterable[str]) -> None:
        """Forget layers that are gone."""
        gone = [diff_id for diff_id in diff_ids if self._known.pop(diff_id, None)]
        if gone:
            await self._store.commit(Transaction([Delete(_key(diff_id)) for diff_id in gone]))

    async def forget_blob(self, diff_id: str, blob: RemoteBlob) -> None:
        """Forget what turned out to be no longer there."""
        left = [one for one in self._known.get(diff_id, []) if one != blob]
        if not left:
            await self.forget([diff_id])
        elif len(left) != len(self._known[diff_id]):
            self._known[diff_id] = left
            put = Put(_key(diff_id), msgspec.json.encode(RemoteBlobs(diff_id, left)))
            await self._store.commit(Transaction([put], adds=True))


def _key(diff_id: str) -> str:
    return PREFIX + diff_id.removeprefix("sha256:")
