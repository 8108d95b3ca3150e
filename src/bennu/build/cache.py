"""The build cache: which step on which input gave which layer.

    build/records/<id>   a `CacheRecord`; <id> is the layer's own (`snapshots.py`)

A record is written when its layer is there, and goes before it: a daemon that is killed leaves whole records, or layers
without one, which the next start removes. What a power failure may have taken is known by its boot.

A key names the layers that a step began from by their own ids, which no second run has: a record is never taken for the
result of other input, however that came to be.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from typing import Final

import msgspec

from bennu.build.snapshots import IMAGE_LAYER, Snapshots, StepSnapshot
from bennu.build.usage import UsageRecord
from bennu.confined.client import measure_tree
from bennu.errors import Unavailable
from bennu.images.layers import Layers
from bennu.store import Delete, Put, Store, Transaction

RECORDS: Final = "build/records/"
log = logging.getLogger(__name__)


class CacheRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known of one layer that a step has written."""

    id: str
    key: str
    layers: list[str]  # of the whole root filesystem, lowest first; the last one is its own
    description: str = ""
    created_ns: int = 0
    used_ns: int = 0  # when it was last used
    uses: int = 0  # how often it was, beside its making
    size: int = -1  # bytes of its files; -1: not measured yet
    kind: str = "regular"
    boot: str = ""  # the boot it was written in, as long as a power failure could take the layer

    @property
    def snapshot(self) -> StepSnapshot:
        return StepSnapshot(tuple(self.layers))


