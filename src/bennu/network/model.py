"""The values of this package: networks, endpoints, sandboxes, ports. Networks and sandboxes are stored as JSON."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from bennu.errors import BennuError
from bennu.go.bool import TRUE
from bennu.model import EndpointIPAMConfig, EndpointSettings, PublishedPort

OPTION_BRIDGE_NAME: Final = "com.docker.network.bridge.name"
OPTION_GATEWAY_MODES: Final = {
    4: "com.docker.network.bridge.gateway_mode_ipv4",
    6: "com.docker.network.bridge.gateway_mode_ipv6",
}
OPTION_HOST_IPS: Final = {4: "com.docker.network.host_ipv4", 6: "com.docker.network.host_ipv6"}
OPTION_ENABLE: Final = {4: "com.docker.network.enable_ipv4", 6: "com.docker.network.enable_ipv6"}
OPTION_INHIBIT_IPV4: Final = "com.docker.network.bridge.inhibit_ipv4"
OPTION_TRUSTED_INTERFACES: Final = "com.docker.network.bridge.trusted_host_interfaces"
OPTION_INTERFACE_PREFIX: Final = "com.docker.network.container_iface_prefix"
OPTION_ICC: Final = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE: Final = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_BINDING: Final = "com.docker.network.bridge.host_binding_ipv4"
OPTION_DEFAULT_BRIDGE: Final = "com.docker.network.bridge.default_bridge"
OPTION_MTU: Final = "com.docker.network.driver.mtu"
OPTION_ADVERTISE_COUNT: Final = "com.docker.network.advertise_addr_nmsgs"
OPTION_ADVERTISE_MS: Final = "com.docker.network.advertise_addr_ms"
ENDPOINT_INTERFACE: Final = "com.docker.network.endpoint.ifname"
ENDPOINT_SYSCTLS: Final = "com.docker.network.endpoint.sysctls"
# `ifname` because the docker command writes keys of options in small letters.
INTERFACE_SYSCTL: Final = re.compile(
    r"net\.(?P<family>ipv4|ipv6|mpls)\.(?P<kind>[a-z]+)\.(IFNAME|ifname)\.(?P<name>[a-z0-9_]+)=(?P<value>\S*)\Z",
    re.ASCII,
)
# Auxiliary addresses of these names are where the containers' default routes lead, instead of the bridge.
AUX_GATEWAYS: Final = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}
DEFAULT_MTU: Final = 1500
ADVERTISE_COUNT: Final = 3
ADVERTISE_MS: Final = 1000
PREDEFINED: Final = frozenset({"bridge", "host", "none"})


class NetworkFailure(BennuError):
    """The kernel refused a change of a network; the text says which."""


class GatewayMode(StrEnum):
    """How one family of a bridge network is connected to the world."""

    NAT = "nat"  # leaves with the host's address; only published ports are reached
    UNPROTECTED = "nat-unprotected"  # the same, but whoever has a route to the containers reaches all of them
    ROUTED = "routed"  # addresses are not translated; published ports are open at the containers' addresses
    ISOLATED = "isolated"  # of an internal network: the bridge has no address either


class Ipam(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One subnet of a network. Free addresses are allocated from `ip_range`; "" = the whole subnet."""

    subnet: str
    gateway: str  # "" = none: the network has no way out, and the bridge no address
    ip_range: str = ""
    aux: dict[str, str] = msgspec.field(default_factory=dict)  # name → address that no container ever gets
    asked: bool = False  # the client named the subnet; only then may a container name its address
    gateway_is_implied: bool = False  # chosen beside a subnet that was named: inspect shows only what was asked

    @property
    def version(self) -> int:
        """Return the family, 4 or 6."""
        return 6 if ":" in self.subnet else 4

    @property
    def way_out(self) -> str:
        """Return where the containers' default route leads, "" = nowhere."""
        return self.aux.get(AUX_GATEWAYS[self.version], self.gateway)


