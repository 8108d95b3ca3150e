"""Brings one image in from anywhere skopeo reaches: manifest, configuration, then the layers that are missing."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from bennu.errors import BennuError
from bennu.images.image import parse_config
from bennu.images.images import Images
from bennu.images.layers import LayerHold
from bennu.images.loading import Descriptor, Manifest, choose_platform
from bennu.images.skopeo import ImageProxy, Source, read_manifest

MAX_CONFIG: Final = 4 << 20
DIGEST_FORM: Final = "sha256:"


class LayerPhase(StrEnum):
    """How far a layer is, in the words of `docker pull`."""

    FS_LAYER = "Pulling fs layer"
    EXISTS = "Already exists"
    WAITING = "Waiting"
    DOWNLOADING = "Downloading"
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


@dataclass(frozen=True, slots=True)
class Fetched:
    """All layers are here and held; the configuration is not yet an image."""

    config: bytes


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest or a list of manifests. Raises: BennuError."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BennuError(f"invalid manifest: {error}") from None
    if manifest.config is None and manifest.manifests is None:
        raise BennuError("unsupported manifest: only Docker's schema 2 and OCI's are supported")
    descriptors = [manifest.config] if manifest.config else []
    for descriptor in [*descriptors, *(manifest.layers or []), *(manifest.manifests or [])]:
        if not descriptor.digest.startswith(DIGEST_FORM) or len(descriptor.digest) != 71:
            raise BennuError(f"invalid manifest: unsupported digest {descriptor.digest}")
    return manifest


async def resolve_manifest(source: Source, at: str) -> tuple[bytes, Manifest]:
    """Answer what the source names, and the manifest of the image for this machine.

    `at` is the location without tag, to which a digest can be appended; "" if there can be no list.
    """
    raw = await read_manifest(source)
    manifest = parse_manifest(raw)
    if manifest.manifests is not None and at:
        chosen = choose_platform(manifest.manifests)
        inner = Source(f"{at}@{chosen.digest}", source.options, source.env, source.reference)
        manifest = parse_manifest(await read_manifest(inner))
    if manifest.config is None:
        raise BennuError("invalid manifest: it names no configuration")
    return raw, manifest


async def fetch(
    images: Images, source: Source, manifest: Manifest, hold: LayerHold
) -> AsyncGenerator[FetchProgress | Fetched, None]:
    """Bring in all that is missing; the last item is `Fetched`. Raises: BennuError; whole layers then stay held."""
    assert manifest.config is not None
    layers = manifest.layers or []
    async with ImageProxy(source) as proxy:
        config = await _read_config(proxy, manifest.config)
        diff_ids: list[str] = parse_config(config)["rootfs"]["diff_ids"]
        if len(diff_ids) != len(layers):
            raise BennuError("invalid manifest: it does not have the layers of its configuration")
        images.missing(diff_ids, hold)
        queue: asyncio.Queue[FetchProgress | None] = asyncio.Queue()
        work = asyncio.ensure_future(_fetch_layers(images, proxy, layers, diff_ids, hold, queue))
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


async def _read_config(proxy: ImageProxy, descriptor: Descriptor) -> bytes:
    data = b""
    async for part in proxy.blob(descriptor.digest, descriptor.size):
        data += part
        if len(data) > MAX_CONFIG:
            raise BennuError("invalid manifest: the image's configuration is too large")
    if "sha256:" + hashlib.sha256(data).hexdigest() != descriptor.digest:
        raise BennuError(f"image config verification failed for digest {descriptor.digest}")
    return data


async def _fetch_layers(
    images: Images,
    proxy: ImageProxy,
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
                group.create_task(_fetch_layer(images, proxy, descriptor, diff_id, hold, queue, slots))


async def _fetch_layer(
    images: Images,
    proxy: ImageProxy,
    descriptor: Descriptor,
    diff_id: str,
    hold: LayerHold,
    queue: asyncio.Queue[FetchProgress | None],
    slots: asyncio.Semaphore,
) -> None:
    """Bring in one layer once: a second fetch of it waits for the first and finds it there."""

    def tell(phase: LayerPhase, current: int = 0) -> None:
        queue.put_nowait(FetchProgress(descriptor.digest, phase, current, descriptor.size if current else 0))

    if slots.locked():
        tell(LayerPhase.WAITING)
    async with images.layers.coming(diff_id):
        if images.layers.get(diff_id) is None:
            async with slots:
                draft = await images.layers.receive(
                    proxy.blob(descriptor.digest, descriptor.size), lambda count: tell(LayerPhase.DOWNLOADING, count)
                )
            tell(LayerPhase.VERIFYING)
            if draft.digest != descriptor.digest:
                draft.path.unlink(missing_ok=True)
                raise BennuError(f"filesystem layer verification failed for digest {descriptor.digest}")
            tell(LayerPhase.DOWNLOADED)
            await images.layers.add(
                draft, hold, diff_id=diff_id, on_progress=lambda count: tell(LayerPhase.EXTRACTING, count)
            )
        tell(LayerPhase.DONE)
