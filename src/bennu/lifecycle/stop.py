"""What a signal from a person does to a container beside reaching it. Pure."""

from dataclasses import dataclass
from signal import SIGKILL


@dataclass(frozen=True, slots=True)
class KillEffect:
    """Whether the restart policy is called off (for good, until the next start) and whether a pause ends."""

    cancel_restart: bool
    unpause: bool


def effect_of_signal(stop_signal: int | None, signal: int, *, paused: bool) -> KillEffect:
    """dockerd's rule: an image that declares a stop signal can be sent others without being taken for stopped.

    Args:
        stop_signal: what the container's configuration declares; None when it declares none, and then *any* signal
            counts as the wish that it end.
    """
    ends = stop_signal is None or signal in (stop_signal, SIGKILL)
    return KillEffect(cancel_restart=ends, unpause=ends and paused)