class Network(msgspec.Struct, kw_only=True):
    """A network as stored. Only the default bridge's options and a subnet nobody asked for change after creation."""

    id: str
    name: str
    created_ns: int
    driver: str = "bridge"  # bridge | host | null
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    ipam: list[Ipam] = msgspec.field(default_factory=list)
    unused_ipam: list[Ipam] = msgspec.field(default_factory=list)  # of a family that is not enabled: only shown
    bridge: str = ""  # the kernel's interface; "" for host and none
    scope: str = "local"  # swarm: a network of the swarm, which on one node is a bridge; others are only shown
    is_overlay: bool = True  # if of the swarm: asked for as an overlay network, not as a bridge
    config_only: bool = False  # never a network itself: what others are made from
    config_from: str = ""  # the name of the network it was made from
    ingress: bool = False  # the swarm's ingress network: published ports of services lead through it
    foreign: bool = False  # the interface is the administrator's: never changed, never deleted

    @property
    def is_predefined(self) -> bool:
        return self.name in PREDEFINED

    @property
    def has_names(self) -> bool:
        """Check that containers on it find each other by name: on user-defined networks only, as with dockerd.

        `test_the_default_bridge_has_no_names`.
        """
        return self.driver == "bridge" and not self.is_predefined and not self.ingress

    @property
    def shown_driver(self) -> str:
        """Return the driver that clients are shown."""
        return "overlay" if self.scope == "swarm" and self.is_overlay else self.driver

    @property
    def mtu(self) -> int:
        """Return the MTU of the bridge and of the containers' interfaces, in bytes."""
        return int(self.options.get(OPTION_MTU, DEFAULT_MTU))

    @property
    def icc(self) -> bool:
        """Check that containers on it may talk to each other."""
        return self.options.get(OPTION_ICC, "true") in TRUE

    @property
    def masquerade(self) -> bool:
        """Check that packets which leave it get the host's address."""
        return self.options.get(OPTION_MASQUERADE, "true") in TRUE

    @property
    def announcements(self) -> int:
        """Return how often a new endpoint's addresses are announced to its neighbours."""
        return self._number(OPTION_ADVERTISE_COUNT, ADVERTISE_COUNT)

    @property
    def announcement_interval_s(self) -> float:
        """Return the pause between two announcements, in seconds."""
        return self._number(OPTION_ADVERTISE_MS, ADVERTISE_MS) / 1000

    def _number(self, option: str, default: int) -> int:
        """Read an option; networks of earlier versions may have words that nobody had checked."""
        text = self.options.get(option, "")
        return int(text) if text.isdecimal() else default

    @property
    def interface_prefix(self) -> str:
        """Return what the names of containers' interfaces on it begin with; a number follows."""
        return self.options.get(OPTION_INTERFACE_PREFIX) or "eth"

    @property
    def host_binding(self) -> str:
        """Return the host address for ports of which the client names none; "" = all."""
        address = self.options.get(OPTION_HOST_BINDING, "")
        return "" if address == "0.0.0.0" else address

    def gateway_mode(self, version: int) -> GatewayMode:
        """Return how a family (4, 6) is connected to the world."""
        return GatewayMode(self.options.get(OPTION_GATEWAY_MODES[version], GatewayMode.NAT))

    @property
    def inhibits_ipv4(self) -> bool:
        """Check that the bridge gets no IPv4 address: somebody else has the gateway's."""
        return self.options.get(OPTION_INHIBIT_IPV4, "false") in TRUE

    def host_ip(self, version: int) -> str:
        """Return the address of the host that packets of a family (4, 6) leave with; "" = that of their way out."""
        return self.options.get(OPTION_HOST_IPS[version], "")

    @property
    def trusted_interfaces(self) -> tuple[str, ...]:
        """Return the host's interfaces from which published ports are reached at the containers' addresses, too."""
        return tuple(filter(None, self.options.get(OPTION_TRUSTED_INTERFACES, "").split(":")))


