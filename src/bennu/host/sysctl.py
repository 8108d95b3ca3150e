"""The kernel's knobs below /proc/sys/net, in the network namespace of the calling thread."""

from pathlib import Path


def read(name: str) -> str | None:
    """Read a knob; None where the kernel has no such knob."""
    try:
        return Path("/proc/sys/net", name).read_text().strip()
    except OSError:
        return None


def write(name: str, value: str) -> bool:
    """Set a knob; False where the kernel has no such knob or refuses the change."""
    present = read(name)
    if present is None or present == value:
        return present is not None
    try:
        Path("/proc/sys/net", name).write_text(value)
    except OSError:
        return False
    return True
