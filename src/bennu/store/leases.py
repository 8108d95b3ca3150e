"""When each lease ends. In memory: a sign of life must cost no write, and a store that was away heard none.

Law: only silence that was listened to counts. A keeper that wakes far later than it wanted (its machine or process
stood still) cannot know who spoke meanwhile, and gives every lease its whole time again.
"""

import threading
import time
from collections.abc import Mapping
from typing import Final

from bennu.store.base import LeaseId, LeaseLost

DEAF_NS: Final = 10**9  # later than this is no mere delay


class Leases:
    """Kept alive from any thread, asked by the one that writes. Instants are of the monotonic clock."""

    def __init__(self, ttls_ns: Mapping[LeaseId, int]) -> None:
        self._lock = threading.Lock()
        self._ttls_ns = dict(ttls_ns)
        now_ns = time.monotonic_ns()
        self._ends_ns = {lease: now_ns + ttl_ns for lease, ttl_ns in ttls_ns.items()}

    def begin(self, lease: LeaseId, ttl_ns: int) -> None:
        with self._lock:
            self._ttls_ns[lease] = ttl_ns
            self._ends_ns[lease] = time.monotonic_ns() + ttl_ns

    def end(self, lease: LeaseId) -> None:
        with self._lock:
            self._ttls_ns.pop(lease, None)
            self._ends_ns.pop(lease, None)

    def postpone(self, lease: LeaseId, by_ns: int) -> None:
        """Postpone the end of a lease whose end could not be written."""
        with self._lock:
            self._ends_ns[lease] = time.monotonic_ns() + by_ns

    def keep_alive(self, lease: LeaseId) -> None:
        """Give a sign of life. Raises: LeaseLost."""
        with self._lock:
            if lease not in self._ends_ns:
                raise LeaseLost(f"lease {lease:x} has ended")
            self._ends_ns[lease] = time.monotonic_ns() + self._ttls_ns[lease]

    def seconds_to_next_end(self) -> float | None:
        """Count the seconds to the next end; None: no lease is waited for."""
        with self._lock:
            if not self._ends_ns:
                return None
            return max(0, min(self._ends_ns.values()) - time.monotonic_ns()) / 1e9

    def take_ended(self) -> list[LeaseId]:
        """Take out the leases whose time is over; they cannot be kept alive any more."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if self._ends_ns and now_ns - min(self._ends_ns.values()) > DEAF_NS:
                self._ends_ns = {lease: now_ns + self._ttls_ns[lease] for lease in self._ends_ns}
            ended = [lease for lease, end_ns in self._ends_ns.items() if end_ns <= now_ns]
            for lease in ended:
                del self._ends_ns[lease]
        return ended