@dataclass(frozen=True, slots=True)
class FamilyFlags:
    """What the administrator says of one family of the default bridge, as he wrote it; "" = nothing."""

    version: int
    bip: str = ""
    fixed_cidr: str = ""
    default_gateway: str = ""

    @property
    def suffix(self) -> str:
        """Return how the flags of the family end."""
        return "" if self.version == 4 else "-v6"


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The administrator's options for this daemon's networks: dockerd's, and `socket_lb`."""

    bridge: str = ""  # the default bridge's interface, which is there already; "" = one of our own; none = no bridge
    ipv6: bool = False  # the default bridge has IPv6, too
    bip: str = ""  # its address and prefix; "" = the first free of the pools
    bip6: str = ""
    fixed_cidr: str = ""  # where its containers' addresses come from; "" = the whole subnet
    fixed_cidr_v6: str = ""
    default_gateway: str = ""  # where its containers' default routes lead; "" = to the bridge
    default_gateway_v6: str = ""
    mtu: int = DEFAULT_MTU  # of the default bridge
    icc: bool = True  # containers on the default bridge may talk to each other
    ip_masq: bool = True  # what leaves the default bridge gets the host's address
    ip: str = "0.0.0.0"  # where ports of the default bridge are published; the wildcard: on both families
    socket_lb: bool = True  # clients on this host skip the translation of packets, where the kernel allows it
    pools: tuple[tuple[str, int], ...] = ()  # (range, prefix length) of new subnets; () = dockerd's
    default_options: dict[str, dict[str, str]] = {}  # options of networks that do not say otherwise, by driver
    userland_proxy: bool = True  # IPv6 clients reach ports of containers that have only IPv4
    iptables: bool = True  # there are rules for IPv4
    ip6tables: bool = True  # there are rules for IPv6
    ip_forward: bool = True  # forwarding is switched on where it is off
    ip_forward_no_drop: bool = False  # and then it is not guarded, and stays on
    allow_direct_routing: bool = False  # published ports are reached at the containers' addresses, too
    accept_fwmark: str = ""  # MARK or MARK/MASK of packets that reach every container; "" = none do

    @property
    def families(self) -> tuple[FamilyFlags, ...]:
        """Return what is said of each family of the default bridge."""
        ipv4 = FamilyFlags(4, self.bip, self.fixed_cidr, self.default_gateway)
        ipv6 = FamilyFlags(6, self.bip6, self.fixed_cidr_v6, self.default_gateway_v6)
        return (ipv4, ipv6) if self.ipv6 else (ipv4,)

    def has_rules(self, version: int) -> bool:
        """Check that there are rules for a family (4, 6)."""
        return self.iptables if version == 4 else self.ip6tables

    def bridge_options(self, bridge: str) -> dict[str, str]:
        """Return the `Options` of the default bridge, which inspect shows."""
        return {
            OPTION_DEFAULT_BRIDGE: "true",
            OPTION_ICC: str(self.icc).lower(),
            OPTION_MASQUERADE: str(self.ip_masq).lower(),
            OPTION_HOST_BINDING: self.ip,
            OPTION_BRIDGE_NAME: bridge,
            OPTION_MTU: str(self.mtu),
        }


class EndpointRequest(msgspec.Struct, kw_only=True):
    """A container's request for one network. Empty fields: anything free, or the default."""

    network: str  # name or id
    container_name: str = ""  # without the leading slash
    hostname: str = ""
    aliases: list[str] = msgspec.field(default_factory=list)
    links: dict[str, str] = msgspec.field(default_factory=dict)  # alias → container name or id, on this network
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    gw_priority: int = 0
    driver_opts: dict[str, str] | None = None
    link_local_ips: list[str] = msgspec.field(default_factory=list)
    ipv6: bool = True  # False where IPv6 is switched off in the container: it gets no address of that family


