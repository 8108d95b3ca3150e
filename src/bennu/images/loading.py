"""`docker load`: reads archives of images as `docker save` (old and new), skopeo and podman write them.

The formats are those of moby `image/tarexport/load.go` and of the OCI image layout.
"""

import asyncio
import contextlib
import hashlib
import os
import posixpath
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.confined.client import HELPER, Folder
from bennu.errors import InvalidParameter
from bennu.images.image import Image, parse_config
from bennu.images.images import Images
from bennu.images.layers import LayerDraft, LayerHold, disk_error, unpacking
from bennu.images.manifests import Descriptor, Manifest, choose_platform
from bennu.images.overlay import remove_tree
from bennu.images.pacing import Paced
from bennu.images.platform import best_platform, host_platform
from bennu.images.reference import Reference, parse_reference

MAX_DOCUMENT: Final = 4 << 20  # manifests and configurations; docker and skopeo have the same limit
MAX_DOCUMENTS: Final = 64 << 20  # all that an archive has them read, one after the other
MAX_MEMBERS: Final = 100_000
MAX_NAMES: Final = 16 << 20  # characters of all names and targets of links
MAX_LINKS: Final = 40  # one leading to the next; as Linux
MAX_INDEX_DEPTH: Final = 3
CONTAINERD_NAME: Final = "io.containerd.image.name"
REFERENCE_TYPE: Final = "vnd.docker.reference.type"
OCI_NAME: Final = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Part:
    """One member of an archive: a file of ours, or a link."""

    name: str
    file: str = ""
    link: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image as an archive describes it; layers are names of members, bottom first."""

    config: bytes
    layers: Sequence[str]
    tags: Sequence[Reference]


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """How much of a layer is unpacked, in bytes."""

    diff_id: str
    current: int
    total: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that was brought in, and its names."""

    image: Image
    tags: Sequence[Reference]
    displaced: Mapping[str, str]  # names that were taken from another image, and its id


class Archive:
    """An archive taken apart under tmp: its members by name."""

    def __init__(self, folder: Path, parts: Mapping[str, Part]) -> None:
        self._folder = folder
        self._parts = parts
        self._read = 0

    def find(self, name: str) -> Part | None:
        """Find a member by name, following links, which stay inside the archive."""
        part = self._parts.get(posixpath.normpath(name))
        for _ in range(MAX_LINKS):
            if part is None or not part.link:
                break
            part = self._parts.get(part.link)
        return part if part is not None and part.file else None

    def path(self, part: Part) -> Path:
        return self._folder / part.file

    def read(self, name: str) -> bytes:
        """Read a document; its size is bounded, and that of all together. Blocking. Raises: InvalidParameter."""
        part = self.find(name)
        if part is None:
            raise InvalidParameter(f"invalid archive: it has no {name}")
        if part.size > MAX_DOCUMENT:
            raise InvalidParameter(f"invalid archive: {name} is too large")
        self._read += part.size
        if self._read > MAX_DOCUMENTS:
            raise InvalidParameter("invalid archive: its manifests and configurations are too large")
        return self.path(part).read_bytes()

    def read_json(self, name: str, shape: Any) -> Any:
        return _decode(self.read(name), shape, name)

    def read_blob(self, digest: str) -> bytes:
        data = self.read(_blob_name(digest))
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise InvalidParameter(f"invalid archive: blob {digest} does not have this digest")
        return data


async def load(
    images: Images, data: AsyncIterable[bytes], accept: Callable[[dict[str, Any]], bool] | None = None
) -> AsyncGenerator[LayerProgress | Loaded, None]:
    """Bring in the images of an archive, yielding progress. Images loaded before a failure stay.

    `accept` chooses by an image's configuration; None: all.

    Raises: InvalidParameter for what is no archive; Unavailable when the disk is full.
    """
    async with take_apart(images, data) as archive:
        for planned in await asyncio.to_thread(plan, archive):
            if accept is not None and not accept(_decode(planned.config, dict[str, Any], "configuration")):
                continue
            async with contextlib.aclosing(_load_one(images, archive, planned)) as steps:
                async for step in steps:
                    yield step


@contextlib.asynccontextmanager
async def take_apart(images: Images, data: AsyncIterable[bytes]) -> AsyncIterator[Archive]:
    """Write an archive's members to disk as it comes; they are gone after the block."""
    folder = images.layers.new_path()
    try:
        await asyncio.to_thread(folder.mkdir, 0o700)
        yield Archive(folder, await _spread(folder, data))
    except OSError as error:
        raise disk_error(error) from error
    finally:
        await asyncio.shield(asyncio.to_thread(remove_tree, folder))


