"""The two BPF programs of the socket load balancer, and how the maps they read are encoded: pure, bytes out.

A connection from this host to one of its own published TCP ports need not be translated packet by packet. At connect()
the kernel runs our program, which replaces the address once; from then on the connection is one to the container like
any other. This is what Cilium calls a socket-level load balancer. The nftables rules stay, agree with it, and serve
what the program does not: other hosts, UDP, IPv6 sockets, kernels that refuse it.

    connect(127.0.0.1:8080) ─► program ─► map `backends`: 0.0.0.0:8080 → next of 172.17.0.2:80 … ─► SYN to 172.17.0.2
                                  └─► map `original_destination`: this socket asked for 127.0.0.1:8080
    getpeername() ─► program ─► the original destination, of the latest 16,384 such sockets

The container sees the client address that the rules would show it: the bridge's for a client of 127.0.0.1, else the
host address that was asked for. That address must still be the host's. The map `local_addresses` holds the host's
addresses, each with the time until which it is trusted; a living daemon extends that time every few seconds.

Hooks, helper functions and struct offsets are those of linux/bpf.h (BPF_CGROUP_INET4_CONNECT and
BPF_CGROUP_INET4_GETPEERNAME, struct bpf_sock_addr). All that is used exists since Linux 5.14.
"""

import socket
import struct
from collections.abc import Sequence
from typing import Final

from bennu import bpf
from bennu.network.socket_lb.backend_table import MAX_BACKENDS, SocketAddress

KEY_SIZE: Final = 8  # bytes, as all sizes here
BACKENDS_SIZE: Final = 8 + 8 * MAX_BACKENDS
ORIGINAL_BITS: Final = 14
ORIGINAL_SLOTS: Final = 1 << ORIGINAL_BITS  # a hash of the socket cookie chooses one; the latest socket has it
SPREAD: Final = 0x9E3779B97F4A7C15  # Fibonacci hashing: CPUs take cookies in batches, so low bits repeat
ORIGINAL_SIZE: Final = 24  # socket cookie; original address and port; address and port of the backend
SOCKADDR_SIZE: Final = 16
LOOPBACK_NET: Final = 127

USER_IP4, USER_PORT, PROTOCOL, SOCKET = 4, 24, 36, 64  # offsets in struct bpf_sock_addr, the context
SOURCE_IP4: Final = 24  # in struct bpf_sock
ALLOW: Final = 1
ANSWER, A1, A2, A3, A4, CTX, IP, PORT, BACKENDS = 0, 1, 2, 3, 4, 6, 7, 8, 9  # registers


def encode_address(address: SocketAddress) -> bytes:
    """Encode a key of the map `backends`: address and port in network byte order, padded to 8 bytes."""
    return socket.inet_aton(address[0]) + struct.pack(">H", address[1]) + bytes(2)


def encode_backends(targets: Sequence[SocketAddress]) -> bytes:
    """Encode a value of the map `backends`: round-robin counter, number of backends, and the backends."""
    return struct.pack("=II", 0, len(targets)) + b"".join(map(encode_address, targets)).ljust(8 * MAX_BACKENDS, b"\0")


def connect_program(netns_cookie: int, backends_fd: int, local_addresses_fd: int, original_fd: int) -> bytes:
    """Assemble the program at connect(): it serves unbound TCP sockets of the namespace with this cookie."""
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
    """Replace the destination by the next backend, round robin as in the rules; BACKENDS + 8 points to it then."""
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
    """Remember cookie, original destination and backend for getpeername()."""
    _look_up_original(code, original_fd)
    code.store64(ANSWER, 0, A1)
    code.load(A1, BACKENDS, 8)
    code.load(A2, BACKENDS, 12)
    for position, register in enumerate((IP, PORT, A1, A2)):
        code.store(ANSWER, 8 + 4 * position, register)


def _bind_source(code: bpf.Program, local_addresses_fd: int) -> None:
    """Check that the address is the host's, and bind the socket to it, unless loopback was asked for."""
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
    """Assemble the program at getpeername(): a redirected socket is told its original destination."""
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
    """Let a register point to an offset on the stack."""
    code.copy(register, bpf.STACK)
    code.add_value(register, offset)


def _look_up(code: bpf.Program, map_fd: int, key: int) -> None:
    code.set_map(A1, map_fd)
    _point(code, A2, key)
    code.call(bpf.MAP_LOOKUP_ELEM)


def _look_up_original(code: bpf.Program, original_fd: int) -> None:
    """Let ANSWER point to the slot of this socket, and load its cookie into A1."""
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
