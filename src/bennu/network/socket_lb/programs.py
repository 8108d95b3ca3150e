"""What connects on this host to a published port, and where it may go instead: pure, values and programs out.

A connection from this host to a published TCP port of its own need not be translated packet by packet: at connect()
the kernel lets a program of ours exchange the address, once, and from then on it is a connection to the container
like any other. The nftables rules stay, say the same, and serve whatever the program does not: other hosts, UDP,
sockets of IPv6, kernels that refuse it.

    connect(127.0.0.1:8080) ─► program ─► map `ways`: 0.0.0.0:8080 → next of 172.17.0.2:80 … ─► SYN to 172.17.0.2
                                  └─► map `asked`: this socket asked for 127.0.0.1:8080
    getpeername() ─► program ─► what was asked for, of the latest thousands of such sockets

The container sees the client's address as the rules would show it: the bridge's for a client of 127.0.0.1, else the
host's that was asked for. That one must be the host's still: map `own` has these addresses, each until when that is
known, and a daemon that lives says so again every few seconds.
"""

import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from bennu import bpf
from bennu.network.frontends import Frontend, backends_of
from bennu.network.model import PortForward

SocketAddress = tuple[str, int]  # IPv4 and port
ANY: Final = "0.0.0.0"
MAX_BACKENDS: Final = 128
KEY_SIZE: Final = 8
BACKENDS_SIZE: Final = 8 + 8 * MAX_BACKENDS
ORIGINAL_BITS: Final = 14
ORIGINAL_SLOTS: Final = 1 << ORIGINAL_BITS  # a socket's number chooses one; whoever comes later has it
SPREAD: Final = 0x9E3779B97F4A7C15  # processors take numbers by the thousand: their low bits are often the same
ORIGINAL_SIZE: Final = 24  # the socket's number, address and port that it asked for, and those that are there instead
SOCKADDR_SIZE: Final = 16
LOOPBACK_NET: Final = 127

USER_IP4, USER_PORT, PROTOCOL, SOCKET = 4, 24, 36, 64  # in what programs are handed: struct bpf_sock_addr
SOURCE_IP4: Final = 24  # in struct bpf_sock
ALLOW: Final = 1
ANSWER, A1, A2, A3, A4, CTX, IP, PORT, BACKENDS = 0, 1, 2, 3, 4, 6, 7, 8, 9  # registers


class BackendTable:
    """What is published by TCP and IPv4, and who takes its connections; as in the rules, services come first."""

    def __init__(self) -> None:
        self._containers: dict[int, dict[str, SocketAddress]] = {}  # by port of the host, by its address
        self._services: dict[int, tuple[SocketAddress, ...]] = {}  # also those that nobody serves

    def apply(
        self,
        gone: Collection[PortForward],
        came: Collection[PortForward],
        frontends: Iterable[tuple[Frontend | None, Frontend | None]],
    ) -> dict[SocketAddress, tuple[SocketAddress, ...]]:
        """What the host's ports that this touches lead to now, by address (0.0.0.0: any) and port; (): nowhere.

        `frontends`: what services showed and what they show now, None for nothing. Left to the rules, as leading
        nowhere: ports that nobody serves, which they refuse, and ports that more serve than fit into a way.
        """
        changes = list(frontends)
        before, after = [one for one, _ in changes if one], [one for _, one in changes if one]
        touched = {(one.host_ip, one.host_port) for one in (*gone, *came) if _is_eligible(one)}
        touched |= {(ANY, number) for frontend in (*before, *after) for number in _tcp_ports(frontend)}
        self._forget(gone, before)
        self._note(came, after)
        touched |= {(host_ip, number) for _, number in touched for host_ip in self._containers.get(number, ())}
        return {address: self._resolve(*address) for address in touched}

    def _forget(self, forwards: Iterable[PortForward], frontends: Iterable[Frontend]) -> None:
        for one in filter(_is_eligible, forwards):
            here = self._containers.get(one.host_port, {})
            here.pop(one.host_ip, None)
            if not here:
                self._containers.pop(one.host_port, None)
        for number in (number for frontend in frontends for number in _tcp_ports(frontend)):
            self._services.pop(number, None)

    def _note(self, forwards: Iterable[PortForward], frontends: Iterable[Frontend]) -> None:
        for one in filter(_is_eligible, forwards):
            self._containers.setdefault(one.host_port, {})[one.host_ip] = (one.target_ip, one.target_port)
        for frontend in frontends:
            self._services |= {number: tuple(backends_of(frontend, "tcp", number)) for number in _tcp_ports(frontend)}

    def _resolve(self, host_ip: str, number: int) -> tuple[SocketAddress, ...]:
        served = self._services.get(number)
        if served is not None:
            return served if host_ip == ANY and len(served) <= MAX_BACKENDS else ()
        target = self._containers.get(number, {}).get(host_ip)
        return (target,) if target else ()


