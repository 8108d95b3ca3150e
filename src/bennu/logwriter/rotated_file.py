"""The files of one log as they are written: the present one, and older ones rotated away as `.1`, `.2.gz`, …"""

import contextlib
import json
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

BLOCK: Final = 256 * 1024
MODE: Final = 0o640
GZIP: Final = ".gz"
HALF_DONE: Final = ".tmp"
PATIENCE_S: Final = 0.1  # with a compression at a run's end, for all other runs wait meanwhile
GZIP_HEAD: Final = struct.Struct("<2sBBIBBH")  # the last number: the length of the extra field, which is JSON
GZIP_MAGIC: Final = b"\x1f\x8b"
GZIP_EXTRA: Final = 4  # the flag that says there is one


class Bounds(NamedTuple):
    """A file is rotated before the line that follows `max_bytes`; `max_files` are kept, the present one included.

    `max_bytes` 0: the file grows without end.
    """

    max_bytes: int = 0
    max_files: int = 1
    compress: bool = False


class RotatedFile:
    """The writing end of a log. Blocking; for one thread. A file that was rotated away is compressed by another."""

    def __init__(self, path: Path, bounds: Bounds, compressed: Callable[[], None]) -> None:
        """Go on with what another writer left half done; `compressed` is called from a thread after a compression."""
        self._path = path
        self._bounds = bounds
        self._compressed = compressed
        self._compressing: threading.Thread | None = None
        self._given_up = threading.Event()
        self._descriptor = -1
        self._size = 0
        if bounds.compress and rotated(path, 1).exists():
            self._compress()

    @property
    def is_busy(self) -> bool:
        """Whether a compression is under way, which the next rotation has to wait for."""
        return self._compressing is not None

    def write(self, lines: bytes) -> bytes:
        """Write whole lines; answer those that have to wait for a compression. Raises: OSError; then they are lost."""
        start = 0
        if lines and self._descriptor < 0:
            self._open()
        while start < len(lines):
            end, bound = len(lines), self._bounds.max_bytes
            if bound:
                if self._size >= bound:
                    if self.is_busy:
                        return lines[start:]
                    self._rotate()
                room = max(1, bound - self._size)  # none where the rotation failed: line by line it is tried again
                end = lines.find(b"\n", min(start + room, end) - 1) + 1
            self._append(memoryview(lines)[start:end])
            start = end
        return b""

    def wait(self) -> None:
        """Wait a moment for a compression that is under way, then give it up: the next run takes it up again."""
        compressing = self._compressing
        if compressing is not None:
            compressing.join(PATIENCE_S)
            self._given_up.set()
            compressing.join()
            self._given_up.clear()

    def close(self) -> None:
        """Close the file; a compression is over then, or given up. Idempotent."""
        self.wait()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        self._size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._append(memoryview(b"\n"))  # a writer was killed within a line

    def _append(self, lines: memoryview) -> None:
        """Write all of it, or nothing: a line that is cut by a full disk would spoil the next one."""
        before = self._size
        try:
            while lines:
                written = os.write(self._descriptor, lines)
                self._size += written
                lines = lines[written:]
        except OSError:
            if self._size != before:
                os.ftruncate(self._descriptor, max(0, os.fstat(self._descriptor).st_size - (self._size - before)))
                self._size = before
            raise

    def _rotate(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        with contextlib.suppress(OSError):  # then the present file grows: better than to lose lines
            shift(self._path, self._bounds.max_files)
        self._open()
        if self._bounds.compress and self._bounds.max_files > 1:
            self._compress()

    def _compress(self) -> None:
        self._compressing = threading.Thread(target=self._run_compression, daemon=True)
        try:
            self._compressing.start()
        except RuntimeError:  # the host gives no thread: it stays as it is
            self._compressing = None

    def _run_compression(self) -> None:
        try:
            with contextlib.suppress(OSError):  # then it stays as it is
                compress(rotated(self._path, 1), self._given_up)
        finally:
            self._compressing = None
            self._compressed()


def rotated(path: Path, number: int, ending: str = "") -> Path:
    """Name the `number`th file before the present one; 0 is the present one itself."""
    return path.with_name(f"{path.name}.{number}{ending}") if number else path


def shift(path: Path, max_files: int) -> None:
    """Move each file one number further, and drop the last, so that there is no present one. Raises: OSError."""
    kept = 0  # files before the present one, as many as there are and are to be kept
    while kept < max_files - 1 and any(rotated(path, kept + 1, ending).exists() for ending in ("", GZIP)):
        kept += 1
    if max_files < 2:
        path.unlink(missing_ok=True)
        return
    if kept == max_files - 1:
        for ending in (GZIP, ""):
            rotated(path, kept, ending).unlink(missing_ok=True)
        kept -= 1
    for number in range(kept, -1, -1):
        for ending in (GZIP, "") if number else ("",):
            with contextlib.suppress(FileNotFoundError):
                rotated(path, number, ending).rename(rotated(path, number + 1, ending))


def compress(path: Path, given_up: threading.Event) -> None:
    """Replace a file by a compressed one, which tells in its head whose place it took. Raises: OSError.

    It stays as it is when `given_up` is set meanwhile.
    """
    half_done = path.with_name(path.name + GZIP + HALF_DONE)
    with path.open("rb") as source, os.fdopen(_create(half_done), "wb") as target:
        extra = json.dumps({"inode": os.fstat(source.fileno()).st_ino}).encode()
        target.write(GZIP_HEAD.pack(GZIP_MAGIC, 8, GZIP_EXTRA, 0, 0, 255, len(extra)) + extra)
        packer, checksum, size = zlib.compressobj(wbits=-zlib.MAX_WBITS), 0, 0
        while block := source.read(BLOCK):
            if given_up.is_set():
                half_done.unlink(missing_ok=True)
                return
            checksum, size = zlib.crc32(block, checksum), size + len(block)
            target.write(packer.compress(block))
        target.write(packer.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))
    half_done.rename(path.with_name(path.name + GZIP))
    path.unlink(missing_ok=True)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)


def read_inode(head: bytes) -> int:
    """Read from the beginning of a compressed file which inode had its lines before; 0 if that is not told."""
    try:
        magic, _, flags, _, _, _, length = GZIP_HEAD.unpack_from(head)
        extra = head[GZIP_HEAD.size : GZIP_HEAD.size + length]
        return int(json.loads(extra)["inode"]) if magic == GZIP_MAGIC and flags & GZIP_EXTRA else 0
    except (struct.error, ValueError, KeyError, TypeError):
        return 0
