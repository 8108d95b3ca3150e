"""Allocates host ports: one list of ours, and a bound socket for each port so that no other program takes it.

The sockets do not listen, so a client that comes before the port's rule is in force is refused, as if nothing were
there yet. Words and order of choice are those of moby, libnetwork/portallocator/portallocator.go.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bennu.errors import BennuError
from bennu.model import PublishedPort
from bennu.network.model import PortRequest

WILDCARDS: Final = ("0.0.0.0", "::")
EPHEMERAL: Final = (32768, 60999)
PortKey = tuple[str, str, int]  # protocol, host address, host port


class PortTaken(BennuError):
    """The port is in use by one of our containers, or by a program of the host."""


class PortAllocator:
    """The allocated host ports. Not durable: filled again from the living sandboxes (`adopt`)."""

    def __init__(self, *, ipv6: bool | None = None) -> None:
        self._sockets: dict[PortKey, socket.socket | None] = {}
        self._ipv6 = Path("/proc/sys/net/ipv6").exists() if ipv6 is None else ipv6
        self._last_free = EPHEMERAL[0] - 1

    def hosts_of(self, host_ip: str) -> list[str]:
        """List the addresses to bind for a request's one; "" = all of each family that this host has."""
        if host_ip:
            return [host_ip]
        return list(WILDCARDS if self._ipv6 else WILDCARDS[:1])

    def allocate(self, request: PortRequest, hosts: Sequence[str]) -> list[PublishedPort]:
        """Allocate one host port at these addresses, the same number at each; one entry for each.

        Raises: PortTaken with dockerd's words; then nothing is allocated.
        """
        refusal: PortTaken | None = None
        for port in self._candidates(request):
            try:
                self._bind_all(request.proto, hosts, port)
            except PortTaken as error:
                refusal = error
                continue
            if request.host_port_first == 0:
                self._last_free = port
            return [
                PublishedPort(container_port=request.container_port, proto=request.proto, host_ip=host, host_port=port)
                for host in hosts
            ]
        if refusal is not None and request.host_port_first == request.host_port_last != 0:
            raise refusal
        raise PortTaken("all ports are allocated")

    def adopt(self, port: PublishedPort) -> None:
        """Count a living sandbox's port as allocated. Raises: PortTaken if another program took it meanwhile."""
        key = (port.proto, port.host_ip, port.host_port)
        self._sockets.setdefault(key, None)
        if self._sockets[key] is None:
            self._sockets[key] = _bind(*key)

    def socket_of(self, port: PublishedPort) -> socket.socket | None:
        """Return the bound socket of a port; it stays this object's to close. None if there is none."""
        return self._sockets.get((port.proto, port.host_ip, port.host_port))

    def release(self, ports: Sequence[PublishedPort]) -> None:
        """Free the ports and close their sockets. Idempotent."""
        for port in ports:
            sock = self._sockets.pop((port.proto, port.host_ip, port.host_port), None)
            if sock is not None:
                sock.close()

    def close(self) -> None:
        """Close all sockets; from now on other programs may take the ports."""
        for sock in self._sockets.values():
            if sock is not None:
                sock.close()
        self._sockets.clear()

    def __len__(self) -> int:
        return len(self._sockets)

    def _candidates(self, request: PortRequest) -> Iterator[int]:
        if request.host_port_first:
            yield from range(request.host_port_first, request.host_port_last + 1)
            return
        # Round robin, as dockerd does, so that a port just freed is not given to another container at once.
        first, last = read_ephemeral_range()
        size = last - first + 1
        start = self._last_free + 1 - first if first <= self._last_free < last else 0
        for step in range(size):
            yield first + (start + step) % size

    def _bind_all(self, proto: str, hosts: Sequence[str], port: int) -> None:
        taken: list[PortKey] = []
        try:
            for host in hosts:
                key = (proto, host, port)
                self._check_ours(key)
                self._sockets[key] = _bind(*key)
                taken.append(key)
        except PortTaken:
            for key in taken:
                sock = self._sockets.pop(key)
                if sock is not None:
                    sock.close()
            raise

    def _check_ours(self, key: PortKey) -> None:
        proto, host, port = key
        address = ipaddress.ip_address(host)
        wildcard = WILDCARDS[address.version == 6]
        if address.is_unspecified:
            clash = any(p == proto and n == port and (":" in h) == (":" in host) for p, h, n in self._sockets)
        else:
            clash = key in self._sockets or (proto, wildcard, port) in self._sockets
        if clash:
            raise PortTaken(f"Bind for {shown(host)}:{port} failed: port is already allocated")


def shown(host: str) -> str:
    """Format an address for a message: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def read_ephemeral_range() -> tuple[int, int]:
    """Read the first and last port of net.ipv4.ip_local_port_range, from which dockerd chooses too."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return EPHEMERAL


def _bind(proto: str, host: str, port: int) -> socket.socket | None:
    """Bind a socket; None if the host has no such family. Raises: PortTaken with the kernel's reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    try:
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind_exclusively(sock, host, port)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6 and host == "::":
            return None  # IPv6 is switched off
        reason = os.strerror(error.errno or errno.EADDRINUSE).lower()
        raise PortTaken(f"failed to bind host port {shown(host)}:{port}/{proto}: {reason}") from None
    return sock


def _bind_exclusively(sock: socket.socket, host: str, port: int) -> None:
    try:
        sock.bind((host, port))
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE or sock.type != socket.SOCK_STREAM:
            raise
    # Perhaps only connections in TIME_WAIT are in the way. SO_REUSEADDR ignores them, but also another program's bound
    # socket; listening for a moment finds that one. Afterwards the port must not be shared.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(1)
    sock.shutdown(socket.SHUT_RDWR)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
