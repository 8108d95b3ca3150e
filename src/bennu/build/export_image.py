"""Makes an image of what a build gave: its layers packed, its configuration finished.

A layer that a step has written is packed once: its tar gives its digest, then its folder moves to the layers of images
(`Layers.adopt`), and whoever has an equal layer already keeps that.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final
from weakref import WeakValueDictionary

from bennu.build.cache import Cache
from bennu.build.snapshots import IMAGE_LAYER, StepSnapshot
from bennu.build.steps.trees import pack_step, tar_tree
from bennu.confined.client import measure_tree
from bennu.errors import BennuError
from bennu.images import Images
from bennu.images.layers import Adoption, LayerDraft, LayerHold

PACKED_AT_ONCE: Final = 4


class Exporter:
    """Packs layers of all builds of this host, each one once."""

    def __init__(self, images: Images, cache: Cache) -> None:
        self._images = images
        self._cache = cache
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def pack(self, snapshot: StepSnapshot, hold: LayerHold) -> list[str]:
        """Have all layers among those of images, held; answer their diff IDs, lowest first. Raises: BennuError."""
        own = sorted({layer for layer in snapshot.layers if not layer.startswith(IMAGE_LAYER)})
        async with AsyncExitStack() as stack:
            for layer in own:  # in one order: two builds that want the same layers wait for each other, not both
                await stack.enter_async_context(self._lock(layer))
            diff_ids = await asyncio.to_thread(self._diff_ids, snapshot.layers)
            missing = set(self._images.missing([diff_id for diff_id in diff_ids if diff_id], hold))
            for layer, diff_id in zip(snapshot.layers, diff_ids, strict=True):
                if layer == diff_id and layer in missing:
                    raise BennuError(f"layer {layer} is missing")
            known = dict(zip(snapshot.layers, diff_ids, strict=True))
            fresh = [layer for layer, diff_id in known.items() if not diff_id or diff_id in missing]
            known |= await self._pack_new(fresh, hold)
        return [known[layer] for layer in snapshot.layers]

    def _lock(self, layer: str) -> asyncio.Lock:
        lock = self._locks.get(layer)
        if lock is None:
            lock = self._locks[layer] = asyncio.Lock()
        return lock

    def _diff_ids(self, layers: Sequence[str]) -> list[str]:
        return [self._cache.snapshots.diff_id(layer) for layer in layers]

    async def _pack_new(self, fresh: Sequence[str], hold: LayerHold) -> dict[str, str]:
        """Pack layers, several at a time, and keep them; answer their diff IDs by the layers."""
        snapshots = self._cache.snapshots
        turns = asyncio.Semaphore(PACKED_AT_ONCE)

        async def pack_one(layer: str) -> Adoption:
            folder = snapshots.folder(layer)
            async with turns:
                draft = await self._images.layers.receive(pack_step(folder))
                drafts.append(draft)
                return Adoption(draft, snapshots.path(layer), await measure_tree(folder))

        drafts: list[LayerDraft] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(pack_one(layer)) for layer in fresh]
        except BaseException as error:
            for draft in drafts:
                draft.path.unlink(missing_ok=True)
            raise (error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error) from None
        kept = await self._images.layers.adopt([task.result() for task in tasks], hold)
        made = {layer: one.diff_id for layer, one in zip(fresh, kept, strict=True)}
        for layer, diff_id in made.items():
            if not snapshots.is_moved(layer):
                await asyncio.to_thread(snapshots.note_diff_id, layer, diff_id)
        return made

    async def squash(self, snapshot: StepSnapshot, hold: LayerHold) -> str:
        """Make one layer of all that is in a root filesystem; answer its diff ID."""
        draft = await self._images.layers.receive(tar_tree(self._cache.snapshots.folders(snapshot)))
        return (await self._images.layers.add(draft, hold)).diff_id