def _is_eligible(forward: PortForward) -> bool:
    return forward.proto == "tcp" and ":" not in forward.host_ip


def _tcp_ports(frontend: Frontend) -> Iterator[int]:
    return (number for proto, number in frontend.ports if proto == "tcp")


def encode_address(address: SocketAddress) -> bytes:
    """As the kernel's programs see it: both in the order of the wire."""
    return socket.inet_aton(address[0]) + struct.pack(">H", address[1]) + bytes(2)


def encode_backends(targets: Sequence[SocketAddress]) -> bytes:
    """How often it was gone so far, how many targets there are, and they."""
    return struct.pack("=II", 0, len(targets)) + b"".join(map(encode_address, targets)).ljust(8 * MAX_BACKENDS, b"\0")


def connect_program(netns_cookie: int, backends_fd: int, local_addresses_fd: int, original_fd: int) -> bytes:
    """For the connects of one network namespace, of sockets that are bound to no address."""
    code = bpf.Program()
    code.copy(CTX, A1)
    code.load(A1, CTX, PROTOCOL)
    code.jump_unless_equal(A1, socket.IPPROTO_TCP, "unchanged")
    code.copy(A1, CTX)
    code.call(bpf.GET_NETNS_COOKIE)
    code.set64(A2, netns_cookie)
    code.jump_unless_same(ANSWER, A2, "unchanged")
    code.load64(A1, CTX, SOCKET)
    code.load(A1, A1, SOURCE_IP4)
    code.jump_unless_equal(A1, 0, "unchanged")

    code.load(IP, CTX, USER_IP4)
    code.load(PORT, CTX, USER_PORT)
    key = -8
    code.store(bpf.STACK, key, IP)
    code.store(bpf.STACK, key + 4, PORT)
    _look_up(code, backends_fd, key)
    code.jump_unless_equal(ANSWER, 0, "found")
    code.store_value(bpf.STACK, key, 0)  # any address
    _look_up(code, backends_fd, key)
    code.jump_if_equal(ANSWER, 0, "unchanged")
    code.label("found")
    code.copy(BACKENDS, ANSWER)
    _bind_source(code, local_addresses_fd)
    _choose_next_backend(code)
    _store_original(code, original_fd)
    return _end(code)


def _choose_next_backend(code: bpf.Program) -> None:
    """To the next of the way's targets, in turn, as the rules choose; BACKENDS points to it afterwards, less 8."""
    code.set(A1, 1)
    code.add_shared(BACKENDS, 0, A1)
    code.load(A1, BACKENDS, 0)
    code.load(A2, BACKENDS, 4)
    code.modulo(A1, A2)
    code.jump_from(A1, MAX_BACKENDS, "unchanged")  # cannot be, but the verifier wants to see it
    code.shift_left(A1, 3)
    code.add(BACKENDS, A1)
    code.load(A1, BACKENDS, 8)
    code.load(A2, BACKENDS, 12)
    code.store(CTX, USER_IP4, A1)
    code.store(CTX, USER_PORT, A2)