class Endpoint(msgspec.Struct, kw_only=True):
    """A container's attachment to one network, as it is in force."""

    endpoint_id: str
    network_id: str
    network_name: str
    interface: str  # in the container: eth0, eth1, … or as asked; "" on host and none
    host_interface: str  # the host's end of the veth pair, a port of the bridge
    mac_address: str
    ip_address: str = ""
    ip_prefix_len: int = 0
    gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefix_len: int = 0
    ipv6_gateway: str = ""
    gw_priority: int = 0
    container_name: str = ""
    aliases: list[str] = msgspec.field(default_factory=list)
    dns_names: list[str] = msgspec.field(default_factory=list)  # all its names in the DNS; the first is the PTR name
    links: dict[str, str] = msgspec.field(default_factory=dict)
    driver_opts: dict[str, str] | None = None
    asked_ipv4: str = ""
    asked_ipv6: str = ""
    link_local_ips: list[str] = msgspec.field(default_factory=list)  # further addresses, as asked

    @property
    def sysctls(self) -> dict[str, str]:
        """Return the sysctls that its interface shall have, by path below /proc/sys/net."""
        found = {}
        for entry in (self.driver_opts or {}).get(ENDPOINT_SYSCTLS, "").split(","):
            if match := INTERFACE_SYSCTL.match(entry):  # an earlier bennud took anything
                found[f"{match['family']}/{match['kind']}/{self.interface}/{match['name']}"] = match["value"]
        return found

    def address_of(self, version: int) -> str:
        """Return the address of a family (4, 6), "" = none."""
        return self.ip_address if version == 4 else self.ipv6_address

    def gateway_of(self, version: int) -> str:
        """Return the gateway of a family (4, 6), "" = none."""
        return self.gateway if version == 4 else self.ipv6_gateway

    def settings(self) -> EndpointSettings:
        """Convert to the shape that inspect shows."""
        asked = EndpointIPAMConfig(
            ipv4_address=self.asked_ipv4, ipv6_address=self.asked_ipv6, link_local_ips=self.link_local_ips or None
        )
        return EndpointSettings(
            ipam_config=asked if self.asked_ipv4 or self.asked_ipv6 or self.link_local_ips else None,
            links=[f"{target}:{alias}" for alias, target in self.links.items()] or None,
            aliases=list(self.aliases) or None,
            mac_address=self.mac_address,
            driver_opts=self.driver_opts,
            gw_priority=self.gw_priority,
            network_id=self.network_id,
            endpoint_id=self.endpoint_id,
            gateway=self.gateway,
            ip_address=self.ip_address,
            ip_prefix_len=self.ip_prefix_len,
            ipv6_gateway=self.ipv6_gateway,
            global_ipv6_address=self.ipv6_address,
            global_ipv6_prefix_len=self.ipv6_prefix_len,
            dns_names=list(self.dns_names) or None,
        )


class PortRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One `-p`. `host_ip` "" = all addresses of both families; host ports 0, 0 = any free port."""

    container_port: int
    proto: str = "tcp"
    host_ip: str = ""
    host_port_first: int = 0
    host_port_last: int = 0


class PortForward(msgspec.Struct, frozen=True, order=True):
    """A published port as the rules translate it. Both addresses are of one family; 0.0.0.0 or ::: every address."""

    proto: str
    host_ip: str
    host_port: int
    target_ip: str
    target_port: int


class PortLink(msgspec.Struct, frozen=True, order=True):
    """A port that a legacy link opens: of another container on the same network, while that has the address."""

    address: str
    proto: str
    port: int
    container: str = ""  # whose; "": not known, in what an earlier version has written


class OpenPort(msgspec.Struct, frozen=True, order=True):
    """A published port that is reached at the container's address, too: without translation, by a route."""

    proto: str
    ip: str
    port: int


class Resolver(msgspec.Struct, kw_only=True):
    """The embedded DNS of a sandbox: the servers it forwards to, and its port."""

    servers: list[str] = msgspec.field(default_factory=list)  # [] = the host's own
    port: int = 0  # on 127.0.0.11, to which port 53 is translated; 0 = not served yet


class Sandbox(msgspec.Struct, kw_only=True):
    """A container's network namespace, endpoints and published ports. Durable: part of the container's record."""

    sandbox_id: str
    netns: str  # path of the bind-mounted namespace; "" = the host's own
    endpoints: list[Endpoint] = msgspec.field(default_factory=list)
    ports: list[PublishedPort] = msgspec.field(default_factory=list)
    resolver: Resolver = msgspec.field(default_factory=Resolver)
    requested_ports: list[PortRequest] = msgspec.field(default_factory=list)
    links: list[PortLink] = msgspec.field(default_factory=list)  # on the default bridge, if that keeps containers apart

    @property
    def has_embedded_dns(self) -> bool:
        """Check that /etc/resolv.conf must name 127.0.0.11."""
        return any(endpoint.dns_names for endpoint in self.endpoints)

    def gateway_endpoint(self, version: int = 4) -> Endpoint | None:
        """Return the endpoint of the default route of a family (4, 6): highest priority, then first network by name.

        moby, libnetwork/sandbox.go, Endpoint.Less; `test_the_way_out_follows_the_networks`.
        """
        able = [endpoint for endpoint in self.endpoints if endpoint.gateway_of(version)]
        return min(able, key=lambda endpoint: (-endpoint.gw_priority, endpoint.network_name), default=None)


def as_settings(sandbox: Sandbox) -> Mapping[str, EndpointSettings]:
    """Convert to `NetworkSettings.Networks`, by network name."""
    return {endpoint.network_name: endpoint.settings() for endpoint in sandbox.endpoints}
