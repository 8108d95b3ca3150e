"""`docker save`: writes one tar that is an OCI layout and a docker-archive at once, for old and new tools."""

import asyncio
import contextlib
import hashlib
import tarfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from bennu.errors import BennuError, InvalidParameter
from bennu.images.compressing import open_plain
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.layers import Layer
from bennu.images.reference import Reference, parse_reference

CHUNK: Final = 1 << 20
OCI: Final = "application/vnd.oci.image"
LAYER: Final = f"{OCI}.layer.v1.tar"
BLOB_FOLDERS: Final = ("blobs/", "blobs/sha256/")


@dataclass(frozen=True, slots=True)
class FilePart:
    """The whole of a file, `size` bytes, as a part of an archive."""

    path: Path
    size: int


async def save(images: Images, chosen: Mapping[Image, Sequence[Reference]]) -> AsyncGenerator[bytes | FilePart, None]:
    """Yield the archive in parts. Raises: BennuError for a layer that is damaged on the disk."""
    with images.layers.hold() as hold:
        for image in chosen:
            images.missing(image.diff_ids, hold)
        documents = await asyncio.to_thread(_documents, images, chosen)
        layers = {_blob_name(layer.diff_id): layer for image in chosen for layer in _layers_of(images, image)}
        mtimes = {_blob_name(name): _mtime(image) for image in chosen for name in (image.id, *image.diff_ids)}
        newest = max(mtimes.values(), default=0)
        for folder in BLOB_FOLDERS:
            yield _header(folder, 0, newest)
        for name in sorted((*documents, *layers)):
            layer = layers.get(name)
            size = layer.tar_size if layer else len(documents[name])
            yield _header(name, size, mtimes.get(name, 0))
            if layer is None:
                yield documents[name]
            else:
                async for part in _layer_parts(images.layers.blob_path(layer.blob), layer):
                    yield part
            yield bytes(-size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)


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


def _layers_of(images: Images, image: Image) -> list[Layer]:
    layers = [images.layers.get(diff_id) for diff_id in image.diff_ids]
    if None in layers:
        raise BennuError(f"a layer of {image.id} is missing")
    return cast(list[Layer], layers)


async def _layer_parts(path: Path, layer: Layer) -> AsyncGenerator[bytes | FilePart, None]:
    """Yield a layer as a plain tar: the file as it is, if it is kept so."""
    if layer.blob == layer.diff_id:
        yield FilePart(path, layer.tar_size)
        return
    left = layer.tar_size
    with contextlib.ExitStack() as opened:
        plain = await asyncio.to_thread(opened.enter_context, open_plain(path))
        while left > 0:
            data = await asyncio.to_thread(plain.read, min(CHUNK, left))
            if not data:
                raise BennuError(f"layer {layer.diff_id} is damaged on the disk")
            left -= len(data)
            yield data


def _documents(images: Images, chosen: Mapping[Image, Sequence[Reference]]) -> dict[str, bytes]:
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
            {
                "Config": _blob_name(image.id),
                "RepoTags": [str(tag) for tag in tags] or None,
                "Layers": names,
                "LayerSources": {layer.diff_id: _layer_source(layer) for layer in layers},
            }
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


def _layer_source(layer: Layer) -> dict[str, Any]:
    return {"mediaType": LAYER, "size": layer.tar_size, "digest": layer.diff_id}


def _manifest(image: Image, config: bytes, layers: Sequence[Layer]) -> bytes:
    parts = [{"mediaType": LAYER, "digest": layer.diff_id, "size": layer.tar_size} for layer in layers]
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


def _header(name: str, size: int, mtime: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = size
    header.mtime = mtime
    header.mode = 0o644
    if name.endswith("/"):
        header.type, header.mode = tarfile.DIRTYPE, 0o755
    return header.tobuf(tarfile.PAX_FORMAT)