def _store_original(code: bpf.Program, original_fd: int) -> None:
    _look_up_original(code, original_fd)
    code.store64(ANSWER, 0, A1)
    code.load(A1, BACKENDS, 8)
    code.load(A2, BACKENDS, 12)
    for position, register in enumerate((IP, PORT, A1, A2)):
        code.store(ANSWER, 8 + 4 * position, register)


def _bind_source(code: bpf.Program, local_addresses_fd: int) -> None:
    """Unless it asks for loopback: make sure that the address is the host's, and let the client come from there."""
    otherwise = "unchanged"
    code.copy(A1, IP)
    code.and_value(A1, 0xFF)  # the first of the four bytes
    code.jump_if_equal(A1, LOOPBACK_NET, "source is bound")
    key, now, address = -8, -16, -24
    code.call(bpf.KTIME_GET_NS)
    code.store64(bpf.STACK, now, ANSWER)
    code.store(bpf.STACK, key, IP)
    _look_up(code, local_addresses_fd, key)
    code.jump_if_equal(ANSWER, 0, otherwise)
    code.load64(A1, bpf.STACK, now)
    code.load64(A2, ANSWER, 0)
    code.jump_above(A1, A2, otherwise)
    code.store_value(bpf.STACK, address, socket.AF_INET)  # a sockaddr_in: family, no port, address, zeros
    code.store(bpf.STACK, address + 4, IP)
    code.set(A1, 0)
    code.store64(bpf.STACK, address + 8, A1)
    code.copy(A1, CTX)
    _point(code, A2, address)
    code.set(A3, SOCKADDR_SIZE)
    code.call(bpf.BIND)
    code.jump_unless_equal(ANSWER, 0, otherwise)  # it has a port already, or may not have this address
    code.label("source is bound")


def getpeername_program(original_fd: int) -> bytes:
    """A socket that was led elsewhere is told what it asked for."""
    code = bpf.Program()
    code.copy(CTX, A1)
    _look_up_original(code, original_fd)
    code.load64(A2, ANSWER, 0)
    code.jump_unless_same(A1, A2, "unchanged")
    for field, there in ((USER_IP4, 16), (USER_PORT, 20)):  # unless it was connected anew meanwhile
        code.load(A1, ANSWER, there)
        code.load(A2, CTX, field)
        code.jump_unless_same(A1, A2, "unchanged")
    for field, asked in ((USER_IP4, 8), (USER_PORT, 12)):
        code.load(A1, ANSWER, asked)
        code.store(CTX, field, A1)
    return _end(code)


def _point(code: bpf.Program, register: int, offset: int) -> None:
    """To a place on the stack."""
    code.copy(register, bpf.STACK)
    code.add_value(register, offset)


def _look_up(code: bpf.Program, map_fd: int, key: int) -> None:
    code.set_map(A1, map_fd)
    _point(code, A2, key)
    code.call(bpf.MAP_LOOKUP_ELEM)


def _look_up_original(code: bpf.Program, original_fd: int) -> None:
    """The answer: this socket's slot; and its number in A1."""
    number, slot = -8, -16
    code.copy(A1, CTX)
    code.call(bpf.GET_SOCKET_COOKIE)
    code.store64(bpf.STACK, number, ANSWER)
    code.set64(A2, SPREAD)
    code.multiply(ANSWER, A2)
    code.shift_right(ANSWER, 64 - ORIGINAL_BITS)
    code.store(bpf.STACK, slot, ANSWER)
    _look_up(code, original_fd, slot)
    code.jump_if_equal(ANSWER, 0, "unchanged")  # cannot be, but the verifier wants to see it
    code.load64(A1, bpf.STACK, number)


def _end(code: bpf.Program) -> bytes:
    code.label("unchanged")
    code.set(ANSWER, ALLOW)
    code.end()
    return code.assemble()
