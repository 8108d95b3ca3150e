"""A tar as it comes: decompressed, digested, header by header, whatever its author has made of it.

While it is read, {"read": bytes} tells how far.
"""

import bz2
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
MAX_NAME: Final = 4096  # bytes; Linux has no longer paths, nor longer targets of links
MAX_RECORDS: Final = 256 << 10  # bytes of a pax header: names, times, and extended attributes of up to 64 KB
MAX_LENGTH_DIGITS: Final = 7
INVALID: Final = "archive/tar: invalid tar header"
TOO_LONG: Final = "archive/tar: header field too long"
GNU_FIELDS: Final = {tarfile.GNUTYPE_LONGNAME: "name", tarfile.GNUTYPE_LONGLINK: "linkname"}
PAX_TYPES: Final = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
NAMES: Final = ("path", "linkpath", "uname", "gname", "GNU.sparse.name")
REPORT_EVERY: Final = 4 << 20
GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
GZIP_BYTES: Final = 256 << 10
Say = Callable[[Any], None]


class Reporting(io.RawIOBase):
    """The input as it comes, telling how far it was read."""

    def __init__(self, source: int, say: Say, *, is_digested: bool = False) -> None:
        self._descriptor = source
        self._hash = hashlib.sha256() if is_digested else None
        self._say = say
        self._count = 0
        self._reported = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.readv(self._descriptor, [buffer])
        if self._hash:
            self._hash.update(memoryview(buffer)[:count])
        self._count += count
        if self._count - self._reported >= REPORT_EVERY:
            self._reported = self._count
            self._say({"read": self._count})
        return count

    @property
    def digest(self) -> str:
        """The digest of what was read."""
        return f"sha256:{self._hash.hexdigest()}" if self._hash else ""


class PlainTar:
    """The plain tar, read forward: what the library's reader of archives asks of a file, without its copies.

    `count` is how much was read.
    """

    def __init__(self, source: Any, *, is_digested: bool = False) -> None:
        self._source = source
        self._hash = hashlib.sha256() if is_digested else None
        self.count = 0

    def read(self, size: int) -> bytes:
        """Read `size` bytes, less only at the end."""
        data: bytes = self._source.read(size)
        while 0 < len(data) < size and (more := self._source.read(size - len(data))):
            data += more
        if self._hash:
            self._hash.update(data)
        self.count += len(data)
        return data

    def tell(self) -> int:
        return self.count

    def seek(self, place: int) -> int:
        """Go on at a later place. Raises: tarfile.StreamError for an earlier one."""
        if place < self.count:
            raise tarfile.StreamError("seeking backwards is not allowed")
        while self.count < place and self.read(min(CHUNK, place - self.count)):
            pass
        return self.count

    def drain(self) -> None:
        while self.read(CHUNK):
            pass

    @property
    def digest(self) -> str:
        """The digest of what was read."""
        return f"sha256:{self._hash.hexdigest()}" if self._hash else ""


class GzipReader(io.RawIOBase):
    """The plain bytes of gzip, of one member or several; zeros may follow. Raises: zlib.error, EOFError."""

    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source
        self._unpacker = zlib.decompressobj(GZIP_WINDOW)
        self._is_begun = False  # a member that has not ended yet

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = self._unpacker.unconsumed_tail or self._next()
            if not data:
                return 0
            self._is_begun = True
            plain = self._unpacker.decompress(data, len(buffer))
            if self._unpacker.eof:
                self._rest = self._unpacker.unused_data
                self._unpacker = zlib.decompressobj(GZIP_WINDOW)
                self._is_begun = False
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)

    _rest = b""

    def _next(self) -> bytes:
        """Answer what is to be unpacked next; nothing at the end. Raises: EOFError inside of a member."""
        data, self._rest = self._rest, b""
        data = data or self._source.read1(GZIP_BYTES)
        while data and not self._is_begun and not data.lstrip(b"\0"):
            data = self._source.read1(GZIP_BYTES)
        if not data and self._is_begun:
            raise EOFError
        return data if self._is_begun else data.lstrip(b"\0")


