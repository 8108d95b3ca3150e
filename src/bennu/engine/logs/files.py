"""The files of one container's log as they are read: the one being written, and older ones, `.1`, `.2.gz`, …"""

import datetime
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from bennu.engine.logs.records import END_OF_RUN, JSON, LINE
from bennu.logwriter.rotated_file import GZIP, read_inode

BLOCK: Final = 256 * 1024
OPEN_TRIES: Final = 50
HEAD_BYTES: Final = 512


class LogFile:
    """One file, open for reading. What is compressed is unpacked when it is first read, to a file without a name."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises: OSError."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._packed = path.suffix == GZIP
        self._folder = path.parent
        self._unpacked: IO[bytes] | None = None
        self.node = os.fstat(self._descriptor).st_ino
        # By this one the file is known before and after its compression.
        self.inode = (read_inode(os.pread(self._descriptor, HEAD_BYTES, 0)) if self._packed else 0) or self.node

    def read(self, size: int, offset: int) -> bytes:
        """Read at most `size` bytes. Raises: OSError."""
        return os.pread(self._ready(), size, offset)

    def size(self) -> int:
        return os.fstat(self._ready()).st_size

    def close(self) -> None:
        os.close(self._descriptor)
        if self._unpacked is not None:
            self._unpacked.close()

    def _ready(self) -> int:
        if not self._packed:
            return self._descriptor
        if self._unpacked is None:
            self._unpacked = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  closed by `close`
            unpacker, offset = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), 0
            while block := os.pread(self._descriptor, BLOCK, offset):
                offset += len(block)
                try:
                    self._unpacked.write(unpacker.decompress(block))
                except zlib.error:  # damaged: what was read until here is all there is
                    break
        return self._unpacked.fileno()


def open_all(path: Path) -> list[LogFile]:
    """Open all files, oldest first; the caller closes them. A rotation meanwhile shows no file twice, and hides none.

    Where one rotation follows the other faster than files can be opened, the oldest may be missing.
    """
    for _ in range(OPEN_TRIES):
        found = _find(path)
        files = [file for name in found if (file := _open(path.with_name(name))) is not None]
        if [file.node for file in files] == [_node(path.with_name(name)) for name in found] and found == _find(path):
            return files
        for file in files:
            file.close()
    nodes: set[int] = set()
    return [file for name in _find(path) if (file := _open(path.with_name(name), nodes)) is not None]


def _find(path: Path) -> list[str]:
    """List the names of a log's files, oldest first; of a file and its compressed copy, the file."""
    names = re.compile(re.escape(path.name) + r"(?:\.([0-9]{1,9})(?:\.gz)?)?")
    found: dict[int, str] = {}
    if not path.parent.is_dir():
        return []
    for name in sorted(os.listdir(path.parent), reverse=True):  # noqa: PTH208
        if match := names.fullmatch(name):
            found[int(match[1] or 0)] = name  # the shorter name comes last
    return [found[number] for number in sorted(found, reverse=True)]


def _open(path: Path, besides: set[int] | None = None) -> LogFile | None:
    """Open a file; None if it is gone, or is one of `besides`, which it is added to."""
    try:
        file = LogFile(path)
    except FileNotFoundError:
        return None
    if besides is not None and file.inode in besides:
        file.close()
        return None
    if besides is not None:
        besides.add(file.inode)
    return file


def _node(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def open_after(path: Path, inode: int) -> LogFile | None:
    """Open the file that was begun when `inode` was rotated away; None while `inode` is the one being written.

    If the old one is gone altogether, the oldest existing file is opened.
    """
    files = open_all(path)
    # An older file may have had the same number; that of a file held open is nobody else's.
    position = max((index + 1 for index, file in enumerate(files) if file.inode == inode), default=0)
    chosen: LogFile | None = None
    for index, file in enumerate(files):
        if index == position:
            chosen = file
        else:
            file.close()
    return chosen


def tail_start(files: Sequence[LogFile], lines: int) -> tuple[int, int]:
    """Find the position from which at least the last `lines` lines follow, each with its beginning.

    Reads backwards, no more than needed: a line of the other stream that began earlier and was never finished is not
    looked for. Answers (index of the file, offset in it).
    """
    missing = lines
    unsettled: set[bytes] = set()  # streams whose first line that follows may have begun earlier
    for index, offset, stream, tag in _backwards(files):
        if missing > 0:
            if tag == JSON:
                missing -= 1
            elif tag != END_OF_RUN:
                unsettled.add(stream)
                missing -= tag == b"F"
        elif tag in (END_OF_RUN, JSON) or (tag == b"F" and unsettled <= {stream}):
            return index, offset
        elif tag == b"F":
            unsettled.discard(stream)
        else:  # a piece of a line that ends among those that follow, or never
            unsettled.add(stream)
    return 0, 0


def _backwards(files: Sequence[LogFile]) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Iterate over whole lines, last to first: (index of the file, offset after the line, stream, tag or `JSON`)."""
    for index in range(len(files) - 1, -1, -1):
        end = files[index].size()
        rest = b""
        while end > 0:
            begin = max(0, end - BLOCK)
            block = files[index].read(end - begin, begin) + rest
            cut = block.find(b"\n") + 1 if begin else 0  # before it: the end of a line that begins earlier
            if cut or not begin:
                for match in reversed(list(LINE.finditer(block, cut))):
                    yield index, begin + match.end(), match[4] or b"", match[5] or JSON
            rest, end = block[:cut] if cut else block if begin else b"", begin


def mark_end_of_run(path: Path, now_ns: int) -> None:
    """Write the end of a run to a log of conmon's lines: the next run does not continue its unfinished last line.

    Only when conmon is gone. Does nothing if the log ends with a whole line. Raises: OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, BLOCK, max(0, size - BLOCK))
        if not _has_unfinished(tail):
            return
        seconds, fraction = divmod(now_ns, 10**9)
        instant = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        torn = b"" if tail.endswith(b"\n") else b"\n"
        os.write(descriptor, torn + f"{instant}.{fraction:09d}+00:00 stdout E \n".encode())
    finally:
        os.close(descriptor)


def _has_unfinished(tail: bytes) -> bool:
    last: dict[bytes, bytes] = {}
    for match in LINE.finditer(tail):
        if match[5]:
            last = {} if match[5] == END_OF_RUN else last | {match[4]: match[5]}
    return b"P" in last.values() or (bool(tail) and not tail.endswith(b"\n"))
