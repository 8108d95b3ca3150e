"""Room on the disk that is kept for the time when there is none: a file that is given up piece by piece.

On a full disk whatever makes room has to be written down first: a removal, a stop, a death. The pieces are small and
each is taken up at once, so that a program which writes without end gets little of what was meant for us.
How much of it is left tells, also to the next daemon, whether the disk was full and still is.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

SIZE: Final = 8 << 20
PIECE: Final = 1 << 20


class Ballast:
    """Used by the store's own threads only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_spent(self) -> bool:
        """Some of it was given up and could not be taken back since."""
        return 0 <= self._held() < SIZE

    def _held(self) -> int:
        """Count the bytes held; -1: there was never room for it."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return -1

    def give_up_piece(self) -> bool:
        """Make room. False: nothing is left to give up."""
        held = self._held()
        if held <= 0:
            return False
        with self._path.open("r+b") as file:
            file.truncate(max(0, held - PIECE))
            os.fsync(file.fileno())  # some file systems lend freed blocks again only after that
        return True

    def take_back(self) -> None:
        """Hold all of it again, if the disk has at least as much left for others then."""
        held = max(0, self._held())
        disk = os.statvfs(self._path.parent)
        if held == SIZE or disk.f_bavail * disk.f_frsize < 2 * SIZE - held:
            return
        with contextlib.suppress(OSError), self._path.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, SIZE)
