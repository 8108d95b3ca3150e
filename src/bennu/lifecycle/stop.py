"""The meaning of a person's signal beside its delivery: whether it asks for the end, whether it ends a pause. Pure."""

from signal import SIGINT, SIGKILL, SIGTERM


def asks_for_end(stop_signal: int | None, signal: int) -> bool:
    """Tell whether a signal sent by `kill` is by itself the wish that the container end.

    Others ask a program for something else (a reload, a thread dump) as often as they end it: what they were is seen
    by what they do.

    Args:
        stop_signal: the signal declared in the container's configuration; None when it declares none.
    """
    return signal in ((SIGTERM, SIGINT, SIGKILL) if stop_signal is None else (stop_signal, SIGKILL))


def may_call_off(stop_signal: int | None, signal: int) -> bool:
    """Tell whether a death by this signal calls the restart policy off, and whether it ends a pause, by dockerd's rule.

    A container that declares a stop signal can be sent others, and even die of them, without being taken for stopped.
    """
    return stop_signal is None or signal in (stop_signal, SIGKILL)
