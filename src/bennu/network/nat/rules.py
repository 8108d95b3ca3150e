"""Renders the nftables table: pure, a `Ruleset` in and text for `nft -f -` out.

One table of the `inet` family holds all rules of one daemon, so that no rule of anybody else is ever touched and
all of ours go with one `delete table`. Published ports are elements of maps: a packet costs one lookup however many
there are, and a change is a few elements, not a new rule set.

How packets go:

    prerouting, output   a local address and a published port → one of the service's tasks, or the container (dnat);
                         the virtual address of a service, from its own network → one of the tasks
    forward              answers, traffic within one network, published ports and what leaves pass; so do open ports
                         of networks with routed addresses, whose containers also answer pings;
                         everything else towards a container is dropped (other networks, unpublished ports)
    postrouting          what leaves a network gets the host's address; so does what comes back to the network it
                         started in (a container that calls its own published port must see the answer come from
                         where it called) and what comes from the host's loopback
    guard                nobody inside a network reaches 127.0.0.0/8, or is taken for somebody there, although
                         `route_localnet` is on
"""

import ipaddress
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bennu.network.frontends import Frontend
from bennu.network.model import GatewayMode, OpenPort, PortForward, PortLink
from bennu.network.nat.forwarding_guard import (
    ForwardingGuard,
    render_bridge_removal,
    render_guard,
    render_guard_removal,
)
from bennu.network.nat.frontend_rules import VERDICTS, verdict_entries

