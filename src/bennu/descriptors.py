"""The last descriptors of this process are kept for what nobody can do without.

A daemon that has opened all it may must still be able to stop and remove what fills it, and to hear who asks for that.
So its soft limit lies below the hard one, and is lifted for as long as something ends (`reserve`). And whoever accepts
connections of containers in numbers asks whether it may keep one more (`is_spare`), so that requests and starts, which
do not ask, find some left. One event loop's thread only.
"""

import contextlib
import errno
import resource
from collections.abc import Iterator
from typing import Final

KEPT: Final = 64
FOR_ENDS: Final = KEPT // 2  # of these nobody who merely connects may take any
FOR_REQUESTS: Final = 64
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # no more can be opened
_in_use: list[int] = []  # how many each of those who have opened it leaves to others


def keep_back() -> None:
    """Begin to keep descriptors back. To be called once, before the first container."""
    _apply()


@contextlib.contextmanager
def reserve(*, leave: int = 0) -> Iterator[None]:
    """Let the block open descriptors of the reserve, except `leave` of them. Keep the block short."""
    _in_use.append(leave)
    _apply()
    try:
        yield
    finally:
        _in_use.remove(leave)
        _apply()


def is_spare(fd: int) -> bool:
    """Tell whether a descriptor that was just made may be kept by a caller that can do without it.

    The kernel gives the lowest number that is free, so the number tells how many are in use.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return fd < min(soft, hard - _kept(hard)) - FOR_REQUESTS


def _kept(hard: int) -> int:
    return min(KEPT, hard // 4)


def _apply() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = _kept(hard)
    left = min(_in_use, default=KEPT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - kept * left // KEPT, hard))
