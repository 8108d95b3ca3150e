"""`docker push`: sends an image to its registry, each layer only if the registry does not have it yet."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from bennu.errors import BennuError, NotFound
from bennu.images.compressing import BlobUpload, is_gzip
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.layers import Layer, disk_error
from bennu.images.pacing import Paced
from bennu.images.reference import Reference, parse_reference
from bennu.images.registry.endpoints import endpoints_of
from bennu.images.registry.logins import Auth
from bennu.images.registry.refusals import RegistryError, of_push
from bennu.images.registry.repository import MANIFEST, Fallbacks, Repository
from bennu.images.remote_layers import RemoteBlob

CONFIG: Final = "application/vnd.docker.container.image.v1+json"
LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MOST_CHECKS: Final = 3  # of digests a layer may have there
MOST_MOUNTS: Final = 4
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pushing:
    """How far a layer is, in the words of `docker push`; of its plain bytes."""

    diff_id: str
    status: str
    current: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Pushed:
    reference: Reference
    image: Image
    digest: str
    manifest_size: int


def chosen_names(images: Images, name: Reference) -> list[Reference]:
    """Answer the tag that was named, or all that the repository has here. Raises: NotFound in Docker's words."""
    if name.tag:
        if images.resolve(name) is None:
            raise NotFound(f"tag does not exist: {name}")
        return [name]
    tags = [parse_reference(tag) for image in images.list() for tag in image.repo_tags]
    found = sorted((tag for tag in tags if tag.full_name == name.full_name), key=str)
    if not found:
        raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
    return found


async def push(images: Images, names: Sequence[Reference], auth: Auth) -> AsyncGenerator[Pushing | Pushed, None]:
    """Send images of one repository to its registry. Raises: BennuError in Docker's words."""
    domain, path = names[0].domain, names[0].path
    fallbacks = Fallbacks(await endpoints_of(images.registries, domain, mirrors=False))
    failure = BennuError(f"no endpoints found for {names[0].full_name}")
    while endpoint := fallbacks.next():
        try:
            async with Repository(endpoint, path, auth, "push", "pull") as repository:
                for name in names:
                    async with contextlib.aclosing(_push_one(images, repository, name)) as steps:
                        async for step in steps:
                            yield step
            return
        except RegistryError as error:
            fallbacks.note(endpoint, error)
            failure = of_push(error)
            if error.complaints:
                break
        log.info("%s takes no %s: %s", endpoint.url, names[0].familiar_name, failure)
    raise failure


async def _push_one(images: Images, repository: Repository, name: Reference) -> AsyncGenerator[Pushing | Pushed, None]:
    image = images.find(str(name))
    with images.layers.hold() as hold:
        if missing := images.missing(image.diff_ids, hold):
            raise BennuError(f"layer {missing[0]} is missing")
        for diff_id in reversed(image.diff_ids):
            yield Pushing(diff_id, "Preparing")
        pusher = Pusher(images, repository, name)
        queue: asyncio.Queue[Pushing | None] = asyncio.Queue()
        work = asyncio.ensure_future(pusher.send_layers(image.diff_ids, queue.put_nowait))
        work.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (step := await queue.get()) is not None:
                yield step
            blobs = await work
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
    manifest = await pusher.send_manifest(image, blobs)
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    await images.pin(image, Reference(name.domain, name.path, digest=digest))
    yield Pushed(name, image, digest, len(manifest))