class ArchiveIndex:
    """Collects the members of an archive as the helper tells them, up to what an image can have."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self._count = 0
        self._names = 0

    def hear(self, told: dict[str, Any]) -> None:
        """Note one member. Raises: InvalidParameter when there are too many."""
        if "name" not in told:
            return
        part = Part(**told)
        self._count += 1
        self._names += len(part.name) + len(part.link)
        if self._count > MAX_MEMBERS:
            raise InvalidParameter(f"invalid archive: it has more than {MAX_MEMBERS} members")
        if self._names > MAX_NAMES:
            raise InvalidParameter("invalid archive: the names of its members are too long")
        self.parts[part.name] = part


async def _spread(folder: Path, data: AsyncIterable[bytes]) -> dict[str, Part]:
    gathering = ArchiveIndex()
    with unpacking():
        async with HELPER.begin("take_apart", Folder(folder, writable=True), input=True) as session:
            await session.feed(data, gathering.hear)
    return gathering.parts


async def _load_one(
    images: Images, archive: Archive, planned: ArchivedImage
) -> AsyncGenerator[LayerProgress | Loaded, None]:
    raw = parse_config(planned.config)
    diff_ids: list[str] = raw["rootfs"]["diff_ids"]
    if len(diff_ids) != len(planned.layers):
        raise InvalidParameter(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(planned.layers)}"
        )
    with images.layers.hold() as hold:
        missing = set(images.missing(diff_ids, hold))
        wanted = {diff_id: name for diff_id, name in zip(diff_ids, planned.layers, strict=True) if diff_id in missing}
        async with contextlib.aclosing(
            with_progress(lambda report: _load_layers(images, archive, wanted, hold, report))
        ) as steps:
            async for step in steps:
                yield step
        displaced = {str(tag): holder for tag in planned.tags if (holder := images.resolve(tag)) is not None}
        image = await images.add(planned.config, tags=planned.tags)
    displaced = {name: holder for name, holder in displaced.items() if holder != image.id}
    yield Loaded(image, planned.tags, displaced)


async def _load_layers(
    images: Images,
    archive: Archive,
    wanted: Mapping[str, str],
    hold: LayerHold,
    report: Callable[[LayerProgress], None],
) -> None:
    """Unpack layers (names in the archive, by diff ID), as many at a time as there are processors.

    Raises: InvalidParameter, Unavailable.
    """
    slots = asyncio.Semaphore(os.cpu_count() or 1)

    async def load_one(diff_id: str, name: str) -> None:
        part = archive.find(name)
        if part is None:
            raise InvalidParameter(f"invalid archive: it has no {name}")
        size = part.size
        paced = Paced(lambda count: report(LayerProgress(diff_id, min(count, size), size)), size)
        async with slots:
            draft = await asyncio.to_thread(_take_part, images, archive, part)
            await images.layers.add(draft, hold, diff_id=diff_id, on_progress=paced.count)
        report(LayerProgress(diff_id, size, size))

    try:
        async with asyncio.TaskGroup() as group:
            for diff_id, name in wanted.items():
                group.create_task(load_one(diff_id, name))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _take_part(images: Images, archive: Archive, part: Part) -> LayerDraft:
    """Link a member under a second name, for two images of an archive may name the same one."""
    path = images.layers.new_path()
    path.hardlink_to(archive.path(part))
    return LayerDraft(path, "", part.size)


async def with_progress(
    work: Callable[[Callable[[LayerProgress], None]], Coroutine[Any, Any, None]],
) -> AsyncGenerator[LayerProgress, None]:
    """Run `work(report)` to its end, yielding what it reports; its failure is raised here."""
    queue: asyncio.Queue[LayerProgress | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(queue.put_nowait))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (step := await queue.get()) is not None:
            yield step
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


# --- what an archive says it has --------------------------------------------------------------------------------------


class ManifestEntry(msgspec.Struct, rename="pascal"):
    """One image of docker-archive's `manifest.json`."""

    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None


def plan(archive: Archive) -> list[ArchivedImage]:
    """Read which images an archive holds. Blocking. Raises: InvalidParameter."""
    if archive.find("manifest.json") is not None:
        entries = archive.read_json("manifest.json", list[ManifestEntry])
        return [_plan_docker(archive, entry) for entry in entries]
    if archive.find("index.json") is not None:
        index: Manifest = archive.read_json("index.json", Manifest)
        entries = [descriptor for descriptor in index.manifests or [] if not _is_attestation(descriptor)]
        return [_plan_oci(archive, descriptor) for descriptor in entries]
    raise InvalidParameter("invalid archive: does not contain a manifest.json or an index.json")


def _is_attestation(descriptor: Descriptor) -> bool:
    """Tell whether it says how an image was made, and is none itself."""
    return (descriptor.annotations or {}).get(REFERENCE_TYPE) == "attestation-manifest"


def _plan_docker(archive: Archive, entry: ManifestEntry) -> ArchivedImage:
    tags = []
    for text in entry.repo_tags or []:
        reference = parse_reference(text)
        if not reference.tag:
            raise InvalidParameter(f'invalid tag "{text}"')
        tags.append(reference)
    return ArchivedImage(archive.read(entry.config), entry.layers or [], tags)


def _plan_oci(archive: Archive, descriptor: Descriptor, depth: int = 0) -> ArchivedImage:
    manifest: Manifest = _decode(archive.read_blob(descriptor.digest), Manifest, descriptor.digest)
    if manifest.manifests is not None:
        if depth >= MAX_INDEX_DEPTH:
            raise InvalidParameter("invalid archive: an index within an index within an index")
        chosen = choose_platform(manifest.manifests, best_platform(), host_platform())[0]
        chosen.annotations = {**(descriptor.annotations or {}), **(chosen.annotations or {})}
        return _plan_oci(archive, chosen, depth + 1)
    if manifest.config is None:
        raise InvalidParameter("invalid archive: a manifest without a configuration")
    config = archive.read_blob(manifest.config.digest)
    layers = [_blob_name(layer.digest) for layer in manifest.layers or []]
    return ArchivedImage(config, layers, _names_of(descriptor.annotations or {}))


def _names_of(annotations: Mapping[str, str]) -> list[Reference]:
    """Read an image's names from annotations: full names only; a bare tag names nothing."""
    text = annotations.get(CONTAINERD_NAME) or annotations.get(OCI_NAME) or ""
    if ":" not in text and "/" not in text:
        return []
    try:
        return [parse_reference(text).tagged()]
    except InvalidParameter:
        return []


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _decode(data: bytes, shape: Any, name: str) -> Any:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"invalid archive: {name}: {error}") from None
