"""Layers are unpacked exactly, and nothing in one reaches outside of it."""

import bz2
import contextlib
import ctypes
import ctypes.util
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images_helpers import Entry, digest_of, entry, is_root, make_tar, needs_root, stream

from bennu.errors import BennuError, InvalidParameter, Unavailable
from bennu.images.layers import Layer, Layers

pytestmark = pytest.mark.skipif(not is_root(), reason=needs_root)
DIR, SYM, LNK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    made = Layers(tmp_path / "images")
    made.open()
    return made


async def unpack(layers: Layers, tar: bytes, diff_id: str = "") -> tuple[Layer, Path]:
    with layers.hold() as hold:
        layer = await layers.add(await layers.receive(stream(tar)), hold, diff_id=diff_id)
    return layer, layers.root / layers.lower_of(layer.diff_id)


def leftovers(layers: Layers) -> list[Path]:
    return list(layers.tmp.iterdir())


async def test_files_keep_owner_mode_time_links_and_devices(layers: Layers) -> None:
    tar = make_tar(
        [
            entry("./", kind=DIR, mode=0o1777, uid=5),
            entry("d/", kind=DIR, mode=0o2750, mtime=12345),
            entry("d/f", b"hello", mode=0o4711, uid=10, gid=20, mtime=1_000_000_000),
            entry("d/exact", b"", pax_headers={"mtime": "1000000000.123456789"}),
            entry("d/hard", kind=LNK, linkname="d/f"),
            entry("d/soft", kind=SYM, linkname="/etc/passwd", uid=7),
            entry("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("pipe", kind=tarfile.FIFOTYPE),
            entry("ünïcode \udcff", b"x"),
        ]
    )
    layer, root = await unpack(layers, tar)
    assert (layer.diff_id, layer.blob_size, layer.tar_size, layer.size) == (digest_of(tar), len(tar), len(tar), 6)
    assert layer.has_root and stat.S_IMODE(root.stat().st_mode) == 0o1777 and root.stat().st_uid == 5
    file = (root / "d/f").stat()
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode), file.st_nlink) == (10, 20, 0o4711, 2)
    assert (root / "d").stat().st_mtime == 12345 and stat.S_IMODE((root / "d").stat().st_mode) == 0o2750
    assert (root / "d/exact").stat().st_mtime_ns == 1000000000123456789
    assert str((root / "d/soft").readlink()) == "/etc/passwd" and (root / "d/soft").lstat().st_uid == 7
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert (root / "ünïcode \udcff").read_bytes() == b"x"
    assert leftovers(layers) == []


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
async def test_a_compressed_layer_is_known_by_its_plain_content(layers: Layers, compress: object) -> None:
    tar = make_tar([entry("f", b"x" * 100_000)])
    packed = compress(tar)  # type: ignore[operator]
    layer, root = await unpack(layers, packed, digest_of(tar))
    assert (layer.diff_id, layer.blob, layer.tar_size) == (digest_of(tar), digest_of(packed), len(tar))
    assert (root / "f").stat().st_size == 100_000
    assert layers.blob_path(layer.blob).read_bytes() == packed


def compress_zstd(data: bytes) -> bytes:
    library = ctypes.CDLL("libzstd.so.1")
    room = ctypes.create_string_buffer(len(data) + 1000)
    size = library.ZSTD_compress(room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)), 3)
    return room.raw[:size]


@pytest.mark.skipif(ctypes.util.find_library("zstd") is None, reason="libzstd is not installed")
async def test_a_zstd_layer_of_several_frames_is_unpacked(layers: Layers) -> None:
    tar = make_tar([entry("f", os.urandom(400_000)), entry("g", b"zstd")])
    packed = compress_zstd(tar[:300_000]) + compress_zstd(tar[300_000:])
    layer, root = await unpack(layers, packed, digest_of(tar))
    assert layer.diff_id == digest_of(tar) and (root / "g").read_bytes() == b"zstd"
    with pytest.raises(InvalidParameter, match="unexpected EOF"):
        await unpack(layers, packed[:-1000])
    with pytest.raises(InvalidParameter, match="damaged"):
        await unpack(layers, packed[:4] + b"\xff" * 5000)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry("../evil", b"x")], id="dotdot"),
        pytest.param([entry("a/../../evil", b"x")], id="dotdot-inside"),
        pytest.param([entry("l", kind=LNK, linkname="../../evil")], id="hard-link-outside"),
        pytest.param([entry("../.wh.evil", b"")], id="whiteout-outside"),
        pytest.param([entry("a/.wh...", b"")], id="whiteout-of-the-parent"),
    ],
)
async def test_a_name_outside_is_refused_and_nothing_is_left(layers: Layers, entries: list[Entry]) -> None:
    outside = layers.tmp.parent / "evil"
    with pytest.raises(InvalidParameter):
        await unpack(layers, make_tar(entries))
    assert not outside.exists() and leftovers(layers) == []
    assert list(layers.root.iterdir()) == [] and list(layers.blobs.iterdir()) == []


