"""Layers are gzip on their way out, the same bytes for the same tar."""

import bz2
import gzip
import hashlib
import random
from pathlib import Path

import pytest

from bennu.images.compressing import BLOCK, BlobUpload, open_plain


async def sent(path: Path, *, is_kept_so: bool = False) -> tuple[bytes, list[int]]:
    counts: list[int] = []
    outgoing = BlobUpload(path, counts.append, is_kept_so=is_kept_so)
    data = b"".join([part async for part in outgoing.parts()])
    assert outgoing.digest == "sha256:" + hashlib.sha256(data).hexdigest() and outgoing.size == len(data)
    return data, counts


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
async def test_a_plain_layer_becomes_gzip_that_everybody_reads(tmp_path: Path, size: int) -> None:
    source = random.Random(size)
    plain = b"".join(source.choice((b"abcdefgh", source.randbytes(8))) for _ in range(size // 8)).ljust(size, b"x")
    path = tmp_path / "layer"
    path.write_bytes(plain)
    data, counts = await sent(path)
    assert gzip.decompress(data) == plain
    assert counts == sorted(counts) and counts[-1] == size
    assert (await sent(path))[0] == data


async def test_a_layer_of_another_compression_is_compressed_anew_and_gzip_is_sent_as_it_is(tmp_path: Path) -> None:
    plain = b"layer" * 100_000
    path = tmp_path / "layer"
    path.write_bytes(bz2.compress(plain))
    assert gzip.decompress((await sent(path))[0]) == plain
    path.write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]) + bytes(512))
    assert (await sent(path, is_kept_so=True))[0] == path.read_bytes()
    with open_plain(path) as opened:  # of several members, and padded
        assert opened.read(len(plain) + 1) == plain
