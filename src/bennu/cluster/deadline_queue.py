"""A queue of keys by the instant at which each is due; the next instant is known without a walk over all keys."""

import heapq


class DeadlineQueue:
    """A queue with one instant a key. Instants are of any one clock, in nanoseconds."""

    def __init__(self) -> None:
        self._at_ns: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []  # also holds instants that were replaced since

    def put(self, key: str, at_ns: int | None) -> None:
        """Set the key's instant in place of its former one; None means never."""
        if at_ns is None:
            self._at_ns.pop(key, None)
        elif self._at_ns.get(key) != at_ns:
            self._at_ns[key] = at_ns
            heapq.heappush(self._heap, (at_ns, key))

    def next_ns(self) -> int | None:
        while self._heap and self._at_ns.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ns: int) -> list[str]:
        """Remove and return the keys whose instant has come; they have no instant any more."""
        due = []
        while (next_ns := self.next_ns()) is not None and next_ns <= now_ns:
            _, key = heapq.heappop(self._heap)
            del self._at_ns[key]
            due.append(key)
        return due
