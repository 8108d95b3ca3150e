"""Compresses layers on their way out: gzip, several blocks at a time, the same bytes for the same tar."""

import asyncio
import bz2
import gzip
import lzma
import os
import struct
import subprocess
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import IO, Final, cast

BLOCK: Final = 1 << 20
WINDOW: Final = 1 << 15  # how far back deflate looks: the end of each block is the dictionary of the next
LEVEL: Final = 6  # as Go's default
HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # without time and name
GZIP: Final = b"\x1f\x8b"


def is_gzip(path: Path) -> bool:
    """Tell whether a blob is compressed as registries expect it. Blocking."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def open_plain(path: Path) -> IO[bytes]:
    """Open a layer's blob without its compression."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(GZIP):
        return cast(IO[bytes], gzip.open(path))
    if magic.startswith(b"BZh"):
        return bz2.open(path)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return cast(IO[bytes], lzma.open(path))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        process = subprocess.Popen(["zstd", "-d", "-c", "-q", "--", str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        return process.stdout
    return path.open("rb")


async def compress(path: Path, on_progress: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """Yield a blob as gzip, whatever it is now; `on_progress` hears how many plain bytes are behind."""
    plain = await asyncio.to_thread(open_plain, path)
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
        plain.close()


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