MAPS: Final = {
    "port4": "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "any4": "inet_proto . inet_service : ipv4_addr . inet_service",
    "port6": "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
    "any6": "inet_proto . inet_service : ipv6_addr . inet_service",
}
OPEN_SETS: Final = {
    "open4": "ipv4_addr . inet_proto . inet_service",
    "open6": "ipv6_addr . inet_proto . inet_service",
}
FAMILIES: Final = (4, 6)
LOOPBACK: Final = "127.0.0.0/8"
MAPPED_IPV4: Final = "::ffff:0.0.0.0/96"  # a socket for both families shows such a peer as an IPv4 address


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """The bridge of one network, as the rules need to know it."""

    name: str  # of the interface
    subnets: tuple[str, ...] = ()
    masquerade: bool = True
    icc: bool = True  # containers on it may talk to each other
    internal: bool = False  # nothing in, nothing out
    mode4: GatewayMode = GatewayMode.NAT
    mode6: GatewayMode = GatewayMode.NAT
    host_ip4: str = ""  # what leaves by IPv4 gets this address; "" = that of its way out
    host_ip6: str = ""
    trusted: tuple[str, ...] = ()  # interfaces of the host from which open ports are reached

    def mode_of(self, version: int) -> GatewayMode:
        """Return how a family (4, 6) is connected to the world."""
        return self.mode4 if version == 4 else self.mode6

    def host_ip_of(self, version: int) -> str:
        """Return the address that packets of a family (4, 6) leave with."""
        return self.host_ip4 if version == 4 else self.host_ip6


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All that must be in force. Equal rulesets render to the same table."""

    bridges: tuple[BridgeRules, ...] = ()
    forwards: frozenset[PortForward] = field(default=frozenset())
    guard: ForwardingGuard | None = None  # in a table of its own
    open_ports: frozenset[OpenPort] = field(default=frozenset())
    links: frozenset[tuple[str, PortLink]] = field(default=frozenset())  # who may connect where within a network
    families: tuple[int, ...] = FAMILIES  # those with rules; the others' packets pass as if there were no table
    direct_routing: bool = False  # open ports of all networks are reached from other hosts
    accept_mark: str = ""  # MARK or MARK/MASK of packets that reach every container

    @property
    def frame(self) -> "Ruleset":
        """Return what the chains are rendered from: all but the elements of maps and sets."""
        return replace(self, forwards=frozenset(), open_ports=frozenset())


def render_table(table: str, ruleset: Ruleset, frontends: Collection[Frontend] = ()) -> str:
    """Render the replacement of the whole table by the ruleset and the frontends, in one transaction."""
    entries = [entry for frontend in frontends for entry in verdict_entries(frontend).values()]
    lines = [*_emptied(table), f"table inet {table} {{"]
    for name, kind in MAPS.items():
        elements = sorted(_element_of(forward) for forward in ruleset.forwards if _map_of(forward) == name)
        inside = f" elements = {{ {', '.join(elements)} }}" if elements else ""
        lines.append(f"\tmap {name} {{ type {kind};{inside} }}")
    for name, kind in OPEN_SETS.items():
        opened = sorted(_open_element(port) for port in ruleset.open_ports if _set_of(port) == name)
        inside = f" elements = {{ {', '.join(opened)} }}" if opened else ""
        lines.append(f"\tset {name} {{ type {kind};{inside} }}")
    for name, kind in VERDICTS.items():
        lines.append(f"\tmap {name} {{ type {kind}; }}")
    for name, chain in {**{one.chain: one.rules for one in entries}, **chains_of(ruleset)}.items():
        lines += [f"\tchain {name} {{", *(f"\t\t{line}" for line in chain), "\t}"]
    lines.append("}")
    # Not within the block: there the parser wants to know a chain before the map that leads to it.
    lines += [f"add element inet {table} {one.map_name} {{ {one.element} }}" for one in entries]
    return "\n".join(lines) + "\n"


def chains_of(ruleset: Ruleset) -> dict[str, list[str]]:
    """Render the lines of each chain. All but `published`, which is jumped to, begin with a hook."""
    return {
        "published": _published(),
        "guard": _guard(ruleset.bridges),
        "prerouting": _prerouting(),
        "output": _output(),
        "postrouting": _postrouting(ruleset),
        "forward": _forward(ruleset),
    }


def render_change(table: str, before: Ruleset, after: Ruleset) -> str:
    """Render the change of ports from one ruleset to another, in one transaction; "" when nothing changes."""
    lines = []
    for name in MAPS:
        gone = [_key_of(forward) for forward in before.forwards - after.forwards if _map_of(forward) == name]
        came = [_element_of(forward) for forward in after.forwards - before.forwards if _map_of(forward) == name]
        lines += _element_change(table, name, gone, came)
    for name in OPEN_SETS:
        shut = [_open_element(port) for port in before.open_ports - after.open_ports if _set_of(port) == name]
        opened = [_open_element(port) for port in after.open_ports - before.open_ports if _set_of(port) == name]
        lines += _element_change(table, name, shut, opened)
    return "".join(f"{line}\n" for line in lines)


def _element_change(table: str, name: str, gone: Collection[str], came: Collection[str]) -> list[str]:
    return [
        f"{verb} element inet {table} {name} {{ {', '.join(sorted(elements))} }}"
        for verb, elements in (("delete", gone), ("add", came))
        if elements
    ]


def render_removal(table: str, before: Ruleset | None = None) -> str:
    """Render the removal of the table and of our bridges in the guard. `before`: the ruleset in force, if known."""
    names = [bridge.name for bridge in before.bridges] if before and before.guard else ()
    return "\n".join(_emptied(table)) + "\n" + render_bridge_removal(names)


def render_guard_change(before: Ruleset | None, ruleset: Ruleset) -> str:
    """Render the guard, which is shared with other daemons. `before`: the ruleset in force, if known."""
    if ruleset.guard is None:
        return "" if before and before.guard is None else render_guard_removal()
    was = before or Ruleset()
    names = {bridge.name for bridge in ruleset.bridges}
    return render_guard(ruleset.guard, names) + render_bridge_removal({bridge.name for bridge in was.bridges} - names)


def _map_of(forward: PortForward) -> str:
    """Return the name of the map that has the forward as an element."""
    address = ipaddress.ip_address(forward.host_ip)
    return ("any" if address.is_unspecified else "port") + str(address.version)


def _key_of(forward: PortForward) -> str:
    wildcard = ipaddress.ip_address(forward.host_ip).is_unspecified
    return ("" if wildcard else f"{forward.host_ip} . ") + f"{forward.proto} . {forward.host_port}"


def _element_of(forward: PortForward) -> str:
    return f"{_key_of(forward)} : {forward.target_ip} . {forward.target_port}"


def _set_of(port: OpenPort) -> str:
    return "open6" if ":" in port.ip else "open4"


def _open_element(port: OpenPort) -> str:
    return f"{port.ip} . {port.proto} . {port.port}"


def _emptied(table: str) -> Sequence[str]:
    # `add` first, so that `delete` never fails on a table that is not there.
    return (f"add table inet {table}", f"delete table inet {table}")


def _published() -> list[str]:
    return [
        "meta nfproto ipv4 meta l4proto . th dport vmap @services",
        "dnat ip to ip daddr . meta l4proto . th dport map @port4",
        "dnat ip to meta l4proto . th dport map @any4",
        "dnat ip6 to ip6 daddr . meta l4proto . th dport map @port6",
        "dnat ip6 to meta l4proto . th dport map @any6",
    ]


def _guard(bridges: Sequence[BridgeRules]) -> list[str]:
    lines = ["type filter hook prerouting priority raw; policy accept;"]
    if bridges:
        # The address first: it lets nearly every packet pass at the price of one comparison. Of IPv6 the kernel lets
        # no packet to or from ::1 in, but those with an IPv4 address inside of an IPv6 one.
        lines += [f"ip {end} {LOOPBACK} iifname {_names(bridges)} drop" for end in ("daddr", "saddr")]
        lines += [f"ip6 saddr {MAPPED_IPV4} iifname {_names(bridges)} drop"]
    return lines


def _prerouting() -> list[str]:
    return [
        "type nat hook prerouting priority dstnat; policy accept;",
        "iifname . ip daddr vmap @vips",
        # A port published on 127.0.0.1 is not for a neighbour who puts that address on the wire.
        f"ip daddr {LOOPBACK} return",
        "meta l4proto { tcp, udp } fib daddr type local jump published",
    ]


def _output() -> list[str]:
    return [
        "type nat hook output priority -100; policy accept;",
        "ip6 daddr ::1 return",  # the kernel cannot lead it anywhere; the daemon carries it
        "meta l4proto { tcp, udp } fib daddr type local jump published",
    ]


def _postrouting(ruleset: Ruleset) -> list[str]:
    lines = ["type nat hook postrouting priority srcnat; policy accept;"]
    if ruleset.bridges and 4 in ruleset.families:
        lines.append(f"oifname {_names(ruleset.bridges)} ip saddr {LOOPBACK} masquerade")
    for bridge in ruleset.bridges:
        for subnet in bridge.subnets:
            version, family = (6, "ip6") if ":" in subnet else (4, "ip")
            if version not in ruleset.families:
                continue
            lines.append(f'oifname "{bridge.name}" {family} saddr {subnet} ct status dnat masquerade')
            if bridge.masquerade and not bridge.internal and bridge.mode_of(version) is not GatewayMode.ROUTED:
                host_ip = bridge.host_ip_of(version)
                translation = f"snat {family} to {host_ip}" if host_ip else "masquerade"
                lines.append(f'oifname != "{bridge.name}" {family} saddr {subnet} {translation}')
    return lines


def _forward(ruleset: Ruleset) -> list[str]:
    lines = ["type filter hook forward priority filter; policy accept;"]
    lines += [f"meta nfproto ipv{version} accept" for version in FAMILIES if version not in ruleset.families]
    bridges = ruleset.bridges
    if not bridges:
        return lines
    ours = _names(bridges)
    lines += [
        f"iifname {ours} ct state established,related accept",
        f"oifname {ours} ct state established,related accept",
    ]
    lines += [
        f"{'ip6' if ':' in source else 'ip'} saddr {source} {'ip6' if ':' in source else 'ip'} daddr {link.address} "
        f"{link.proto} dport {link.port} accept"
        for source, link in sorted(ruleset.links)
    ]
    for bridge in bridges:
        same = f'iifname "{bridge.name}" oifname "{bridge.name}"'
        lines.append(f"{same} accept" if bridge.icc else f"{same} ct status dnat accept")
        if not bridge.icc:
            lines.append(f"{same} drop")
    closed = [bridge for bridge in bridges if bridge.internal]
    if closed:
        lines += [f"iifname {_names(closed)} drop", f"oifname {_names(closed)} drop"]
    if ruleset.accept_mark:
        mark, _, mask = ruleset.accept_mark.partition("/")
        lines.append(f"oifname {ours} meta mark {f'& {mask} == ' if mask else ''}{mark} accept")
    lines += [f"oifname {ours} ct status dnat accept", *_direct(ruleset), f"oifname {ours} drop"]
    return lines


def _direct(ruleset: Ruleset) -> list[str]:
    """Render what lets packets through that are sent to containers' own addresses."""
    lines = []
    outer = [bridge for bridge in ruleset.bridges if not bridge.internal]
    elsewhere = f"iifname != {_names(ruleset.bridges)}"
    for version, ip, icmp in ((4, "ip", "icmp"), (6, "ip6", "ipv6-icmp")):
        if version not in ruleset.families:
            continue
        is_open = f"{ip} daddr . meta l4proto . th dport @open{version} accept"
        routed = [bridge for bridge in outer if bridge.mode_of(version) is GatewayMode.ROUTED]
        bare = [bridge for bridge in outer if bridge.mode_of(version) is GatewayMode.UNPROTECTED]
        if routed:
            lines.append(f"oifname {_names(routed)} meta nfproto ipv{version} meta l4proto {icmp} accept")
            lines.append(f"oifname {_names(routed)} {is_open}")
        if bare:
            lines.append(f"oifname {_names(bare)} {elsewhere} meta nfproto ipv{version} accept")
        if ruleset.direct_routing and outer:
            lines.append(f"oifname {_names(outer)} {elsewhere} {is_open}")
        for bridge in outer:
            if bridge.trusted:
                names = ", ".join(f'"{name}"' for name in bridge.trusted)
                lines.append(f'oifname "{bridge.name}" iifname {{ {names} }} {is_open}')
    return lines


def _names(bridges: Iterable[BridgeRules]) -> str:
    return "{ " + ", ".join(f'"{bridge.name}"' for bridge in bridges) + " }"
