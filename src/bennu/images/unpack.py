"""Unpacks one layer into one folder. Run as a program of its own, by path: `unpack.py layer DEST < layer`.

Law: nothing in a tar can touch anything outside DEST. The program changes its root to DEST before it reads the first
header, so absolute names, `..`, symbolic links and hard links can only ever mean places inside. It uses nothing but
the standard library, and runs beside the daemon, so a large layer costs its event loop nothing.

Whiteouts become overlayfs's own: `.wh.x` a character device 0/0 named x, `.wh..wh..opq` the opaque mark on its folder.
Answers one line of JSON: {"diff_id", "tar_size", "size", "root"} or {"error", "errno"}. `size` counts the bytes of
regular files; `root` is whether the tar says how the root folder itself looks. While it works it prints lines
{"read": bytes}.

`unpack.py archive DEST < archive` takes an image archive apart instead: each regular file in it becomes a file of DEST
whose name is a number, told in a line {"name", "file", "digest", "size"}; links are told as {"name", "link"}.

`unpack.py tree DEST < tar` unpacks a build's context: the same as a layer, but `.wh.` means nothing.
"""

# Names out of a tar are used as they are; a Path would clean them.
# ruff: noqa: PTH101, PTH102, PTH103, PTH106, PTH108, PTH112, PTH114, PTH118, PTH123, PTH211

import bz2
import contextlib
import ctypes
import gzip
import hashlib
import io
import json
import lzma
import os
import posixpath
import re
import signal
import stat
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from typing import Any, Final, cast

OPAQUE: Final = "trusted.overlay.opaque"
WHITEOUT: Final = ".wh."
OPAQUE_MARK: Final = ".wh..wh..opq"
AUFS_MARK: Final = ".wh..wh."
XATTR: Final = "SCHILY.xattr."
CHUNK: Final = 1 << 20
MAX_EXTENDED_HEADER: Final = 1 << 20  # as Go's archive/tar: a longer one is an attack, not a name
REPORT_EVERY: Final = 4 << 20
PR_SET_PDEATHSIG: Final = 1
PAX_TIME: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?\Z", re.ASCII)


class BadLayer(Exception):
    """The tar is not one, or asks for what is refused; the message is for people."""


class Reporting(io.RawIOBase):
    """Standard input as it comes, telling how far it was read."""

    def __init__(self) -> None:
        self._count = 0
        self._reported = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.readv(0, [buffer])
        self._count += count
        if self._count - self._reported >= REPORT_EVERY:
            self._reported = self._count
            say({"read": self._count})
        return count


class Digesting:
    """Passes the plain tar on and remembers its digest."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.count = 0

    def read(self, size: int) -> bytes:
        data = cast(bytes, self._source.read(size))
        self._hash.update(data)
        self.count += len(data)
        return data

    def drain(self) -> None:
        while self.read(CHUNK):
            pass

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class Member(tarfile.TarInfo):
    """A header whose extensions are bounded, so that a forged length cannot eat the memory.

    A damaged header in the middle is an error; the library alone takes it for the end of the archive.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "Member":
        try:
            return super().fromtarfile(tarfile_)
        except cast(Any, tarfile).TruncatedHeaderError:
            raise BadLayer("unexpected EOF") from None
        except cast(Any, tarfile).InvalidHeaderError:
            raise BadLayer("archive/tar: invalid tar header") from None

    def _bound(self) -> None:
        if self.size > MAX_EXTENDED_HEADER:
            raise BadLayer("archive/tar: header field too long")

    def _proc_gnulong(self, archive: tarfile.TarFile) -> Any:
        self._bound()
        return super()._proc_gnulong(archive)  # type: ignore[misc]

    def _proc_pax(self, archive: tarfile.TarFile) -> Any:
        self._bound()
        return super()._proc_pax(archive)  # type: ignore[misc]


def decompress(source: io.BufferedReader) -> Any:
    """The plain tar, whatever it was compressed with. Raises: BadLayer."""
    magic = source.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=source)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(source)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(source)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return decompress_zstd()
    return source


def decompress_zstd() -> Any:
    """This standard library has no zstd: let the program do it. Raises: BadLayer."""
    os.lseek(0, 0, os.SEEK_SET)
    try:
        return subprocess.Popen(["zstd", "-d", "-c", "-q"], stdin=0, stdout=subprocess.PIPE).stdout
    except OSError:
        raise BadLayer("the layer is compressed with zstd and the program zstd is not installed") from None


def clean_name(name: str) -> str:
    """The path inside, without a leading slash; "" is the root. Raises: BadLayer when it points outside."""
    clean = posixpath.normpath("./" + name.lstrip("/"))
    if clean == ".." or clean.startswith("../"):
        raise BadLayer(f'"{name}" is outside of the layer')
    return "" if clean == "." else clean


