"""Makes an image of what a build gave: its layers packed, its configuration finished.

A layer that a step has written is packed once: its tar gives its digest, then its folder moves to the layers of images
(`Layers.adopt`), and whoever has an equal layer already keeps that.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from bennu.build.cache import Cache
from bennu.build.snapshots import IMAGE_LAYER, StepSnapshot
from bennu.build.steps.trees import Folders, tar_tree
from bennu.confined.client import HELPER, Failure, Folder, Overlaid, measure_tree
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
            fresh: dict[str, int] = {}
            for place, diff_id in enumerate(diff_ids):
                if not diff_id or diff_id in missing:
                    fresh.setdefault(snapshot.layers[place], place)
            made = dict(zip(fresh, await self._pack_new(snapshot, list(fresh.values()), hold), strict=True))
        return [made.get(layer, diff_id) for layer, diff_id in zip(snapshot.layers, diff_ids, strict=True)]

    def _lock(self, layer: str) -> asyncio.Lock:
        lock = self._locks.get(layer)
        if lock is None:
            lock = self._locks[layer] = asyncio.Lock()
        return lock

    def _diff_ids(self, layers: Sequence[str]) -> list[str]:
        return [self._cache.snapshots.diff_id(layer) for layer in layers]

    async def _pack_new(self, snapshot: StepSnapshot, places: Sequence[int], hold: LayerHold) -> list[str]:
        """Pack the layers at these places, several at a time, and keep them; answer their diff IDs."""
        snapshots = self._cache.snapshots
        turns = asyncio.Semaphore(PACKED_AT_ONCE)

        async def pack_one(place: int) -> Adoption:
            layer, below = snapshot.layers[place], StepSnapshot(snapshot.layers[:place])
            folder = snapshots.folder(layer)
            async with turns:
                draft = await self._images.layers.receive(pack_layer(snapshots.folders(below), folder))
                drafts.append(draft)
                return Adoption(draft, snapshots.path(layer), await measure_tree(folder))

        drafts: list[LayerDraft] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(pack_one(place)) for place in places]
        except BaseException as error:
            for draft in drafts:
                draft.path.unlink(missing_ok=True)
            raise (error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error) from None
        kept = await self._images.layers.adopt([task.result() for task in tasks], hold)
        for place, layer in zip(places, kept, strict=True):
            if not snapshots.is_moved(snapshot.layers[place]):
                await asyncio.to_thread(snapshots.note_diff_id, snapshot.layers[place], layer.diff_id)
        return [layer.diff_id for layer in kept]

    async def squash(self, snapshot: StepSnapshot, hold: LayerHold) -> str:
        """Make one layer of all that is in a root filesystem; answer its diff ID."""
        draft = await self._images.layers.receive(tar_tree(self._cache.snapshots.folders(snapshot)))
        return (await self._images.layers.add(draft, hold)).diff_id


async def pack_layer(below: Folders, folder: Path) -> AsyncIterator[bytes]:
    """Give what a step has written as a layer's tar. `below`: what it began from. Raises: BennuError."""
    trees = (Folder(folder), Overlaid(tuple(below)))
    try:
        async with HELPER.begin("pack_layer", *trees, enter=False, output=True, lowers=["."]) as session:
            assert session.output is not None
            while data := await session.output.read(1 << 20):
                yield data
            await session.result()
    except Failure as failure:
        raise BennuError(f"cannot read what was written: {failure}") from failure
