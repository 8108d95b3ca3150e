"""Makes images from a bare tar (`docker import`) or from a container's writable layer (`docker commit`)."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE
from typing import Any, Final

import msgspec

from bennu.confined.client import HELPER, Failure, Folder
from bennu.errors import BennuError, InvalidParameter
from bennu.go.platform import ImagePlatform
from bennu.go.rfc3339 import format_rfc3339
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.layers import Layer, LayerHold
from bennu.images.platform import host_architecture
from bennu.images.reference import Reference

NOTHING: Final = "sha256:" + hashlib.sha256(bytes(RECORDSIZE)).hexdigest()  # of the tar of a layer without entries
EMPTY_CONFIG: Final[Mapping[str, Any]] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


async def import_image(
    images: Images,
    tar: AsyncIterable[bytes],
    *,
    name: Reference | None = None,
    message: str = "",
    config: Mapping[str, Any] = EMPTY_CONFIG,
    platform: ImagePlatform | None = None,
) -> Image:
    """Make an image of one layer from a tar, compressed or not; nothing at all is a tar without files.

    Raises: InvalidParameter, Unavailable; then nothing is left of it.
    """
    draft = await images.layers.receive(_or_empty(tar))
    with images.layers.hold() as hold:
        try:
            layer = await images.layers.add(draft, hold)
        except InvalidParameter as error:
            raise BennuError(str(error)) from error  # dockerd answers 500 to a broken tar
        created = format_rfc3339(time.time_ns())
        blob = {
            "architecture": platform.architecture if platform else host_architecture(),
            "comment": message,
            "config": config,
            "created": created,
            "history": [{"created": created, "comment": message}],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
        if platform and platform.variant:
            blob["variant"] = platform.variant
        return await images.add(msgspec.json.encode(blob), tags=[name] if name else [])


async def _or_empty(tar: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Pass a tar on, or the end of one where there is nothing."""
    is_empty = True
    async for piece in tar:
        is_empty = is_empty and not piece
        yield piece
    if is_empty:
        yield bytes(2 * BLOCKSIZE)


async def commit_image(
    images: Images,
    upper_root: Path,
    parent: Image,
    config: Mapping[str, Any],
    *,
    container_id: str = "",
    name: Reference | None = None,
    author: str = "",
    comment: str = "",
    created_by: str = "",
) -> Image:
    """Make an image of the parent and what was written over it (`upper_root/diff`).

    `config` is the container's, with Docker's keys. Pause the container before. Raises: InvalidParameter, Unavailable.
    """
    with images.layers.hold() as hold:
        images.missing(parent.diff_ids, hold)
        layer = await _layer_of(images, parent, upper_root / "diff", hold)
        created = format_rfc3339(time.time_ns())
        blob = _committed(parent, config, layer, created, author, comment, created_by) | {"container": container_id}
        return await images.add(msgspec.json.encode(blob), parent=parent.id, tags=[name] if name else [])


async def _layer_of(images: Images, parent: Image, upper: Path, hold: LayerHold) -> Layer | None:
    """Make a layer of what was written; None when that is nothing. Raises: BennuError."""
    draft = await images.layers.receive(pack_changes(images, images.lowers(parent), upper))
    if draft.digest == NOTHING:
        await asyncio.to_thread(draft.path.unlink)
        return None
    return await images.layers.add(draft, hold)


def _committed(
    parent: Image,
    config: Mapping[str, Any],
    layer: Layer | None,
    created: str,
    author: str,
    comment: str,
    created_by: str,
) -> dict[str, Any]:
    step = {
        "created": created,
        "author": author,
        "created_by": created_by,
        "comment": comment,
        "empty_layer": layer is None,
    }
    return {
        "architecture": parent.architecture or host_architecture(),
        "author": author,
        "comment": comment,
        "config": dict(config),
        "created": created,
        "history": [*_history(parent), {key: value for key, value in step.items() if value}],
        "os": parent.os,
        "rootfs": {"type": "layers", "diff_ids": [*parent.diff_ids, *([layer.diff_id] if layer else [])]},
    }


def _history(image: Image) -> list[Any]:
    known = image.raw.get("history")
    return list(known) if isinstance(known, list) else []


async def pack_changes(images: Images, lowers: Sequence[str], upper: Path) -> AsyncIterator[bytes]:
    """Yield what was changed as a layer's tar; marks of overlayfs become whiteouts. Raises: BennuError.

    `lowers`: what it was changed from, as `Images.lowers` has it. Whiteouts are those of the OCI image-spec `layer.md`.
    """
    try:
        trees = (Folder(upper), Folder(images.layers.root))
        async with HELPER.begin("pack_layer", *trees, enter=False, output=True, lowers=list(lowers)) as session:
            assert session.output is not None
            while data := await session.output.read(1 << 20):
                yield data
            await session.result()
    except Failure as failure:
        raise BennuError(f"cannot read what was written: {failure}") from failure
