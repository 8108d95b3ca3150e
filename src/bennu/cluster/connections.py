"""Sockets of a task, read from its network namespace: does it listen, and how many connections has it still got."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Final

LISTEN: Final = 0x0A
# Established, being established, and closed by one side only: the answer may still be on its way.
OPEN: Final = frozenset({0x01, 0x03, 0x04, 0x08, 0x09, 0x0B})
LOOPBACK4: Final = "7F"  # the last byte of the little-endian address
LOOPBACK6: Final = "00000000000000000000000001000000"


async def is_listening(pid: int, ports: Collection[int]) -> bool | None:
    """Whether all the TCP ports accept connections from outside; None when it cannot be seen."""
    sockets = await asyncio.to_thread(read_sockets, pid)
    if sockets is None:
        return None
    open_ports = {port for port, state, local in sockets if state == LISTEN and not local}
    return set(ports) <= open_ports


async def count_open(pid: int, ports: Collection[int]) -> int | None:
    """How many connections to these ports are open; None when it cannot be seen."""
    sockets = await asyncio.to_thread(read_sockets, pid)
    if sockets is None:
        return None
    return sum(1 for port, state, local in sockets if state in OPEN and port in ports and not local)


def read_sockets(pid: int) -> list[tuple[int, int, bool]] | None:
    """(local port, state, bound to loopback) of every TCP socket in the namespace of a process. Blocks."""
    found: list[tuple[int, int, bool]] = []
    for name in ("tcp", "tcp6"):
        try:
            text = Path(f"/proc/{pid}/net/{name}").read_text()
        except OSError:
            if name == "tcp":
                return None
            continue
        found += parse_sockets(text)
    return found


def parse_sockets(text: str) -> list[tuple[int, int, bool]]:
    """The lines of /proc/net/tcp and tcp6."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4:
            continue
        address, _, port = fields[1].partition(":")
        local = address == LOOPBACK6 or (len(address) == 8 and address.endswith(LOOPBACK4))
        found.append((int(port, 16), int(fields[3], 16), local))
    return found