def mtime_ns(member: tarfile.TarInfo) -> int:
    """Exact where the header is; what no file system can hold becomes the epoch."""
    match = PAX_TIME.match(member.pax_headers.get("mtime", ""))
    if match:
        ns = int(match[2]) * 10**9 + int((match[3] or "")[:9].ljust(9, "0"))
        ns = -ns if match[1] else ns
    else:
        ns = int(member.mtime) * 10**9
    return ns if -(2**62) < ns < 2**62 else 0


class Unpacker:
    """Applies headers to the folder that is `/` for this process."""

    def __init__(self, *, whiteouts: bool) -> None:
        self._whiteouts = whiteouts
        self.size = 0
        self.has_root = False
        self._folder_times: dict[str, int] = {}
        self._whited_out: set[str] = set()

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = clean_name(member.name)
        folder, base = posixpath.split(name)
        if not self._whiteouts or not base.startswith(WHITEOUT):
            self._make_folder(folder)
            self._create(archive, member, name)
        elif base == OPAQUE_MARK:
            self._make_folder(folder)
            os.setxattr("/" + folder, OPAQUE, b"y")
        elif base.startswith(AUFS_MARK):
            return
        else:
            self._white_out(folder, base.removeprefix(WHITEOUT))

    def finish(self) -> None:
        """Folders get their times last: filling them changes them."""
        for path, ns in self._folder_times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.utime("/" + path, ns=(ns, ns), follow_symlinks=False)

    def _make_folder(self, folder: str) -> None:
        if not os.path.isdir("/" + folder):
            os.makedirs("/" + folder, mode=0o755, exist_ok=True)

    def _white_out(self, folder: str, base: str) -> None:
        if base in ("", ".", ".."):
            raise BadLayer(f'"{WHITEOUT}{base}" is no name of a removed file')
        self._make_folder(folder)
        path = posixpath.join("/", folder, base)
        if not os.path.lexists(path):
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            self._whited_out.add(path)
        elif os.path.isdir(path) and not os.path.islink(path):
            os.setxattr(path, OPAQUE, b"y")  # removed below, and made anew in this same layer

    def _create(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        path = "/" + name
        if member.isdir():
            self._create_folder(path, name)
            self.has_root = self.has_root or not name
        else:
            if not name:
                raise BadLayer("the root of a layer can only be a folder")
            self._make_room(path)
            self._create_file(archive, member, path)
        if not member.islnk():
            self._dress(member, path)
        if member.isdir():
            self._folder_times[name] = mtime_ns(member)

    def _create_folder(self, path: str, name: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            return
        replaces_whiteout = path in self._whited_out
        self._make_room(path)
        os.mkdir(path, 0o755)
        if replaces_whiteout:
            os.setxattr(path, OPAQUE, b"y")

    def _make_room(self, path: str) -> None:
        """Whatever a later entry of the same name finds in its way is replaced."""
        self._whited_out.discard(path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            remove_tree(path)

    def _create_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        if member.isreg():
            self._write(archive, member, path)
        elif member.islnk():
            os.link("/" + clean_name(member.linkname), path, follow_symlinks=False)
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.isfifo():
            os.mkfifo(path, 0o600)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
        else:
            raise BadLayer(f"unhandled tar header type {member.type[0]}")

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        source = cast(Any, archive.fileobj)
        sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb", buffering=0) as target:
            source.seek(member.offset_data)
            if sparse is None:
                copy(source, target, member.size)
            else:
                for offset, length in sparse:
                    target.seek(offset)
                    copy(source, target, length)
                target.truncate(member.size)
        self.size += member.size

    def _dress(self, member: tarfile.TarInfo, path: str) -> None:
        """Owner, mode, extended attributes, time: in this order, as a change of owner clears setuid bits."""
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            os.chmod(path, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            if key.startswith(XATTR):
                set_xattr(path, key.removeprefix(XATTR), value.encode("utf-8", "surrogateescape"))
        if not member.isdir():
            ns = mtime_ns(member)
            os.utime(path, ns=(ns, ns), follow_symlinks=False)


def set_xattr(path: str, name: str, value: bytes) -> None:
    """Overlayfs's own marks are never taken from an image: they would reach into other layers."""
    if name.startswith(("trusted.overlay.", "user.overlay.")):
        return
    with contextlib.suppress(OSError):  # a file system without them: the file is still the file
        os.setxattr(path, name, value, follow_symlinks=False)


def copy(source: Any, target: Any, length: int) -> None:
    while length > 0:
        data = source.read(min(CHUNK, length))
        if not data:
            raise BadLayer("unexpected EOF")
        length -= len(data)
        write_all(target, data)


def write_all(target: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def remove_tree(path: str) -> None:
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in folders:
            entry = os.path.join(folder, name)
            os.unlink(entry) if os.path.islink(entry) else os.rmdir(entry)
    os.rmdir(path)


def unpack_tree(dest: str) -> dict[str, Any]:
    """Raises: BadLayer, OSError."""
    return unpack(dest, whiteouts=False)


def unpack(dest: str, *, whiteouts: bool = True) -> dict[str, Any]:
    """Unpack a layer from standard input into `dest`. Raises: BadLayer, OSError."""
    tar = Digesting(decompress(io.BufferedReader(Reporting(), CHUNK)))
    flush = enter(dest)
    unpacker = Unpacker(whiteouts=whiteouts)
    read_members(tar, unpacker.add)
    unpacker.finish()
    if whiteouts and ctypes.CDLL(None, use_errno=True).syncfs(flush) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return {"diff_id": tar.digest, "tar_size": tar.count, "size": unpacker.size, "root": unpacker.has_root}


def enter(dest: str) -> int:
    """Make `dest` this process's root; answers a descriptor of it."""
    folder = os.open(dest, os.O_RDONLY | os.O_DIRECTORY)
    os.fchdir(folder)
    os.chroot(".")
    os.umask(0)
    return folder


def read_members(tar: Digesting, take: Callable[[tarfile.TarFile, tarfile.TarInfo], None]) -> None:
    """Every header in order, then the rest of the stream. Raises: BadLayer."""
    try:
        with tarfile.open(
            fileobj=cast(Any, tar), mode="r|", bufsize=CHUNK, encoding="utf-8", tarinfo=Member, errorlevel=2
        ) as archive:
            while (member := next_member(archive)) is not None:
                take(archive, member)
                cast(Any, archive).members = []  # remembered for ever otherwise
        tar.drain()
    except tarfile.ReadError as error:
        raise BadLayer(words_of(error, tar.count)) from None
    except EOFError:
        raise BadLayer("unexpected EOF") from None
    except (lzma.LZMAError, zlib.error) as error:
        raise BadLayer(f"the compressed layer is damaged: {error}") from None


def next_member(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The docker command ends a context with neither padding nor trailer; content was counted as it was read."""
    try:
        return archive.next()
    except tarfile.ReadError as error:
        if str(error) == "unexpected end of data":
            return None
        raise


def take_apart(dest: str) -> dict[str, Any]:
    """Raises: BadLayer, OSError."""
    tar = Digesting(decompress(io.BufferedReader(Reporting(), CHUNK)))
    enter(dest)
    count = 0

    def take(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        nonlocal count
        name = clean_name(member.name)
        if member.isreg() and getattr(member, "sparse", None) is None:
            count += 1
            say({"name": name, "file": str(count), "size": member.size, "digest": write_out(archive, member, count)})
        elif member.issym():
            say({"name": name, "link": clean_name(posixpath.join(posixpath.dirname(name), member.linkname))})
        elif member.islnk():
            say({"name": name, "link": clean_name(member.linkname)})

    read_members(tar, take)
    return {"count": count}


def write_out(archive: tarfile.TarFile, member: tarfile.TarInfo, number: int) -> str:
    source = cast(Any, archive.fileobj)
    source.seek(member.offset_data)
    digest = hashlib.sha256()
    with open(f"/{number}", "xb", buffering=0) as target:
        left = member.size
        while left > 0:
            data = source.read(min(CHUNK, left))
            if not data:
                raise BadLayer("unexpected EOF")
            left -= len(data)
            digest.update(data)
            write_all(target, data)
    return "sha256:" + digest.hexdigest()


def words_of(error: tarfile.ReadError, count: int) -> str:
    words = str(error)
    if "zlib" in words:
        return f"the compressed layer is damaged: {words}"
    if count == 0:
        return "EOF"
    if "unexpected end" in words or "truncated" in words or "empty" in words:
        return "unexpected EOF"
    return "archive/tar: invalid tar header"


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # no unpacking goes on after its daemon
    for codec in ("utf-8", "ascii", "iso8859-1"):
        "".encode(codec)  # loads it now: after the change of root there is nothing to load from
    try:
        say({"layer": unpack, "tree": unpack_tree, "archive": take_apart}[sys.argv[1]](sys.argv[2]))
    except (BadLayer, OSError, tarfile.TarError, ValueError, OverflowError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        where = f" ({error.filename!s})" if isinstance(error, OSError) and error.filename else ""
        say({"error": f"{detail}{where}", "errno": getattr(error, "errno", None)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
