"""The last descriptors of this process are kept for ending containers.

A daemon that has opened all it may must still be able to stop and remove what fills it, and to hear who asks for that.
So its soft limit lies below the hard one, and is lifted for as long as something ends. One event loop's thread only.
"""

import contextlib
import resource
from collections.abc import Iterator
from typing import Final

KEPT: Final = 64
FOR_ENDS: Final = KEPT // 2  # of these nobody who merely connects may take any
_in_use: list[int] = []  # how many each of those who have opened it leaves to others


def set_aside() -> None:
    """From here on descriptors are kept. To be called once, before the first container."""
    _apply()


@contextlib.contextmanager
def reserve(*, leave: int = 0) -> Iterator[None]:
    """What is opened in the block may be of the reserve, but for `leave` of it. Keep it short."""
    _in_use.append(leave)
    _apply()
    try:
        yield
    finally:
        _in_use.remove(leave)
        _apply()


def _apply() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = min(KEPT, hard // 4)
    left = min(_in_use, default=KEPT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - kept * left // KEPT, hard))
