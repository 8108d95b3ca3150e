"""Tells of progress now and then."""

import time
from collections.abc import Callable
from typing import Final

TELL_S: Final = 0.1  # at most so often, as dockerd


class Paced:
    """Passes counts on to `tell`, not more often than people can read; the last one, `total`, always."""

    def __init__(self, tell: Callable[[int], None], total: int) -> None:
        self._tell = tell
        self._total = total
        self._told_at = 0.0

    def count(self, current: int) -> None:
        """Hear of progress."""
        now = time.monotonic()
        if now - self._told_at >= TELL_S or current >= self._total:
            self._told_at = now
            self._tell(current)
