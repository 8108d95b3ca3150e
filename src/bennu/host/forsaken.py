"""Programs at the connects of this host whose daemon is gone.

They outlive a daemon on purpose, and its next life replaces them. Where there is none, because its data root is gone,
they would hang there until the machine ends: every connect goes through them, and there is room for 64 of all daemons.
A daemon says every few seconds, in a map of theirs, that it knows the host's addresses; one that has said nothing for
long does not live, and what its clients then do without is only a shorter way.
"""

import contextlib
import os
import struct
import time
from typing import Final

from bennu import bpf
from bennu.host.finding import Finding, ok

HOOKS: Final = (bpf.INET4_CONNECT, bpf.INET4_GETPEERNAME)
MARK: Final = "bennu"  # what the names of all of them begin with
LOCAL_ADDRESS_KEY_SIZE, LOCAL_ADDRESS_VALUE_SIZE = (
    4,
    8,
)  # of the map: an address of the host, and until when it is believed (ns since boot)
SILENT_S: Final = 600.0


def check_forsaken() -> Finding:
    """Detach the programs of daemons that are gone. Needs root.

    Where the kernel has no such programs, none can be left.
    """
    try:
        with bpf.cgroup_root() as cgroup:
            count = detach_forsaken(cgroup)
            told = f"; {_count_ours(cgroup)} of {bpf.MAX_ATTACHED} places are taken by those of living ones"
    except OSError:
        count, told = 0, ""
    if count:
        return ok("left behind", f"took away {count} programs at connect() of daemons that are gone{told}")
    return ok("left behind", f"no program of a daemon that is gone{told}")


def detach_forsaken(cgroup: int) -> int:
    """Detach programs of daemons that are gone; answer how many. Raises: OSError when it cannot be known."""
    with contextlib.ExitStack() as held:
        found = [(hook, program, name) for hook in HOOKS for program, name in bpf.attached(cgroup, hook).items()]
        for _, program, _ in found:
            held.callback(os.close, program)
        living = {name for hook, program, name in found if hook == bpf.INET4_CONNECT and not _is_silent(program)}
        forsaken = [one for one in found if one[2].startswith(MARK) and one[2] not in living]
        return sum(_detach(cgroup, program, hook) for hook, program, _ in forsaken)


def _count_ours(cgroup: int) -> int:
    found = bpf.attached(cgroup, bpf.INET4_CONNECT)
    for program in found:
        os.close(program)
    return sum(name.startswith(MARK) for name in found.values())


def _detach(cgroup: int, program: int, hook: int) -> bool:
    try:
        bpf.detach(cgroup, program, hook)
    except OSError:  # somebody else did
        return False
    return True


def _is_silent(program: int) -> bool:
    """Tell whether all that its daemon last said has been over for long; one that is starting has said nothing yet."""
    silent_ns = int(SILENT_S * 1e9)
    with contextlib.ExitStack() as held:
        maps = bpf.maps_of(program)
        for fd in maps:
            held.callback(os.close, fd)
        own = [fd for fd in maps if bpf.sizes_of(fd) == (bpf.HASH, LOCAL_ADDRESS_KEY_SIZE, LOCAL_ADDRESS_VALUE_SIZE)]
        until = [
            struct.unpack("=Q", value)[0]
            for fd in own
            for value in bpf.values(fd, LOCAL_ADDRESS_KEY_SIZE, LOCAL_ADDRESS_VALUE_SIZE)
        ]
    if not until:
        return bpf.load_time_ns(program) < time.clock_gettime_ns(time.CLOCK_BOOTTIME) - silent_ns
    latest: int = max(until)
    return latest < time.monotonic_ns() - silent_ns
