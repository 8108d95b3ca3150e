"""How much of what a step says is told: BuildKit's limits, in its words. Pure."""

from typing import Final

SIZE: Final = 2 << 20  # bytes a stream
SPEED: Final = 200 << 10  # bytes a second, on average
KEPT: Final = 256 << 10  # of what was left out; a failed step shows it
S: Final = 10**9


class LogLimit:
    """Limits one stream of one step. Time is whatever the caller's clock says, in nanoseconds."""

    def __init__(self, begun_ns: int) -> None:
        self._begun_ns = begun_ns
        self._size = 0
        self._clipping = False
        self._kept: bytearray | None = None

    def pass_on(self, data: bytes, now_ns: int) -> bytes:
        """Answer what is to be told of `data`; where it begins to be left out, this is said once."""
        room, reached = self._room(now_ns)
        told = data[: max(0, room - self._size)]
        self._size += len(data)
        if self._kept is None and len(told) < len(data):
            self._kept = bytearray()
        if self._kept is not None:
            self._kept += data
            del self._kept[:-KEPT]
        if len(told) == len(data):
            self._clipping = False
        elif not self._clipping:
            self._clipping = True
            told += f"\n[output clipped, log limit {reached} reached]\n".encode()
        return told

    def _room(self, now_ns: int) -> tuple[int, str]:
        seconds = -(-(now_ns - self._begun_ns) // S)
        by_speed = seconds * SPEED
        return (by_speed, "200KiB/s") if by_speed <= SIZE else (SIZE, "2MiB")

    def kept(self) -> bytes:
        """Answer the last of it, if anything was left out."""
        return bytes(self._kept or b"")
