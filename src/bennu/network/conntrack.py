"""Making the kernel forget flows: by UDP to a host port or a task, and connections that were never answered.

A flow keeps the translation its first packet met. A client by UDP that goes on sending from one port would never
meet a rule that came later, and would go on to a container that is gone: after a change its flows start afresh.
"""

import contextlib
import ipaddress
import os
import re
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
CTA_TUPLE_REPLY: Final = 2
CTA_STATUS: Final = 3
CTA_STATUS_MASK: Final = 26
CTA_TUPLE_IP: Final = 1
CTA_IP_V4_SRC: Final = 1
MATCH_SOURCE: Final = 1 << 0 | 1 << 3  # address, protocol
SEEN_REPLY: Final = 1 << 1
STATUS_SINCE: Final = (5, 15)  # older kernels do not look at the status and would forget the answered ones too


def forget_udp_flows(ports: Iterable[int]) -> None:
    """Best effort: kernels before 5.8 cannot pick flows by port, and keep them until they time out."""
    _send([deletion(family, port) for port in set(ports) for family in (socket.AF_INET, socket.AF_INET6)])


def deletion(family: int, port: int) -> bytes:
    """Delete all flows of a family that go, untranslated, to a UDP port."""
    protocol = _attribute(CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])) + _attribute(
        CTA_PROTO_DST_PORT, struct.pack(">H", port)
    )
    flags = _attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", MATCH_PROTOCOL_AND_PORT)) + _attribute(
        CTA_FILTER_REPLY_FLAGS, struct.pack("=I", 0)
    )
    return _deletion(
        family,
        _attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, _attribute(CTA_TUPLE_PROTO | NLA_F_NESTED, protocol))
        + _attribute(CTA_FILTER | NLA_F_NESTED, flags),
    )


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def forget_unanswered(ips: Iterable[str]) -> None:
    """TCP connections to these addresses whose first packet got no answer begin anew with the next one.

    A program whose queue is full lets first packets fall; the client repeats them after a second, and they would go
    where the first one went although the rules say otherwise by now. Best effort.
    """
    if kernel_version() >= STATUS_SINCE:
        _send([deletion_to(ip, socket.IPPROTO_TCP, only_unanswered=True) for ip in ips])


def forget_udp_flows_to(ips: Iterable[str]) -> None:
    """Flows by UDP that were translated to these addresses: who goes on sending meets the rules again. Best effort."""
    _send([deletion_to(ip, socket.IPPROTO_UDP) for ip in ips])


def deletion_to(ip: str, protocol: int, *, only_unanswered: bool = False) -> bytes:
    """Delete the flows that this address answers, or would have to."""
    address = _attribute(CTA_IP_V4_SRC, ipaddress.IPv4Address(ip).packed)
    number = _attribute(CTA_PROTO_NUM, bytes([protocol]))
    answer = _attribute(CTA_TUPLE_IP | NLA_F_NESTED, address) + _attribute(CTA_TUPLE_PROTO | NLA_F_NESTED, number)
    flags = _attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", 0)) + _attribute(
        CTA_FILTER_REPLY_FLAGS, struct.pack("=I", MATCH_SOURCE)
    )
    status = _attribute(CTA_STATUS, struct.pack(">I", 0)) + _attribute(CTA_STATUS_MASK, struct.pack(">I", SEEN_REPLY))
    return _deletion(
        socket.AF_INET,
        _attribute(CTA_TUPLE_REPLY | NLA_F_NESTED, answer)
        + (status if only_unanswered else b"")
        + _attribute(CTA_FILTER | NLA_F_NESTED, flags),
    )


def _deletion(family: int, what: bytes) -> bytes:
    body = struct.pack(">BBH", family, 0, 0) + what
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
    return struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST_ACK, 1, 0) + body


def _send(messages: Iterable[bytes]) -> None:
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock,
    ):
        sock.settimeout(1)
        for message in messages:
            sock.send(message)
            sock.recv(4096)  # the acknowledgement, or the reason why not


def kernel_version() -> tuple[int, int]:
    found = re.match(r"([0-9]+)\.([0-9]+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
