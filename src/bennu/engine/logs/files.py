"""The files of one container's log: the one conmon writes, and older ones rotated away as `.1`, `.2`, …"""

import asyncio
import contextlib
import datetime
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bennu.engine.logs.records import END_OF_RUN, LINE

BLOCK: Final = 256 * 1024
REOPEN_LOOKS: Final = 500
REOPEN_LOOK_EVERY_S: Final = 0.01


def rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def open_all(path: Path) -> list[int]:
    """Open all files, oldest first; the caller closes the descriptors. A rotation meanwhile shows no file twice."""
    found: list[int] = []
    seen: set[int] = set()
    number = 0
    while True:
        try:
            descriptor = os.open(rotated(path, number) if number else path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if number:
                return found[::-1]
        else:
            inode = os.fstat(descriptor).st_ino
            if inode in seen:
                os.close(descriptor)
            else:
                seen.add(inode)
                found.append(descriptor)
        number += 1


def open_after(path: Path, inode: int) -> int | None:
    """Open the file that was begun when `inode` was rotated away; None while `inode` is the one being written.

    None also between the rename and conmon's new file: more may still arrive in the old one. If the old one is gone
    altogether, the oldest existing file is opened.
    """
    descriptors = open_all(path)
    inodes = [os.fstat(descriptor).st_ino for descriptor in descriptors]
    position = inodes.index(inode) + 1 if inode in inodes else 0
    chosen: int | None = None
    for index, descriptor in enumerate(descriptors):
        if index == position:
            chosen = descriptor
        else:
            os.close(descriptor)
    return chosen


def tail_start(descriptors: Sequence[int], lines: int) -> tuple[int, int]:
    """Find the position from which at least the last `lines` lines follow, each with its beginning.

    Reads backwards, no more than needed: a line of the other stream that began earlier and was never finished is not
    looked for. Answers (index of the file, offset in it).
    """
    missing = lines
    unsettled: set[bytes] = set()  # streams whose first line that follows may have begun earlier
    for index, offset, stream, tag in _backwards(descriptors):
        if missing > 0:
            if tag != END_OF_RUN:
                unsettled.add(stream)
                missing -= tag == b"F"
        elif tag == END_OF_RUN or (tag == b"F" and unsettled <= {stream}):
            return index, offset
        elif tag == b"F":
            unsettled.discard(stream)
        else:  # a piece of a line that ends among those that follow, or never
            unsettled.add(stream)
    return 0, 0


def _backwards(descriptors: Sequence[int]) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Iterate over whole lines, last to first: (index of the file, offset after the line, stream, tag)."""
    for index in range(len(descriptors) - 1, -1, -1):
        end = os.fstat(descriptors[index]).st_size
        rest = b""
        while end > 0:
            begin = max(0, end - BLOCK)
            block = os.pread(descriptors[index], end - begin, begin) + rest
            cut = block.find(b"\n") + 1 if begin else 0  # before it: the end of a line that begins earlier
            if cut or not begin:
                for match in reversed(list(LINE.finditer(block, cut))):
                    yield index, begin + match.end(), match[4], match[5]
            rest, end = block[:cut] if cut else block if begin else b"", begin


# --- keeping the log in its bounds ---------------------------------------------------------------------------------


async def rotate(path: Path, reopen: Callable[[], Awaitable[None]], max_files: int) -> None:
    """Rotate the log and have conmon begin a new file; no line is lost.

    `reopen` tells conmon; if it fails, nothing is rotated. Keeps `max_files` files in all, the one being written
    included. Raises: the errors of `reopen`; OSError.
    """
    await asyncio.to_thread(_shift, path, max_files)
    aside = _inode(rotated(path, 1))
    try:
        await reopen()
    except BaseException:
        _shift_back(path)
        raise
    for _ in range(REOPEN_LOOKS):
        if _inode(path) not in (None, aside):
            break
        await asyncio.sleep(REOPEN_LOOK_EVERY_S)
    if max_files == 1:
        rotated(path, 1).unlink(missing_ok=True)


def _shift(path: Path, max_files: int) -> None:
    kept = max(1, max_files - 1)
    rotated(path, kept).unlink(missing_ok=True)
    for number in range(kept - 1, -1, -1):
        with contextlib.suppress(FileNotFoundError):
            (rotated(path, number) if number else path).rename(rotated(path, number + 1))


def _shift_back(path: Path) -> None:
    if not path.exists():
        rotated(path, 1).rename(path)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def mark_end_of_run(path: Path, now_ns: int) -> None:
    """Write the end of a run to the log, so that the next run does not continue its unfinished last line.

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
        last = {} if match[5] == b"E" else last | {match[4]: match[5]}
    return b"P" in last.values() or (bool(tail) and not tail.endswith(b"\n"))
