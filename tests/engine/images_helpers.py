"""Tars of all kinds, and images made of them."""

import asyncio
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from bennu.images import Image, Images
from bennu.images.reference import parse_reference

Entry = tuple[tarfile.TarInfo, bytes]
needs_root = "layers are unpacked and mounted as root"


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def make_tar(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def stream(data: bytes, piece: int = 50_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        yield data[start : start + piece]
        await asyncio.sleep(0)


async def make_image(images: Images, layers: Sequence[bytes], *tags: str, **config: Any) -> Image:
    """An image of these layers (plain tars)."""
    with images.layers.hold() as hold:
        for layer in layers:
            await images.layers.add(await images.layers.receive(stream(layer)), hold)
        blob = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        return await images.add(json.dumps(blob).encode(), tags=[parse_reference(tag) for tag in tags])


def is_root() -> bool:
    return os.geteuid() == 0
