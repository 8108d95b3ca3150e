"""A tar as it comes: decompressed, digested, header by header, whatever its author has made of it.

While it is read, {"read": bytes} tells how far.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable
from typing import Any, Final, cast

from bennu.confined import zstd
from bennu.confined.words import Refused

CHUNK: Final = 1 << 20
MAX_EXTENDED_HEADER: Final = 1 << 20  # as Go's archive/tar: a longer one is an attack, not a name
REPORT_EVERY: Final = 4 << 20
Say = Callable[[Any], None]


class Reporting(io.RawIOBase):
    """The input as it comes, telling how far it was read."""

    def __init__(self, source: int, say: Say) -> None:
        self._descriptor = source
        self._say = say
        self._count = 0
        self._reported = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.readv(self._descriptor, [buffer])
        self._count += count
        if self._count - self._reported >= REPORT_EVERY:
            self._reported = self._count
            self._say({"read": self._count})
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
            raise Refused("unexpected EOF") from None
        except cast(Any, tarfile).InvalidHeaderError:
            raise Refused("archive/tar: invalid tar header") from None

    def _bound(self) -> None:
        if self.size > MAX_EXTENDED_HEADER:
            raise Refused("archive/tar: header field too long")

    def _proc_gnulong(self, archive: tarfile.TarFile) -> Any:
        self._bound()
        return super()._proc_gnulong(archive)  # type: ignore[misc]

    def _proc_pax(self, archive: tarfile.TarFile) -> Any:
        self._bound()
        return super()._proc_pax(archive)  # type: ignore[misc]


def decompress(source: io.BufferedReader) -> Any:
    """The plain tar, whatever it was compressed with. Raises: Refused."""
    magic = source.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=source)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(source)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(source)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.Reader(source)
    return source


def open_source(descriptor: int, say: Say) -> io.BufferedReader:
    return io.BufferedReader(Reporting(descriptor, say), CHUNK)


def open_tar(source: io.BufferedReader) -> Digesting:
    return Digesting(decompress(source))


def read_members(tar: Digesting, take: Callable[[tarfile.TarFile, tarfile.TarInfo], None]) -> None:
    """Every header in order, then the rest of the stream. Raises: Refused."""
    try:
        with tarfile.open(
            fileobj=cast(Any, tar), mode="r|", bufsize=CHUNK, encoding="utf-8", tarinfo=Member, errorlevel=2
        ) as archive:
            while (member := next_member(archive)) is not None:
                take(archive, member)
                cast(Any, archive).members = []  # remembered for ever otherwise
        tar.drain()
    except tarfile.ReadError as error:
        raise Refused(words_of(error, tar.count)) from None
    except EOFError:
        raise Refused("unexpected EOF") from None
    except (lzma.LZMAError, zlib.error, zstd.Damaged) as error:
        raise Refused(f"the compressed layer is damaged: {error}") from None
    except RecursionError:  # the library reads extensions of extensions so
        raise Refused("archive/tar: invalid tar header") from None
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise Refused(str(error)) from None


def next_member(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The docker command ends a context with neither padding nor trailer; content was counted as it was read."""
    try:
        return archive.next()
    except tarfile.ReadError as error:
        if str(error) == "unexpected end of data":
            return None
        raise


def words_of(error: tarfile.ReadError, count: int) -> str:
    words = str(error)
    if "zlib" in words:
        return f"the compressed layer is damaged: {words}"
    if count == 0:
        return "EOF"
    if "unexpected end" in words or "truncated" in words or "empty" in words:
        return "unexpected EOF"
    return "archive/tar: invalid tar header"
