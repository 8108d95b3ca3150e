"""Deletes conntrack entries: UDP flows to a host port or a task, and TCP connections that were never answered.

An entry keeps the translation that the flow's first packet met. A UDP client that goes on sending from one port never
meets a later rule, and would still be sent to a container that is gone. So its flows are deleted after a change, and
the next packet meets the rules again. dockerd does so too (moby, libnetwork/iptables/conntrack.go).

Kernels before 6.8 refuse a deletion by filter: there flows are listed by the filter and deleted one by one. Listed
flows are matched again, because kernels before 5.8 ignore the filter, and before 5.15 the status in it.
"""

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bennu.network.nat.nft import NETLINK_NETFILTER

NFNL_SUBSYS_CTNETLINK: Final = 1
IPCTNL_MSG_CT_NEW: Final = 0
IPCTNL_MSG_CT_GET: Final = 1
IPCTNL_MSG_CT_DELETE: Final = 2
NLM_F_REQUEST_ACK: Final = 0x5
NLM_F_REQUEST_DUMP: Final = 0x301
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF
CTA_TUPLE_ORIG: Final = 1
CTA_TUPLE_REPLY: Final = 2
CTA_STATUS: Final = 3
CTA_ID: Final = 12
CTA_FILTER: Final = 25
CTA_STATUS_MASK: Final = 26
CTA_TUPLE_IP: Final = 1
CTA_TUPLE_PROTO: Final = 2
CTA_IP_V4_SRC: Final = 1
CTA_PROTO_NUM: Final = 1
CTA_PROTO_DST_PORT: Final = 3
CTA_FILTER_ORIG_FLAGS: Final = 1
CTA_FILTER_REPLY_FLAGS: Final = 2
MATCH_PROTOCOL_AND_PORT: Final = 1 << 3 | 1 << 5
MATCH_SOURCE: Final = 1 << 0 | 1 << 3  # address, protocol
SEEN_REPLY: Final = 1 << 1
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Which flows: of one protocol, and either to a host port before translation, or answered by an IPv4 address."""

    protocol: int
    family: int = socket.AF_INET
    port: int = 0
    answered_by: str = ""
    only_unanswered: bool = False

    def filter(self) -> bytes:
        """Encode as netlink attributes of a request (CTA_FILTER)."""
        number = _attribute(CTA_PROTO_NUM, bytes([self.protocol]))
        if self.port:
            protocol = number + _attribute(CTA_PROTO_DST_PORT, struct.pack(">H", self.port))
            tuples = _nested(CTA_TUPLE_ORIG, _nested(CTA_TUPLE_PROTO, protocol))
            flags = (MATCH_PROTOCOL_AND_PORT, 0)
        else:
            address = _attribute(CTA_IP_V4_SRC, ipaddress.IPv4Address(self.answered_by).packed)
            tuples = _nested(CTA_TUPLE_REPLY, _nested(CTA_TUPLE_IP, address) + _nested(CTA_TUPLE_PROTO, number))
            flags = (0, MATCH_SOURCE)
        status = b""
        if self.only_unanswered:
            status = _attribute(CTA_STATUS, struct.pack(">I", 0))
            status += _attribute(CTA_STATUS_MASK, struct.pack(">I", SEEN_REPLY))
        original = _attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags[0]))
        reply = _attribute(CTA_FILTER_REPLY_FLAGS, struct.pack("=I", flags[1]))
        return tuples + status + _nested(CTA_FILTER, original + reply)

    def matches(self, flow: Mapping[int, bytes]) -> bool:
        """Check a listed flow, given by its attributes."""
        original, reply = parse_attributes(flow[CTA_TUPLE_ORIG]), parse_attributes(flow[CTA_TUPLE_REPLY])
        protocol = parse_attributes(original[CTA_TUPLE_PROTO])
        if protocol[CTA_PROTO_NUM] != bytes([self.protocol]):
            return False
        if self.only_unanswered and struct.unpack(">I", flow[CTA_STATUS])[0] & SEEN_REPLY:
            return False
        if self.port:
            return protocol.get(CTA_PROTO_DST_PORT) == struct.pack(">H", self.port)
        source = parse_attributes(reply[CTA_TUPLE_IP]).get(CTA_IP_V4_SRC)
        return source == ipaddress.IPv4Address(self.answered_by).packed


def forget_udp_flows(ports: Iterable[int]) -> None:
    """Delete UDP flows whose destination, before translation, is one of these host ports. Best effort; blocks."""
    _forget(FlowFilter(socket.IPPROTO_UDP, family, port=port) for port in set(ports) for family in FAMILIES)


def forget_unanswered(ips: Iterable[str]) -> None:
    """Delete TCP flows to these addresses whose SYN got no answer, so that the repeated SYN meets the rules again.

    A program with a full queue drops SYNs; the client repeats them after a second, and the old entry would send them
    where the first one went. Best effort; blocks.
    """
    _forget(FlowFilter(socket.IPPROTO_TCP, answered_by=ip, only_unanswered=True) for ip in ips)


def forget_udp_flows_to(ips: Iterable[str]) -> None:
    """Delete UDP flows that were translated to these addresses. Best effort; blocks."""
    _forget(FlowFilter(socket.IPPROTO_UDP, answered_by=ip) for ip in ips)


def _forget(wanted: Iterable[FlowFilter]) -> None:
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock,
    ):
        sock.settimeout(1)
        for one in wanted:
            if not delete_flows(sock, one.family, one.filter()):
                delete_listed(sock, one)


def delete_flows(sock: socket.socket, family: int, which: bytes) -> bool:
    """Delete flows by filter, or one by tuple and id; False if the kernel refused. Blocks. Raises: OSError."""
    sock.send(_message(IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST_ACK, family, which))
    return int(struct.unpack_from("=i", sock.recv(4096), 16)[0]) == 0


def delete_listed(sock: socket.socket, wanted: FlowFilter) -> None:
    """Delete flows one by one, for kernels that refuse the filter. Blocks. Raises: OSError."""
    for flow in list_flows(sock, wanted):
        which = _nested(CTA_TUPLE_ORIG, flow[CTA_TUPLE_ORIG]) + _attribute(CTA_ID, flow[CTA_ID])
        sock.send(_message(IPCTNL_MSG_CT_GET, NLM_F_REQUEST_ACK, wanted.family, which))
        now = list(_listed(sock))
        if now and wanted.matches(now[0]):  # it may have had its answer meanwhile
            delete_flows(sock, wanted.family, which)


def list_flows(sock: socket.socket, wanted: FlowFilter) -> list[dict[int, bytes]]:
    """List flows as attributes by kind; `sock` is a NETLINK_NETFILTER socket. Blocks. Raises: OSError."""
    sock.send(_message(IPCTNL_MSG_CT_GET, NLM_F_REQUEST_DUMP, wanted.family, wanted.filter()))
    return [flow for flow in _listed(sock) if wanted.matches(flow)]


def _listed(sock: socket.socket) -> Iterator[dict[int, bytes]]:
    while True:
        answer = sock.recv(1 << 16)
        position = 0
        while position < len(answer):
            length, kind = struct.unpack_from("=IH", answer, position)
            if kind != NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW:  # the end, or the reason why not
                return
            yield parse_attributes(answer[position + 20 : position + length])
            position += length + 3 & ~3


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Parse a run of netlink attributes into values by kind; flags of the kind are dropped."""
    found, position = {}, 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        found[kind & NLA_TYPE_MASK] = data[position + 4 : position + length]
        position += max(4, length + 3 & ~3)
    return found


def _message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    body = struct.pack(">BBH", family, 0, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, 1, 0) + body


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NLA_F_NESTED, value)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
