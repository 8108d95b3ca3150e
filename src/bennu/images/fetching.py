"""Brings one image in from wherever its blobs are: the configuration, then the layers that are missing."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from bennu.errors import BennuError
from bennu.images.image import parse_config
from bennu.images.images import Images
from bennu.images.layers import LayerHold
from bennu.images.manifests import Descriptor, Manifest
from bennu.images.pacing import Paced

MAX_CONFIG: Final = 4 << 20


class LayerPhase(StrEnum):
    """How far a layer is, in the words of `docker pull`."""

    FS_LAYER = "Pulling fs layer"
    EXISTS = "Already exists"
    WAITING = "Waiting"
    DOWNLOADING = "Downloading"
    RETRYING = "Retrying"
    VERIFYING = "Verifying Checksum"
    DOWNLOADED = "Download complete"
    EXTRACTING = "Extracting"
    DONE = "Pull complete"


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """Progress of one layer, in bytes; `blob` is its digest in the manifest."""

    blob: str
    phase: LayerPhase
    current: int = 0
    total: int = 0
    seconds: int = 0  # until the next attempt


@dataclass(frozen=True, slots=True)
class Fetched:
    """All layers are here and held; the configuration is not yet an image."""

    config: bytes


@dataclass(frozen=True, slots=True)
class Refetch:
    """A transfer broke off and goes on where it was, after so many seconds."""

    seconds: int


class Blobs(Protocol):
    """Where blobs are read from, by digest; who reads them checks it. Raises: BennuError."""

    def blob(self, digest: str, size: int) -> AsyncIterator[bytes | Refetch]:
        """Yield a blob's bytes as they come."""
        ...


async def fetch(
    images: Images, blobs: Blobs, manifest: Manifest, hold: LayerHold
) -> AsyncGenerator[FetchProgress | Fetched, None]:
    """Bring in all that is missing; the last item is `Fetched`. Raises: BennuError; whole layers then stay held."""
    assert manifest.config is not None
    layers = manifest.layers or []
    config = await _read_config(blobs, manifest.config)
    diff_ids: list[str] = parse_config(config)["rootfs"]["diff_ids"]
    if len(diff_ids) != len(layers):
        raise BennuError("invalid manifest: it does not have the layers of its configuration")
    images.missing(diff_ids, hold)
    queue: asyncio.Queue[FetchProgress | None] = asyncio.Queue()
    work = asyncio.ensure_future(_fetch_layers(images, blobs, layers, diff_ids, hold, queue))
    work.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (step := await queue.get()) is not None:
            yield step
        try:
            await work
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait([work])
    yield Fetched(config)


async def _read_config(blobs: Blobs, descriptor: Descriptor) -> bytes:
    data = b""
    async for part in blobs.blob(descriptor.digest, descriptor.size):
        data += part if isinstance(part, bytes) else b""
        if len(data) > MAX_CONFIG:
            raise BennuError("invalid manifest: the image's configuration is too large")
    if "sha256:" + hashlib.sha256(data).hexdigest() != descriptor.digest:
        raise BennuError(f"image config verification failed for digest {descriptor.digest}")
    return data


async def _fetch_layers(
    images: Images,
    blobs: Blobs,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[str],
    hold: LayerHold,
    queue: asyncio.Queue[FetchProgress | None],
) -> None:
    slots = asyncio.Semaphore(images.registries.downloads)
    async with asyncio.TaskGroup() as group:
        started: set[str] = set()
        for descriptor, diff_id in zip(layers, diff_ids, strict=True):
            if images.layers.get(diff_id) is not None:
                queue.put_nowait(FetchProgress(descriptor.digest, LayerPhase.EXISTS))
            elif diff_id not in started:
                started.add(diff_id)
                queue.put_nowait(FetchProgress(descriptor.digest, LayerPhase.FS_LAYER))
                group.create_task(LayerFetch(images, blobs, descriptor, diff_id, queue).run(hold, slots))


class LayerFetch:
    """Brings in one layer once: a second fetch of it waits for the first and finds it there."""

    def __init__(
        self,
        images: Images,
        blobs: Blobs,
        descriptor: Descriptor,
        diff_id: str,
        queue: asyncio.Queue[FetchProgress | None],
    ) -> None:
        self._images = images
        self._blobs = blobs
        self._descriptor = descriptor
        self._diff_id = diff_id
        self._queue = queue

    def _tell(self, phase: LayerPhase, current: int = 0, seconds: int = 0) -> None:
        total = self._descriptor.size if current else 0
        self._queue.put_nowait(FetchProgress(self._descriptor.digest, phase, current, total, seconds))

    def _counter(self, phase: LayerPhase) -> Callable[[int], None]:
        return Paced(lambda count: self._tell(phase, count), self._descriptor.size).count

    async def run(self, hold: LayerHold, slots: asyncio.Semaphore) -> None:
        """Bring the layer in and hold it. Raises: BennuError."""
        layers, digest = self._images.layers, self._descriptor.digest
        if slots.locked():
            self._tell(LayerPhase.WAITING)
        async with layers.coming(self._diff_id):
            if layers.get(self._diff_id) is None:
                async with slots:
                    draft = await layers.receive(self._parts(), self._counter(LayerPhase.DOWNLOADING))
                self._tell(LayerPhase.VERIFYING)
                if draft.digest != digest:
                    draft.path.unlink(missing_ok=True)
                    raise BennuError(f"filesystem layer verification failed for digest {digest}")
                self._tell(LayerPhase.DOWNLOADED)
                on_progress = self._counter(LayerPhase.EXTRACTING)
                await layers.add(draft, hold, diff_id=self._diff_id, on_progress=on_progress)
            self._tell(LayerPhase.DONE)

    async def _parts(self) -> AsyncIterator[bytes]:
        async for part in self._blobs.blob(self._descriptor.digest, self._descriptor.size):
            if isinstance(part, Refetch):
                self._tell(LayerPhase.RETRYING, seconds=part.seconds)
            else:
                yield part
