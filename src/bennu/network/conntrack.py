"""Making the kernel forget flows by UDP to a host port.

A flow keeps the translation its first packet met. A client by UDP that goes on sending from one port would never
meet a rule that came later, and would go on to a container that is gone: after a change its flows start afresh.
"""

import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Final

from bennu.network.nft import NETLINK_NETFILTER

NFNL_SUBSYS_CTNETLINK: Final = 1
IPCTNL_MSG_CT_DELETE: Final = 2
NLM_F_REQUEST_ACK: Final = 5
NLA_F_NESTED: Final = 0x8000
CTA_TUPLE_ORIG: Final = 1
CTA_TUPLE_PROTO: Final = 2
CTA_PROTO_NUM: Final = 1
CTA_PROTO_DST_PORT: Final = 3
CTA_FILTER: Final = 25
CTA_FILTER_ORIG_FLAGS: Final = 1
CTA_FILTER_REPLY_FLAGS: Final = 2
MATCH_PROTOCOL_AND_PORT: Final = 1 << 3 | 1 << 5


def forget_udp_flows(ports: Iterable[int]) -> None:
    """Best effort: kernels before 5.8 cannot pick flows by port, and keep them until they time out."""
    with contextlib.suppress(OSError):
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        with sock:
            sock.settimeout(1)
            for port in set(ports):
                for family in (socket.AF_INET, socket.AF_INET6):
                    sock.send(deletion(family, port))
                    sock.recv(4096)  # the acknowledgement, or the reason why not


def deletion(family: int, port: int) -> bytes:
    """Delete all flows of a family that go, untranslated, to a UDP port."""
    protocol = _attribute(CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])) + _attribute(
        CTA_PROTO_DST_PORT, struct.pack(">H", port)
    )
    flags = _attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", MATCH_PROTOCOL_AND_PORT)) + _attribute(
        CTA_FILTER_REPLY_FLAGS, struct.pack("=I", 0)
    )
    body = (
        struct.pack(">BBH", family, 0, 0)
        + _attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, _attribute(CTA_TUPLE_PROTO | NLA_F_NESTED, protocol))
        + _attribute(CTA_FILTER | NLA_F_NESTED, flags)
    )
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
    return struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST_ACK, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
