"""The effects of a person's signal on a container beside its delivery. Pure."""

from dataclasses import dataclass
from signal import SIGKILL


@dataclass(frozen=True, slots=True)
class KillEffect:
    """A signal's effects: whether the policy is called off (for good, until the next start), whether a pause ends."""

    cancel_restart: bool
    unpause: bool


def effect_of_signal(stop_signal: int | None, signal: int, *, paused: bool) -> KillEffect:
    """Compute a signal's effects by dockerd's rule.

    A container whose image declares a stop signal can be sent other signals without being taken for stopped.

    Args:
        stop_signal: the signal declared in the container's configuration; None when it declares none, and then *any*
            signal counts as the wish that it end.
    """
    ends = stop_signal is None or signal in (stop_signal, SIGKILL)
    return KillEffect(cancel_restart=ends, unpause=ends and paused)
