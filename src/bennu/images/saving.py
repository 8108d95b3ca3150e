"""`docker save`: writes one tar that is an OCI layout and a docker-archive at once, for old and new tools."""

import asyncio
import contextlib
import hashlib
import io
import tarfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, cast

import msgspec

from bennu.errors import BennuError, InvalidParameter
from bennu.images.compressing import open_plain
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.layers import Layer
from bennu.images.reference import Reference, parse_reference
from bennu.pace import settle

CHUNK: Final = 1 << 20
OCI: Final = "application/vnd.oci.image"


async def save(images: Images, refs: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """Yield the archive in pieces. Raises: NotFound, InvalidParameter before the first piece."""
    chosen = choose(images, refs)
    with images.layers.hold() as hold:
        for image in chosen:
            images.missing(image.diff_ids, hold)
        pieces = _pieces(images, chosen)
        try:
            while True:
                reading = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
                try:
                    piece = await asyncio.shield(reading)
                finally:
                    await settle(reading)  # a generator is not closed while it works
                if piece is None:
                    return
                yield piece
        finally:
            await asyncio.to_thread(pieces.close)  # type: ignore[attr-defined]


def choose(images: Images, refs: Sequence[str]) -> dict[Image, list[Reference]]:
    """Answer the images asked for, each with the tags it has in the archive: those asked for by name, not by id.

    A repository's name alone asks for all of its tags. Raises: NotFound, InvalidParameter.
    """
    chosen: dict[Image, list[Reference]] = {}
    for ref in [name for asked in refs for name in _all_tags(images, asked)]:
        image = images.find(ref)
        tags = chosen.setdefault(image, [])
        by_id = image.id.startswith(ref) or image.id.removeprefix("sha256:").startswith(ref)
        if not by_id and not (name := parse_reference(ref)).digest and name.tagged() not in tags:
            tags.append(name.tagged())
    return chosen


def _all_tags(images: Images, ref: str) -> list[str]:
    with contextlib.suppress(InvalidParameter):  # an id, perhaps
        name = parse_reference(ref)
        if not name.tag and not name.digest:
            tags = [tag for image in images.list() for tag in image.repo_tags]
            return sorted(tag for tag in tags if parse_reference(tag).full_name == name.full_name) or [ref]
    return [ref]


def _pieces(images: Images, chosen: dict[Image, list[Reference]]) -> Iterator[bytes]:
    """Write a tar into a buffer that is emptied as it fills. Blocking."""
    buffer = io.BytesIO()

    def taken() -> bytes:
        data = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return data

    with tarfile.open(fileobj=buffer, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar:
        written: set[str] = set()
        for image in chosen:
            for layer in _layers_of(images, image):
                if layer.diff_id not in written:
                    written.add(layer.diff_id)
                    for _ in _add_layer(tar, images.layers.blob_path(layer.blob), layer, _mtime(image)):
                        yield taken()
        mtimes = {_blob_name(image.id): _mtime(image) for image in chosen}
        for name, data in _documents(images, chosen).items():
            tar.addfile(_header(name, len(data), mtimes.get(name, 0)), io.BytesIO(data))
    yield taken()


def _layers_of(images: Images, image: Image) -> list[Layer]:
    layers = [images.layers.get(diff_id) for diff_id in image.diff_ids]
    if None in layers:
        raise BennuError(f"a layer of {image.id} is missing")
    return cast(list[Layer], layers)


def _add_layer(tar: tarfile.TarFile, path: Path, layer: Layer, mtime: int) -> Iterator[None]:
    """Write a layer as a plain tar, pausing after every chunk so that the buffer can be emptied."""
    header = _header(_blob_name(layer.diff_id), layer.tar_size, mtime)
    tar.addfile(header)
    stream = cast(IO[bytes], tar.fileobj)
    left = layer.tar_size
    with open_plain(path) as plain:
        while left > 0:
            data = plain.read(min(CHUNK, left))
            if not data:
                raise BennuError(f"layer {layer.diff_id} is damaged on the disk")
            left -= len(data)
            stream.write(data)
            yield
    padding = -layer.tar_size % tarfile.BLOCKSIZE
    stream.write(b"\0" * padding)
    cast(Any, tar).offset += layer.tar_size + padding


def _documents(images: Images, chosen: dict[Image, list[Reference]]) -> dict[str, bytes]:
    """Make everything but the layers, by name."""
    documents: dict[str, bytes] = {}
    descriptors: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, tags in chosen.items():
        layers = _layers_of(images, image)
        config = images.layers.blob_path(image.id).read_bytes()
        manifest = _manifest(image, config, layers)
        digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
        documents |= {_blob_name(image.id): config, _blob_name(digest): manifest}
        descriptors += _descriptors(manifest, digest, tags)
        names = [_blob_name(layer.diff_id) for layer in layers]
        entries.append(
            {"Config": _blob_name(image.id), "RepoTags": [str(tag) for tag in tags] or None, "Layers": names}
        )
        for tag in tags if layers else []:
            repositories.setdefault(tag.familiar_name, {})[tag.tag] = layers[-1].diff_id.removeprefix("sha256:")
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": descriptors}
    documents["index.json"] = msgspec.json.encode(index)
    documents["manifest.json"] = msgspec.json.encode(entries)
    documents["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    if repositories:
        documents["repositories"] = msgspec.json.encode(repositories)
    return documents


def _manifest(image: Image, config: bytes, layers: Sequence[Layer]) -> bytes:
    parts = [{"mediaType": f"{OCI}.layer.v1.tar", "digest": layer.diff_id, "size": layer.tar_size} for layer in layers]
    described = {"mediaType": f"{OCI}.config.v1+json", "digest": image.id, "size": len(config)}
    return msgspec.json.encode(
        {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": described, "layers": parts}
    )


def _descriptors(manifest: bytes, digest: str, tags: Sequence[Reference]) -> list[dict[str, Any]]:
    plain = {"mediaType": f"{OCI}.manifest.v1+json", "digest": digest, "size": len(manifest)}
    return [
        plain
        | {
            "annotations": {
                "io.containerd.image.name": f"{tag.full_name}:{tag.tag}",
                "org.opencontainers.image.ref.name": tag.tag,
            }
        }
        for tag in tags
    ] or [plain]


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _mtime(image: Image) -> int:
    """Answer when the image was made: the same image is the same archive, whenever it is saved."""
    return max(0, image.created_ns // 10**9)


def _header(name: str, size: int, mtime: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = size
    header.mtime = mtime
    header.mode = 0o644
    return header
