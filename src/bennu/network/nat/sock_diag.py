"""Sockets of the host that wait for their first answer: the other side's queue was full, and they will try again.

The kernel lists and ends them through sock_diag(7). A client that was led to a container at connect() tries again
there and nowhere else, so somebody has to look after it when the container leaves.
"""

import contextlib
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

SYN_SENT: Final = 0x02
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
SOCK_DESTROY: Final = 21
SOCKID_SIZE: Final = 48
NLM_F_REQUEST_ACK: Final = 0x5
NLM_F_REQUEST_DUMP: Final = 0x301


@dataclass(frozen=True, slots=True)
class SynSentSocket:
    """A TCP socket of this network namespace that has no answer yet, by whom it wants to reach by IPv4."""

    ip: str
    port: int
    identity: bytes  # a struct inet_diag_sockid


def list_syn_sent() -> Iterator[SynSentSocket]:
    """Blocks. Raises: OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(1)
        sock.send(_request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, bytes(SOCKID_SIZE)))
        while True:
            answer = sock.recv(65536)
            position = 0
            while position < len(answer):
                length, kind = struct.unpack_from("=IH", answer, position)
                if kind != SOCK_DIAG_BY_FAMILY:  # the end, or the reason why not
                    return
                identity = answer[position + 20 : position + 20 + SOCKID_SIZE]
                (port,) = struct.unpack_from(">H", identity, 2)
                yield SynSentSocket(socket.inet_ntoa(identity[20:24]), port, identity)
                position += length + 3 & ~3


def _request(kind: int, flags: int, identity: bytes) -> bytes:
    """A struct inet_diag_req_v2 in its netlink message."""
    body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << SYN_SENT) + identity
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def destroy_syn_sent(ips: Collection[str]) -> None:
    """End those that wait for an answer from there: nobody will give it, or somebody else who has the address then.

    Their connect() fails (ECONNABORTED). Best effort: kernels without CONFIG_INET_DIAG_DESTROY cannot. Blocks.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(1)
        for one in [one for one in list_syn_sent() if one.ip in ips]:
            sock.send(_request(SOCK_DESTROY, NLM_F_REQUEST_ACK, one.identity))
            sock.recv(4096)  # the acknowledgement, or the reason why not
