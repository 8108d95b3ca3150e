"""Lists and destroys TCP sockets of this host in SYN_SENT, through sock_diag(7).

Their SYN got no answer because the other side's queue was full, and they will repeat it. A client that was redirected
at connect() repeats it to the same container for ever, so it must be counted while that container drains, and ended
when it is gone (`test_a_client_that_found_the_queue_full_is_not_led_to_a_stranger`).
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
    """A TCP socket in SYN_SENT, with the IPv4 address and port it connects to."""

    ip: str
    port: int
    identity: bytes  # a struct inet_diag_sockid


def list_syn_sent() -> Iterator[SynSentSocket]:
    """List the sockets in SYN_SENT of this thread's network namespace. Blocks. Raises: OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(1)
        sock.send(_request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, bytes(SOCKID_SIZE)))
        while True:
            answer = sock.recv(65536)
            position = 0
            while position < len(answer):
                length, kind = struct.unpack_from("=IH", answer, position)
                if kind != SOCK_DIAG_BY_FAMILY:  # NLMSG_DONE or NLMSG_ERROR
                    return
                identity = answer[position + 20 : position + 20 + SOCKID_SIZE]
                (port,) = struct.unpack_from(">H", identity, 2)
                yield SynSentSocket(socket.inet_ntoa(identity[20:24]), port, identity)
                position += length + 3 & ~3


def _request(kind: int, flags: int, identity: bytes) -> bytes:
    """Encode a struct inet_diag_req_v2 in its netlink message."""
    body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << SYN_SENT) + identity
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def destroy_syn_sent(ips: Collection[str]) -> None:
    """Destroy the sockets in SYN_SENT towards these addresses; their connect() fails with ECONNABORTED.

    Otherwise they would reach whichever container gets the address next. Best effort: it needs
    CONFIG_INET_DIAG_DESTROY. Blocks.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(1)
        for one in [one for one in list_syn_sent() if one.ip in ips]:
            sock.send(_request(SOCK_DESTROY, NLM_F_REQUEST_ACK, one.identity))
            sock.recv(4096)  # the acknowledgement or an error
