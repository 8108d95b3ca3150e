"""Compresses layers on their way out: gzip, several blocks at a time, the same bytes for the same tar."""

import asyncio
import contextlib
import os
import struct
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bennu.confined.tar import decompress

BLOCK: Final = 1 << 20
WINDOW: Final = 1 << 15  # how far back deflate looks: the end of each block is the dictionary of the next
LEVEL: Final = 3  # a hundredth larger than by 6, which Go takes, and in two thirds of the time
HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # without time and name
GZIP: Final = b"\x1f\x8b"


def is_gzip(path: Path) -> bool:
    """Tell whether a blob is compressed as registries expect it. Blocking."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[Any]:
    """Open a layer's blob without its compression, to `read` it. Blocking."""
    with path.open("rb", buffering=BLOCK) as file:
        yield decompress(file)


async def compress(path: Path, on_progress: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """Yield a blob as gzip, whatever it is now; `on_progress` hears how many plain bytes are behind."""
    opened = contextlib.ExitStack()
    plain = await asyncio.to_thread(opened.enter_context, open_plain(path))
    pending: deque[asyncio.Task[bytes]] = deque()
    checksum, count, dictionary = 0, 0, b""
    try:
        yield HEADER
        block = await asyncio.to_thread(plain.read, BLOCK)
        while block:
            following = await asyncio.to_thread(plain.read, BLOCK)
            checksum = zlib.crc32(block, checksum)
            count += len(block)
            work = asyncio.to_thread(_deflate, block, dictionary, is_last=not following)
            pending.append(asyncio.ensure_future(work))
            block, dictionary = following, block[-WINDOW:]
            if len(pending) > (os.cpu_count() or 1):
                yield await pending.popleft()
                on_progress(count)
        while pending:
            yield await pending.popleft()
        if not count:
            yield _deflate(b"", b"", is_last=True)
        on_progress(count)
        yield struct.pack("<II", checksum, count & 0xFFFFFFFF)
    finally:
        for task in pending:
            task.cancel()
        opened.close()


def _deflate(block: bytes, dictionary: bytes, *, is_last: bool) -> bytes:
    """Compress a block so that others may precede and follow it."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)
    return packer.compress(block) + packer.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)


async def read_blocks(path: Path, on_progress: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """Yield a file in blocks, read in threads."""
    with await asyncio.to_thread(path.open, "rb") as file:
        count = 0
        while block := await asyncio.to_thread(file.read, BLOCK):
            yield block
            count += len(block)
            on_progress(count)
