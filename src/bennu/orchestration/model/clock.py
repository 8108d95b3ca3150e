"""The cluster's steady clock: wall time that never runs backwards.

Law: every `now_ns` handed to the core, over all lives of all managers, is at least as large as the one before.

Theory. Delays and windows are stored as instants, so that a manager's death does not lose them; but the wall clock may
be set back by an hour, and a delay of five seconds would then last one. So a manager anchors once when it takes over,
at the wall clock or the newest instant the store knows, whichever is later, and from there on counts with its
monotonic clock. A wall clock that is set back or forth during a manager's life has no effect at all; one that was set
back while no manager lived costs nothing either. One that was set *forward* between two managers ends delays early:
nothing on the machine can tell that from time that really passed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SteadyClock:
    """A converter of readings of the monotonic clock into the cluster's instants. It reads no clock itself."""

    anchor_ns: int
    monotonic_at_anchor_ns: int

    @classmethod
    def take_over(cls, *, wall_ns: int, monotonic_ns: int, newest_stored_ns: int) -> SteadyClock:
        """Anchor at the beginning of a manager's life; `newest_stored_ns` is the latest instant found in the store."""
        return cls(max(wall_ns, newest_stored_ns), monotonic_ns)

    def now_ns(self, monotonic_ns: int) -> int:
        """Compute the instant that belongs to a reading of the same monotonic clock."""
        return self.anchor_ns + max(0, monotonic_ns - self.monotonic_at_anchor_ns)
