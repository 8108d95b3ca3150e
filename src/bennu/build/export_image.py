"""Makes an image of what a build gave: its layers packed, its configuration finished.

A layer that a step has written is packed once: its tar gives its digest, then its folder moves to the layers of images
(`Layers.adopt`), and whoever has an equal layer already keeps that.
"""

import asyncio
from weakref import WeakValueDictionary

from bennu.build.cache import Cache
from bennu.build.snapshots import IMAGE_LAYER, StepSnapshot
from bennu.build.steps.trees import pack_step, tar_tree
from bennu.confined.client import measure_tree
from bennu.errors import BennuError
from bennu.images import Images
from bennu.images.layers import LayerHold


class Exporter:
    """Packs layers of all builds of this host, each one once."""

    def __init__(self, images: Images, cache: Cache) -> None:
        self._images = images
        self._cache = cache
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def pack(self, snapshot: StepSnapshot, hold: LayerHold) -> list[str]:
        """Have all layers among those of images, held; answer their diff IDs, lowest first. Raises: BennuError."""
        return [await self._pack(layer, hold) for layer in snapshot.layers]

    async def _pack(self, layer: str, hold: LayerHold) -> str:
        if layer.startswith(IMAGE_LAYER):
            if self._images.missing([layer], hold):
                raise BennuError(f"layer {layer} is missing")
            return layer
        lock = self._locks.get(layer)
        if lock is None:
            lock = self._locks[layer] = asyncio.Lock()
        async with lock:
            known = await asyncio.to_thread(self._cache.snapshots.diff_id, layer)
            if known and not self._images.missing([known], hold):
                return known
            return await self._pack_new(layer, hold)

    async def _pack_new(self, layer: str, hold: LayerHold) -> str:
        snapshots, layers = self._cache.snapshots, self._images.layers
        folder = snapshots.folder(layer)
        draft = await layers.receive(pack_step(folder))
        size = await measure_tree(folder)
        kept = await layers.adopt(draft, snapshots.path(layer), hold, size)
        if not snapshots.is_moved(layer):
            await asyncio.to_thread(snapshots.note_diff_id, layer, kept.diff_id)
        return kept.diff_id

    async def squash(self, snapshot: StepSnapshot, hold: LayerHold) -> str:
        """Make one layer of all that is in a root filesystem; answer its diff ID."""
        draft = await self._images.layers.receive(tar_tree(self._cache.snapshots.folders(snapshot)))
        return (await self._images.layers.add(draft, hold)).diff_id
