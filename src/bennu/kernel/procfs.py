"""What /proc tells of processes by their numbers. A number is certain only while its process is held (`pidfd`)."""

import contextlib
import os
from pathlib import Path

from bennu.lifecycle.disposition import SignalView


def is_alive(pid: int) -> bool:
    """Tell whether a process runs under this number; a zombie does not. Raises: OSError when it cannot be known."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return stat[stat.rindex(b")") + 2 :].split(None, 1)[0] not in (b"Z", b"X")
    return False


def parent_of(pid: int) -> int:
    """Answer the parent's number; 0: there is no such process. Raises: OSError when it cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def signal_view(pid: int) -> SignalView:
    """Read what tells how a process takes signals; nothing when there is none, or it cannot be read."""
    folder = Path(f"/proc/{pid}")
    try:
        status = (folder / "status").read_bytes()  # no text: a process may have a carriage return in its name
        return SignalView(status.decode(errors="replace"), (folder / "wchan").read_text())
    except OSError:
        return SignalView()


def cmdline_of(pid: int) -> set[str]:
    """Read the arguments a process was started with, as a set; none if there is no such process.

    Raises: OSError when it cannot be known, for want of descriptors: it may well live.
    """
    try:
        return set(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
    except (FileNotFoundError, ProcessLookupError):
        return set()


def find_by_argument(word: str) -> list[int]:
    """List all living processes with this argument; looks at every process of the host."""
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]
    return [pid for pid in pids if word in cmdline_of(pid) and is_alive(pid)]
