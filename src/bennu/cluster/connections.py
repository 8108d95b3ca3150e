"""Sockets of a task, read from its network namespace: listening ports, and connections that are still open."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.network.nat.sock_diag import list_syn_sent

LISTEN: Final = 0x0A
UNCONNECTED: Final = 0x07
# Established, being established, and closed by one side only: the answer may still be on its way.
OPEN: Final = frozenset({0x01, 0x03, 0x04, 0x08, 0x09, 0x0B})
LOOPBACK4: Final = "7F"  # the last byte of the little-endian address
LOOPBACK6: Final = "00000000000000000000000001000000"


async def is_listening(pid: int, ports: Collection[int]) -> bool | None:
    """Tell whether all the TCP ports accept connections from outside; None when it cannot be seen."""
    sockets = await asyncio.to_thread(read_sockets, pid)
    if sockets is None:
        return None
    open_ports = {port for port, state, local in sockets if state == LISTEN and not local}
    return set(ports) <= open_ports


@dataclass(frozen=True, slots=True)
class Sockets:
    """A task's sockets that face others: open connections to ports it serves, and whether it waits for datagrams."""

    connections: int
    takes_datagrams: bool


async def look_at_sockets(pid: int, ports: Collection[int]) -> Sockets | None:
    """Read the sockets of a task; `ports` are served as well as those it listens on. None when nothing can be seen."""

    def look() -> Sockets | None:
        tcp, udp = read_sockets(pid), read_sockets(pid, "udp")
        if tcp is None:
            return None
        served = {*ports, *(port for port, state, local in tcp if state == LISTEN and not local)}
        return Sockets(
            sum(1 for port, state, local in tcp if state in OPEN and port in served and not local),
            any(state == UNCONNECTED and not local for _, state, local in udp or ()),
        )

    return await asyncio.to_thread(look)


def read_sockets(pid: int, proto: str = "tcp") -> list[tuple[int, int, bool]] | None:
    """Read (local port, state, bound to loopback) of every socket of a protocol in a process's namespace. Blocks."""
    found: list[tuple[int, int, bool]] = []
    for name in (proto, f"{proto}6"):
        try:
            text = Path(f"/proc/{pid}/net/{name}").read_text()
        except OSError:
            if name == proto:
                return None
            continue
        found += parse_sockets(text)
    return found


def parse_sockets(text: str) -> list[tuple[int, int, bool]]:
    """Parse the lines of /proc/net/tcp, tcp6, udp and udp6."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4:
            continue
        address, _, port = fields[1].partition(":")
        local = address == LOOPBACK6 or (len(address) == 8 and address.endswith(LOOPBACK4))
        found.append((int(port, 16), int(fields[3], 16), local))
    return found


async def count_connecting(ips: Collection[str], ports: Collection[int]) -> int:
    """Count sockets of this host that wait for their first answer from the task.

    Its queue was full, and they will try again.
    """

    def count() -> int:
        try:
            return sum(one.ip in ips and one.port in ports for one in list_syn_sent())
        except OSError:  # nobody is seen, then nobody is waited for
            return 0

    return await asyncio.to_thread(count)
