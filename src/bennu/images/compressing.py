"""Compresses layers on their way out: gzip, several blocks at a time, the same bytes for the same tar."""

import asyncio
import contextlib
import hashlib
import os
import struct
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from bennu.confined.tar import decompress

BLOCK: Final = 1 << 20
PIECE: Final = 1 << 17  # what is looked at for whether it gets smaller
SAMPLE: Final = 2048
WORTH: Final = 0.97  # what is larger than this part of itself is stored
AHEAD: Final = 2  # blocks of one layer that are compressed before they are asked for
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


class BlobUpload:
    """A blob on its way out, as gzip: whatever it is kept as. `parts()` yields it; then `digest` and `size` are known.

    All of the work on a part is one visit to a thread, in which the next blocks are compressed by others already.
    """

    def __init__(self, path: Path, on_progress: Callable[[int], None], *, is_kept_so: bool) -> None:
        """`is_kept_so`: it is gzip already; `on_progress` hears how many bytes of what is kept are behind."""
        self._path = path
        self._on_progress = on_progress
        self._make = self._read if is_kept_so else self._compress
        self._sum = hashlib.sha256()
        self._behind = 0
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._sum.hexdigest()}"

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the blob. Raises: OSError."""
        made = self._make()
        try:
            while part := await asyncio.to_thread(self._next, made):
                yield part
                self._on_progress(self._behind)
        finally:
            await asyncio.shield(asyncio.to_thread(made.close))

    def _next(self, made: Generator[bytes, None, None]) -> bytes:
        part = next(made, b"")
        self._sum.update(part)
        self.size += len(part)
        return part

    def _read(self) -> Generator[bytes, None, None]:
        with self._path.open("rb") as file:
            while block := file.read(BLOCK):
                self._behind += len(block)
                yield block

    def _compress(self) -> Generator[bytes, None, None]:
        pending: deque[Future[bytes]] = deque()
        checksum, dictionary = 0, b""
        with open_plain(self._path) as plain:
            yield HEADER
            block = plain.read(BLOCK)
            while block:
                following = plain.read(BLOCK)
                checksum = zlib.crc32(block, checksum)
                self._behind += len(block)
                pending.append(_pool().submit(_deflate, block, dictionary, is_last=not following))
                block, dictionary = following, block[-WINDOW:]
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
            yield (b"" if self._behind else _deflate(b"", b"", is_last=True)) + struct.pack(
                "<II", checksum, self._behind & 0xFFFFFFFF
            )


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Give the threads that compress, as many as there are processors for all that goes out at a time."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="compress")


def _deflate(block: bytes, dictionary: bytes, *, is_last: bool) -> bytes:
    """Compress a block so that others may precede and follow it; parts that do not get smaller are stored."""
    done = []
    for start in range(0, max(len(block), 1), PIECE):
        piece = block[start : start + PIECE]
        before = block[start - WINDOW : start] if start else dictionary
        is_end = is_last and start + PIECE >= len(block)
        level = LEVEL if _gets_smaller(piece) else 0
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, before)
        done.append(packer.compress(piece) + packer.flush(zlib.Z_FINISH if is_end else zlib.Z_SYNC_FLUSH))
    return b"".join(done)


def _gets_smaller(piece: bytes) -> bool:
    """Guess by samples: much of what images are made of is compressed already, or random."""
    middle = len(piece) // 2
    sample = piece[:SAMPLE] + piece[middle : middle + SAMPLE] + piece[-SAMPLE:]
    return len(zlib.compress(sample, 1)) < len(sample) * WORTH