class Member(tarfile.TarInfo):
    """A header and what extends it, read in bounded memory and in time that grows with its length, whoever wrote it.

    The library by itself takes a damaged header in the middle for the end of the archive, reads extensions of
    extensions by recursion, and their text with regular expressions that take minutes for a row of digits.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "Member":
        try:
            return cls._read_member(tarfile_)
        except cast(Any, tarfile).TruncatedHeaderError:
            raise Refused("unexpected EOF") from None
        except cast(Any, tarfile).InvalidHeaderError:
            raise Refused(INVALID) from None

    @classmethod
    def _read_member(cls, archive: tarfile.TarFile) -> "Member":
        stream = cast(Any, archive).fileobj
        fields: dict[str, str] = {}
        records: list[tuple[str, str]] = []
        member = cls._read_header(stream)  # the end of the archive is the library's to see
        try:
            while member.type in GNU_FIELDS or member.type in PAX_TYPES:
                text = member._read_extension(stream)
                if member.type in GNU_FIELDS:
                    fields[GNU_FIELDS[member.type]] = decode(text.partition(b"\0")[0])
                elif member.type != tarfile.XGLTYPE:  # a global one (git writes them) is ignored, as Docker does
                    records = parse_records(text)
                member = cls._read_header(stream)
        except cast(Any, tarfile).EmptyHeaderError:
            raise Refused("unexpected EOF") from None
        except cast(Any, tarfile).EOFHeaderError:
            raise Refused(INVALID) from None
        return member._extended(archive, fields, records)

    @classmethod
    def _read_header(cls, stream: Any) -> "Member":
        member = cls.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        if member.size < 0:
            raise Refused(INVALID)
        return member

    def _read_extension(self, stream: Any) -> bytes:
        if self.size > (MAX_NAME + 1 if self.type in GNU_FIELDS else MAX_RECORDS):
            raise Refused(TOO_LONG)
        text: bytes = stream.read(cast(Any, self)._block(self.size))
        if len(text) < self.size:
            raise Refused("unexpected EOF")
        return text[: self.size]

    def _extended(self, archive: tarfile.TarFile, fields: dict[str, str], records: list[tuple[str, str]]) -> "Member":
        """Build the member with the extensions' values in place; `archive` knows then where the next header is."""
        said = dict(records)
        library = cast(Any, self)
        if size := said.pop("size", ""):
            self.size = whole_number(size)
        member: Member = library._proc_member(archive)
        for field, text in fields.items():
            setattr(member, field, text)
        if "GNU.sparse.map" in said:
            library._proc_gnusparse_01(member, said)
        elif "GNU.sparse.size" in said:
            offsets, lengths = (
                [whole_number(text) for key, text in records if key == f"GNU.sparse.{name}"]
                for name in ("offset", "numbytes")
            )
            cast(Any, member).sparse = list(zip(offsets, lengths, strict=True))
        elif (said.get("GNU.sparse.major"), said.get("GNU.sparse.minor")) == ("1", "0"):
            library._proc_gnusparse_10(member, said, archive)
        cast(Any, member)._apply_pax_info(said, "utf-8", "surrogateescape")
        if any(len(name.encode("utf-8", "surrogateescape")) > MAX_NAME for name in (member.name, member.linkname)):
            raise Refused(TOO_LONG)
        return member


def parse_records(text: bytes) -> list[tuple[str, str]]:
    """Parse a pax header: `LENGTH KEY=VALUE` and a newline each, where LENGTH counts all of it. Raises: Refused."""
    records = []
    start = 0
    while start < len(text):
        digits, space, _ = text[start : start + MAX_LENGTH_DIGITS + 1].partition(b" ")
        if not space or not digits.isdigit():
            raise Refused(INVALID)
        end = start + int(digits)
        key, equals, value = text[start + len(digits) + 1 : end].partition(b"=")
        if end > len(text) or not key or not equals or not value.endswith(b"\n"):
            raise Refused(INVALID)
        records.append((decode(key), decode(value[:-1])))
        if records[-1][0] in NAMES and b"\0" in value:
            raise Refused(INVALID)
        start = end
    return records


def whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Refused(INVALID)
    return int(text)


def decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def decompress(source: Any) -> Any:
    """Open the plain tar behind a buffered reader: gzip, bzip2, xz, zstd or not compressed. Raises: Refused."""
    magic = source.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return io.BufferedReader(GzipReader(source), CHUNK)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(source)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(source)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.Reader(source)
    return source


def open_source(descriptor: int, say: Say) -> io.BufferedReader:
    return io.BufferedReader(Reporting(descriptor, say), CHUNK)


def open_tar(source: io.BufferedReader) -> PlainTar:
    return PlainTar(decompress(source))


def read_members(tar: PlainTar, take: Callable[[tarfile.TarFile, tarfile.TarInfo], None]) -> None:
    """Read every header in order, then the rest of the stream. Raises: Refused."""
    try:
        with tarfile.TarFile(
            fileobj=cast(Any, tar), mode="r", encoding="utf-8", tarinfo=Member, errorlevel=2
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
    except (tarfile.TarError, ValueError, OverflowError):  # a number, a name or a place that cannot be
        raise Refused(INVALID) from None


def next_member(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Read the next header; None at the end.

    The docker command ends a context with neither padding nor trailer; content was counted as it was read.
    """
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
    return INVALID