class Pusher:
    """Sends what belongs to one name."""

    def __init__(self, images: Images, repository: Repository, name: Reference) -> None:
        self._images = images
        self._repository = repository
        self._name = name

    async def send_layers(self, diff_ids: Sequence[str], tell: Callable[[Pushing], None]) -> Sequence[RemoteBlob]:
        """Have all layers in the repository, the topmost first; answer what they are there, in the order of `diff_ids`.

        Raises: RegistryError, BennuError.
        """
        slots = asyncio.Semaphore(self._images.registries.uploads)
        found: dict[str, RemoteBlob] = {}

        async def send(diff_id: str) -> None:
            if slots.locked():
                tell(Pushing(diff_id, "Waiting"))
            async with slots:
                found[diff_id] = await self._send_layer(diff_id, tell)

        try:
            async with asyncio.TaskGroup() as group:
                for diff_id in dict.fromkeys(reversed(diff_ids)):
                    group.create_task(send(diff_id))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await self._images.remote.note(found.items())
        return [found[diff_id] for diff_id in diff_ids]

    async def _send_layer(self, diff_id: str, tell: Callable[[Pushing], None]) -> RemoteBlob:
        layer = self._images.layers.get(diff_id)
        if layer is None:
            raise BennuError(f"layer {diff_id} is missing")
        is_kept_so = await asyncio.to_thread(is_gzip, self._images.layers.blob_path(layer.blob))
        if (there := await self._find_there(layer, is_kept_so=is_kept_so)) is not None:
            tell(Pushing(diff_id, "Layer already exists"))
            return there
        if (mounted := await self._mount(layer)) is not None:
            source, blob = mounted
            tell(Pushing(diff_id, f"Mounted from {source}"))
            return blob
        blob = await self._upload(layer, tell, is_kept_so=is_kept_so)
        tell(Pushing(diff_id, "Pushed"))
        return blob

    async def _find_there(self, layer: Layer, *, is_kept_so: bool) -> RemoteBlob | None:
        """Look for the layer under each digest by which it is known, the likeliest first."""
        name = self._name.full_name
        own = [RemoteBlob(layer.blob, layer.blob_size, name)] * is_kept_so
        known = sorted(self._images.remote.of(layer.diff_id), key=lambda blob: blob.repository != name)
        unique: dict[str, RemoteBlob] = {}
        for blob in (*own, *known):
            unique.setdefault(blob.digest, blob)
        for blob in list(unique.values())[:MOST_CHECKS]:
            try:
                size = await self._repository.blob_size(blob.digest)
            except RegistryError as error:  # what it is will show when the layer is sent
                log.debug("%s: %s", layer.diff_id, error)
                return None
            if size is not None:
                return RemoteBlob(blob.digest, size or blob.size, name)
            if blob.repository == name:
                await self._images.remote.forget_blob(layer.diff_id, blob)
        return None

    async def _mount(self, layer: Layer) -> tuple[str, RemoteBlob] | None:
        """Take the layer over from another repository of the registry, if it lets us; answer whose it was."""
        others = [
            (parse_reference(blob.repository), blob)
            for blob in self._images.remote.of(layer.diff_id)
            if blob.repository != self._name.full_name
        ]
        for source, blob in [pair for pair in others if pair[0].domain == self._name.domain][:MOST_MOUNTS]:
            with contextlib.suppress(RegistryError):  # what cannot be mounted is sent
                if await self._repository.mount(blob.digest, source.path):
                    return source.path, RemoteBlob(blob.digest, blob.size, self._name.full_name)
        return None

    async def _upload(self, layer: Layer, tell: Callable[[Pushing], None], *, is_kept_so: bool) -> RemoteBlob:
        path = self._images.layers.blob_path(layer.blob)
        total = layer.blob_size if is_kept_so else layer.tar_size
        paced = Paced(lambda count: tell(Pushing(layer.diff_id, "Pushing", count, total)), total)
        outgoing = BlobUpload(path, paced.count, is_kept_so=is_kept_so)
        try:
            async with contextlib.aclosing(outgoing.parts()) as parts:
                upload = await self._repository.upload(parts)
        except OSError as error:
            raise disk_error(error) from error
        await upload.commit(outgoing.digest)
        return RemoteBlob(outgoing.digest, outgoing.size, self._name.full_name)

    async def send_manifest(self, image: Image, blobs: Sequence[RemoteBlob]) -> bytes:
        """Send configuration and manifest; answer the latter. Raises: RegistryError."""
        config = await asyncio.to_thread(self._images.layers.blob_path(image.id).read_bytes)
        if await self._repository.blob_size(image.id) is None:
            upload = await self._repository.upload(_once(config))
            await upload.commit(image.id)
        manifest = manifest_of(image.id, len(config), [(blob.digest, blob.size, LAYER) for blob in blobs])
        await self._repository.put_manifest(self._name.tag, manifest, MANIFEST)
        return manifest


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def manifest_of(config_digest: str, config_size: int, layers: Sequence[tuple[str, int, str]]) -> bytes:
    """Write a Docker schema 2 manifest over blobs (digest, size, media type), laid out as dockerd does.

    The same blobs have the same manifest, and so the same digest, whoever pushes them.
    """
    parts = [{"mediaType": kind, "size": size, "digest": digest} for digest, size, kind in layers]
    config = {"mediaType": CONFIG, "size": config_size, "digest": config_digest}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": parts}
    return msgspec.json.format(msgspec.json.encode(document), indent=3)