async def test_absolute_names_and_links_mean_places_inside(layers: Layers, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_text("untouched")
    tar = make_tar(
        [
            entry(f"{victim}/f", b"inside"),
            entry("out", kind=SYM, linkname=str(victim)),
            entry("out/g", b"through the link"),
            entry("up", kind=SYM, linkname="../../../../../../.."),
            entry(f"up{victim}/h", b"up and down"),
            entry("f2", kind=LNK, linkname=f"{victim}/f"),
        ]
    )
    _, root = await unpack(layers, tar)
    inside = root / str(victim).lstrip("/")
    assert [path.name for path in victim.iterdir()] == ["f"] and (victim / "f").read_text() == "untouched"
    assert (inside / "f").read_bytes() == b"inside" and (inside / "g").read_bytes() == b"through the link"
    assert (inside / "h").read_bytes() == b"up and down" and (root / "f2").read_bytes() == b"inside"


async def test_a_hard_link_to_the_hosts_file_cannot_be_made(layers: Layers) -> None:
    with pytest.raises(InvalidParameter, match="no such file"):
        await unpack(layers, make_tar([entry("l", kind=LNK, linkname="/etc/passwd")]))


async def test_a_later_entry_replaces_an_earlier_one_and_never_writes_through_it(
    layers: Layers, tmp_path: Path
) -> None:
    tar = make_tar(
        [
            entry("a", kind=SYM, linkname="b"),
            entry("b", b"b"),
            entry("a", b"a"),
            entry("d/x/y", b"deep"),
            entry("d", b"now a file"),
            entry("e", b"file"),
            entry("e/", kind=DIR),
        ]
    )
    _, root = await unpack(layers, tar)
    assert (root / "a").read_bytes() == b"a" and not (root / "a").is_symlink()
    assert (root / "b").read_bytes() == b"b" and (root / "d").read_bytes() == b"now a file"
    assert (root / "e").is_dir()


async def test_whiteouts_become_overlayfs_marks(layers: Layers) -> None:
    tar = make_tar(
        [
            entry("d/.wh.gone"),
            entry("o/.wh..wh..opq"),
            entry("o/new", b"n"),
            entry(".wh.replaced"),
            entry("replaced/", kind=DIR),
            entry("replaced/f", b"r"),
            entry(".wh..wh.plnk", kind=DIR),
            entry("kept", b"k"),
            entry(".wh.kept"),
        ]
    )
    _, root = await unpack(layers, tar)
    gone = (root / "d/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    assert os.getxattr(root / "o", "trusted.overlay.opaque") == b"y" and (root / "o/new").exists()
    assert os.getxattr(root / "replaced", "trusted.overlay.opaque") == b"y"
    assert (root / "kept").read_bytes() == b"k"
    assert not list(root.glob("**/.wh.*"))


async def test_extended_attributes_come_along_but_never_overlayfs_own(layers: Layers) -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    headers = {
        "SCHILY.xattr.user.note": "hi",
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
    }
    _, root = await unpack(layers, make_tar([entry("f", b"x", pax_headers=headers), entry("d", kind=DIR)]))
    assert sorted(os.listxattr(root / "f")) == ["security.capability", "user.note"]
    assert os.getxattr(root / "f", "security.capability") == capability


async def test_a_sparse_file_stays_sparse(layers: Layers, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    tar = subprocess.run(
        ["tar", "-C", tmp_path, "--sparse", "-cf", "-", "sparse"], capture_output=True, check=True
    ).stdout
    _, root = await unpack(layers, tar)
    seen = (root / "sparse").stat()
    assert seen.st_size == (64 << 20) + 3 and seen.st_blocks * 512 < 1 << 20
    assert (root / "sparse").read_bytes()[-3:] == b"end"


def header(kind: bytes, content: bytes, name: str = "x") -> bytes:
    """A member as it is in a tar, whatever a library would say to it."""
    head = tarfile.TarInfo(name)
    head.type, head.size = kind, len(content)
    return head.tobuf() + content + b"\0" * (-len(content) % 512)


def pax(*records: bytes) -> bytes:
    return header(tarfile.XHDTYPE, b"".join(records)) + header(tarfile.REGTYPE, b"content")


def record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE` and a newline, where LENGTH counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


END = bytes(1024)
INVALID = "^archive/tar: invalid tar header$"
TOO_LONG = "^archive/tar: header field too long$"


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        pytest.param(pax(b"1" * 200_000), INVALID, id="digits"),
        pytest.param(pax(record(b"comment", b"1" * 200_000), b"9" * 50_000), INVALID, id="digits-after-digits"),
        pytest.param(pax(b"0 a=b\n"), INVALID, id="length-of-nothing"),
        pytest.param(pax(b"99 a=b\n"), INVALID, id="length-beyond-its-end"),
        pytest.param(pax(b"4 a\n"), INVALID, id="no-value"),
        pytest.param(pax(b"6 a=bc"), INVALID, id="no-newline"),
        pytest.param(pax(b"-6 a=b\n"), INVALID, id="length-below-nothing"),
        pytest.param(pax(record(b"path", b"a\0b")), INVALID, id="nul-in-name"),
        pytest.param(pax(record(b"mtime", b"inf")), INVALID, id="time-without-end"),
        pytest.param(pax(record(b"mtime", b"9" * 5000)), INVALID, id="time-of-5000-digits"),
        pytest.param(pax(record(b"size", b"-1")), INVALID, id="size-below-nothing"),
        pytest.param(pax(record(b"GNU.sparse.map", b"1,x")), INVALID, id="sparse-map-of-letters"),
        pytest.param(
            pax(record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.minor", b"0")), INVALID, id="no-sparse-map"
        ),
        pytest.param(pax(record(b"path", b"n" * 5000)), TOO_LONG, id="long-name"),
        pytest.param(pax(record(b"linkpath", b"\xff" * 5000)), TOO_LONG, id="long-link"),
        pytest.param(pax(record(b"comment", b"x" * 300_000)), TOO_LONG, id="long-comment"),
        pytest.param(header(tarfile.GNUTYPE_LONGNAME, b"n" * 5000) + header(b"0", b""), TOO_LONG, id="long-gnu-name"),
        pytest.param(header(tarfile.GNUTYPE_LONGLINK, b"n" * 5000) + header(b"2", b""), TOO_LONG, id="long-gnu-link"),
        pytest.param(header(tarfile.XHDTYPE, record(b"a", b"b")) + END, INVALID, id="an-extension-of-nothing"),
        pytest.param(header(tarfile.XHDTYPE, record(b"a", b"b")), "^unexpected EOF$", id="cut-after-an-extension"),
        pytest.param(
            make_tar([entry("d/", kind=DIR), entry("l", kind=LNK, linkname="d")]),
            "hard link to the folder",
            id="hard-link-to-a-folder",
        ),
    ],
)
async def test_a_header_that_says_what_cannot_be_is_refused_at_once(layers: Layers, tar: bytes, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidParameter, match=message):
        await unpack(layers, tar)
    assert time.monotonic() - started < 5 and leftovers(layers) == []


async def test_digits_without_end_in_a_pax_header_are_read_at_once(layers: Layers) -> None:
    started = time.monotonic()
    _, root = await unpack(layers, pax(record(b"comment", b"1" * 200_000), record(b"path", b"f")) + END)
    assert time.monotonic() - started < 5 and (root / "f").read_bytes() == b"content"


async def test_extensions_of_extensions_are_read_and_the_last_one_counts(layers: Layers) -> None:
    named = [header(tarfile.XHDTYPE, record(b"path", f"f{number}".encode())) for number in range(3000)]
    _, root = await unpack(layers, b"".join(named) + header(tarfile.REGTYPE, b"content") + END)
    assert [path.name for path in root.iterdir()] == ["f2999"]


async def test_a_name_as_long_as_linux_has_them_comes_along(layers: Layers) -> None:
    name = "/".join(["n" * 200] * 19)
    target = "t" * 4000
    gnu = io.BytesIO()
    with tarfile.open(fileobj=gnu, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(entry(name, kind=SYM, linkname=target)[0])
    for tar in (gnu.getvalue(), make_tar([entry(name, kind=SYM, linkname=target)])):
        _, root = await unpack(layers, tar)
        assert str((root / name).readlink()) == target


async def test_what_a_global_header_says_of_all_members_is_ignored_as_docker_does(layers: Layers) -> None:
    tar = header(tarfile.XGLTYPE, record(b"path", b"everything")) + header(tarfile.REGTYPE, b"content", "f") + END
    _, root = await unpack(layers, tar)
    assert [path.name for path in root.iterdir()] == ["f"]


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
async def test_each_way_to_tell_of_holes_is_understood(layers: Layers, tmp_path: Path, version: str) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 20)
        file.write(b"end")
    options = ["--sparse", "--format=pax", f"--sparse-version={version}"]
    tar = subprocess.run(["tar", "-C", tmp_path, *options, "-cf", "-", "sparse"], capture_output=True, check=True)
    _, root = await unpack(layers, tar.stdout)
    assert (root / "sparse").read_bytes() == sparse.read_bytes()


def broken_tars() -> list[object]:
    tar = make_tar([entry("a", b"x" * 5000), entry("b", b"y" * 5000)])
    damaged = bytearray(tar)
    damaged[512 + 5120 + 10] ^= 0xFF  # in the second header
    big = io.BytesIO()
    with tarfile.open(fileobj=big, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry("f", pax_headers={"comment": "x" * (2 << 20)})[0])
    return [
        pytest.param(tar[:3000], "unexpected EOF", id="cut-in-content"),
        pytest.param(tar[: 512 + 5120 + 100], "unexpected EOF", id="cut-in-header"),
        pytest.param(gzip.compress(tar)[:-40], "unexpected EOF", id="cut-gzip"),
        pytest.param(bytes(damaged), "archive/tar: invalid tar header", id="damaged-header"),
        pytest.param(b"this is no tar at all" * 100, "archive/tar: invalid tar header", id="text"),
        pytest.param(b"short", "unexpected EOF", id="short"),
        pytest.param(b"", "EOF", id="empty"),
        pytest.param(gzip.compress(tar)[:30] + b"\0" * 60, "damaged", id="damaged-gzip"),
        pytest.param(big.getvalue(), "archive/tar: header field too long", id="huge-header"),
        pytest.param(make_tar([entry("x", kind=b"Z")]), "unhandled tar header type 90", id="unknown-type"),
    ]


@pytest.mark.parametrize(("tar", "message"), broken_tars())
async def test_a_broken_tar_is_a_clear_error_and_leaves_nothing(layers: Layers, tar: bytes, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        await unpack(layers, tar)
    assert leftovers(layers) == [] and list(layers.root.iterdir()) == [] and list(layers.blobs.iterdir()) == []


async def test_content_that_is_not_what_was_promised_is_refused(layers: Layers) -> None:
    with pytest.raises(InvalidParameter, match="invalid diffID"):
        await unpack(layers, make_tar([entry("f", b"x")]), "sha256:" + "0" * 64)
    assert leftovers(layers) == [] and list(layers.root.iterdir()) == []


async def test_a_sender_that_breaks_off_leaves_nothing(layers: Layers) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        raise InvalidParameter("gone")

    with pytest.raises(InvalidParameter, match="gone"):
        await layers.receive(broken())
    assert leftovers(layers) == []


async def test_a_full_disk_is_a_clear_error_and_what_was_there_stays(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], check=True)
    try:
        layers = Layers(small / "images")
        layers.open()
        kept, root = await unpack(layers, make_tar([entry("kept", b"k" * 1000)]))
        with pytest.raises(Unavailable, match="no space left on device"):
            await unpack(layers, make_tar([entry("big", os.urandom(6 << 20))]))
        # It arrives, and does not fit once more beside itself.
        with pytest.raises(Unavailable, match="no space left on device"):
            await unpack(layers, make_tar([entry("half", os.urandom(3 << 20))]))
        assert (root / "kept").read_bytes() == b"k" * 1000
        assert leftovers(layers) == [] and len(list(layers.root.iterdir())) == 1
        again = Layers(small / "images")
        again.open()
        assert again.get(kept.diff_id) == kept
    finally:
        # Lazily: the helper lets go of its mounts a moment after its answer.
        subprocess.run(["umount", "--lazy", small], check=True)


async def test_an_error_of_the_unpacker_names_the_file(layers: Layers) -> None:
    with pytest.raises(BennuError, match=r"not a directory|file exists"):
        await unpack(layers, make_tar([entry("a", b"file"), entry("a/b", b"x")]))


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "/etc"]), min_size=1, max_size=4)
KINDS = st.sampled_from([tarfile.REGTYPE, DIR, SYM, LNK])
WISHES = st.lists(st.tuples(NAMES.map("/".join), KINDS, NAMES.map("/".join)), min_size=1, max_size=8)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wishes=WISHES)
async def test_whatever_a_tar_asks_for_nothing_outside_its_layer_changes(
    layers: Layers, tmp_path: Path, wishes: list[tuple[str, bytes, str]]
) -> None:
    def outside() -> set[Path]:
        inside = (layers.root, layers.blobs)
        return {path for path in tmp_path.rglob("*") if not any(folder in path.parents for folder in inside)}

    before = outside()
    tar = make_tar(
        entry(name or "x", b"data" if kind == tarfile.REGTYPE else b"", kind=kind, linkname=target)
        for name, kind, target in wishes
    )
    with contextlib.suppress(InvalidParameter, BennuError):
        await unpack(layers, tar)
    assert outside() == before
