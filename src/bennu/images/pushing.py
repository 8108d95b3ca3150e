"""`docker push`, and the layout in which images are handed to skopeo: its `dir:`, with blobs linked, not copied."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bennu.errors import NotFound
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.layers import disk_error
from bennu.images.overlay import remove_tree
from bennu.images.reference import Reference, parse_reference
from bennu.images.skopeo import Auth, read_manifest, registry_source, skopeo

DIRECTORY_TRANSPORT: Final = "Directory Transport Version: 1.1\n"
KIND: Final = "application/vnd.docker."


@dataclass(frozen=True, slots=True)
class Pushing:
    """A layer on its way, and whether it has arrived."""

    diff_id: str
    arrived: bool


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
    """Send images to their registry. Raises: BennuError in Docker's words."""
    for name in names:
        image = images.find(str(name))
        for diff_id in image.diff_ids:
            yield Pushing(diff_id, arrived=False)
        with images.layers.hold() as hold:
            images.missing(image.diff_ids, hold)
            pushed = await _push_one(images, image, name, auth)
        for diff_id in image.diff_ids:
            yield Pushing(diff_id, arrived=True)
        yield pushed


async def _push_one(images: Images, image: Image, name: Reference, auth: Auth) -> Pushed:
    folder = images.layers.new_path()
    try:
        await asyncio.to_thread(lay_out, images, image, folder)
        async with registry_source(name, auth, images.layers.tmp, images.registries) as target:
            options = [f"--dest-{option.removeprefix('--')}" for option in target.options]
            await skopeo(["copy", "--quiet", *options, f"dir:{folder}", target.location], target)
            manifest = await read_manifest(target)
    except OSError as error:
        raise disk_error(error) from error
    finally:
        await asyncio.shield(asyncio.to_thread(remove_tree, folder))
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    await images.pin(image, Reference(name.domain, name.path, digest=digest))
    return Pushed(name, image, digest, len(manifest))


def lay_out(images: Images, image: Image, folder: Path) -> None:
    """Make `folder` with the image in it. Blocking."""
    folder.mkdir()
    layers = images.layers
    config = layers.blob_path(image.id)
    digests = {layer.blob for diff_id in image.diff_ids if (layer := layers.get(diff_id))}
    for digest in {image.id, *digests}:
        (folder / digest.removeprefix("sha256:")).hardlink_to(layers.blob_path(digest))
    (folder / "manifest.json").write_bytes(manifest_of(images, image, config.stat().st_size))
    (folder / "version").write_text(DIRECTORY_TRANSPORT)


def manifest_of(images: Images, image: Image, config_size: int) -> bytes:
    """Write a Docker schema 2 manifest over the blobs as they are kept."""
    config = {"mediaType": f"{KIND}container.image.v1+json", "size": config_size, "digest": image.id}
    layers = [
        {
            "mediaType": f"{KIND}image.rootfs.diff.tar" + ("" if layer.blob == layer.diff_id else ".gzip"),
            "size": layer.blob_size,
            "digest": layer.blob,
        }
        for diff_id in image.diff_ids
        if (layer := images.layers.get(diff_id)) is not None
    ]
    manifest = {"schemaVersion": 2, "mediaType": f"{KIND}distribution.manifest.v2+json", "config": config}
    return msgspec.json.encode(manifest | {"layers": layers})