class Cache:
    """All records; lives in one event loop."""

    def __init__(self, store: Store, snapshots: Snapshots, layers: Layers, boot: str) -> None:
        self.snapshots = snapshots
        self._boot = boot
        self._store = store
        self._layers = layers
        self._records: dict[str, CacheRecord] = {}
        self._by_key: dict[str, str] = {}
        self._held: Counter[str] = Counter()
        self._dirty: set[str] = set()  # records that are not on the disk as they are
        self._writing = asyncio.Lock()

    # --- start ------------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Read the records. To be done before the images open, which keep the layers of `wanted`."""
        for entry in await self._store.read_prefix(RECORDS):
            try:
                record = msgspec.json.decode(entry.value, type=CacheRecord)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("a record of the build cache is given up: %s", error)
                continue
            self._records[record.id] = record

    async def open(self) -> None:
        """Give up records whose layers are not all there, and layers without a record. The images are open."""
        there = set(await asyncio.to_thread(self.snapshots.open))
        broken = {one.id for one in self._records.values() if not self._is_whole(one, there)}
        unknown = {entry.key.removeprefix(RECORDS) for entry in await self._store.read_prefix(RECORDS)}
        unknown -= self._records.keys()
        if broken or unknown:
            writes = [Delete(RECORDS + one) for one in broken | unknown]
            await self._store.commit(Transaction(writes))
        for one in broken:
            del self._records[one]
        for record in sorted(self._records.values(), key=lambda one: one.created_ns):
            self._by_key[record.key] = record.id
        names = await asyncio.to_thread(self.snapshots.names)
        await self.snapshots.remove(set(names) - self._records.keys())

    def _is_whole(self, record: CacheRecord, there: Collection[str]) -> bool:
        for layer in record.layers:
            known = self._layers.get(layer) is not None if layer.startswith(IMAGE_LAYER) else layer in there
            if not known or (not layer.startswith(IMAGE_LAYER) and layer not in self._records):
                return False
        return record.layers[-1:] == [record.id] and record.boot in ("", self._boot)

    def wanted(self) -> Set[str]:
        """List the layers of images that records need."""
        layers = {layer for record in self._records.values() for layer in record.layers}
        return {layer for layer in map(self._lies_in, layers) if layer}

    def _lies_in(self, layer: str) -> str:
        if layer.startswith(IMAGE_LAYER) or self.snapshots.is_moved(layer):
            return self.snapshots.diff_id(layer)
        return ""

    # --- what steps ask -----------------------------------------------------------------------------------------------

    def find(self, key: str) -> CacheRecord | None:
        found = self._by_key.get(key)
        return self._records[found] if found is not None else None

    def get(self, layer: str) -> CacheRecord | None:
        return self._records.get(layer)

    def oldest_first(self) -> Sequence[CacheRecord]:
        """List all records."""
        return sorted(self._records.values(), key=lambda one: (one.created_ns, one.id))

    def use(self, record: CacheRecord) -> None:
        """Note that a build took a result from here."""
        record.used_ns, record.uses = time.time_ns(), record.uses + 1
        self._dirty.add(record.id)

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[Iterable[str]], None]]:
        """Keep layers for the block, as they are told to what this gives."""
        mine: list[str] = []

        def hold(layers: Iterable[str]) -> None:
            for layer in layers:
                self._held[layer] += 1
                mine.append(layer)

        try:
            yield hold
        finally:
            for layer in mine:
                self._held[layer] -= 1

    def is_used(self, record: CacheRecord) -> bool:
        """Tell whether a build that runs needs it."""
        return self._held[record.id] > 0

    async def add(self, record: CacheRecord) -> None:
        """Put down a layer that was just kept. Raises: Unavailable; then the caller removes the layer."""
        record.boot = self._boot
        await self._store.commit(Transaction([Put(RECORDS + record.id, msgspec.json.encode(record))], adds=True))
        self._records[record.id] = record
        self._dirty.add(record.id)
        self._by_key[record.key] = record.id

    async def flush(self) -> None:
        """Have on the disk, whatever happens, what builds have made and used so far; what fails is tried again."""
        dirty, self._dirty = self._dirty, set()
        try:
            await self._flush([self._records[one] for one in dirty if one in self._records])
        except (Unavailable, OSError) as error:
            self._dirty |= dirty
            log.warning("the records of the build cache were not written: %s", error)

    async def _flush(self, found: Sequence[CacheRecord]) -> None:
        fresh = [record for record in found if record.boot]
        if fresh:
            await self.snapshots.sync()
        async with self._writing:
            for record in fresh:
                record.boot = ""
            left = [record for record in found if record.id in self._records]
            if left:
                writes = [Put(RECORDS + record.id, msgspec.json.encode(record)) for record in left]
                await self._store.commit(Transaction(writes))

    async def remove(self, wanted: Collection[str]) -> list[str]:
        """Forget records and remove their layers; answer which.

        What a build needs stays, and so does what another record needs that stays.
        """
        doomed = set(wanted) & self._records.keys()
        kept = {layer for one in self._records.values() if one.id not in doomed for layer in one.layers}
        kept |= {layer for one in doomed if self._held[one] > 0 for layer in self._records[one].layers}
        doomed -= kept
        gone = {one: self._records.pop(one) for one in doomed}
        for record in gone.values():
            if self._by_key.get(record.key) == record.id:
                del self._by_key[record.key]
        async with self._writing:
            await self._store.commit(Transaction([Delete(RECORDS + one) for one in doomed]))
            await self.snapshots.remove(doomed)
        return list(doomed)

    # --- what it takes ------------------------------------------------------------------------------------------------

    async def measure(self, record: CacheRecord) -> int:
        """Count the bytes of its files."""
        if record.size < 0:
            record.size = max(0, await measure_tree(self.snapshots.folder(record.id)))
            self._dirty.add(record.id)
        return record.size

    async def usage(self, shared: Collection[str]) -> Sequence[UsageRecord]:
        """List what the records take; `shared`: diff IDs of the layers that images have."""
        found = []
        for record in self.oldest_first():
            size = await self.measure(record)
            diff_id = self._lies_in(record.id)
            usage = UsageRecord(
                id=record.id,
                description=record.description,
                kind=record.kind,
                parents=tuple(layer for layer in record.layers[:-1] if layer in self._records),
                size=size,
                created_ns=record.created_ns,
                used_ns=record.used_ns,
                uses=record.uses,
                in_use=self.is_used(record),
                shared=diff_id in shared,
            )
            found.append(usage)
        return found
