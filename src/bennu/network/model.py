"""The values of this package: networks, endpoints, sandboxes, ports. Networks and sandboxes are stored as JSON."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from bennu.errors import BennuError
from bennu.go.bool import TRUE
from bennu.model import EndpointIPAMConfig, EndpointSettings, PublishedPort

OPTION_BRIDGE_NAME: Final = "com.docker.network.bridge.name"
OPTION_ICC: Final = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE: Final = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_BINDING: Final = "com.docker.network.bridge.host_binding_ipv4"
OPTION_DEFAULT_BRIDGE: Final = "com.docker.network.bridge.default_bridge"
OPTION_MTU: Final = "com.docker.network.driver.mtu"
OPTION_INTERFACE_PREFIX: Final = "com.docker.network.container_iface_prefix"
OPTION_ADVERTISE_COUNT: Final = "com.docker.network.advertise_addr_nmsgs"
OPTION_ADVERTISE_MS: Final = "com.docker.network.advertise_addr_ms"
ENDPOINT_INTERFACE: Final = "com.docker.network.endpoint.ifname"
ENDPOINT_SYSCTLS: Final = "com.docker.network.endpoint.sysctls"
# `ifname` because the docker command writes keys of options in small letters.
INTERFACE_SYSCTL: Final = re.compile(
    r"net\.(?P<family>ipv4|ipv6|mpls)\.(?P<kind>[a-z]+)\.(IFNAME|ifname)\.(?P<name>[a-z0-9_]+)=(?P<value>\S*)\Z",
    re.ASCII,
)
DEFAULT_MTU: Final = 1500
ADVERTISE_COUNT: Final = 3
ADVERTISE_MS: Final = 1000
PREDEFINED: Final = frozenset({"bridge", "host", "none"})


class NetworkFailure(BennuError):
    """The kernel refused a change of a network; the text says which."""


class Ipam(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One subnet of a network. Free addresses are allocated from `ip_range`; "" = the whole subnet."""

    subnet: str
    gateway: str
    ip_range: str = ""
    aux: dict[str, str] = msgspec.field(default_factory=dict)  # name → address that no container ever gets
    asked: bool = False  # the client named the subnet; only then may a container name its address


class Network(msgspec.Struct, kw_only=True):
    """A network as stored. Only the default bridge's options and a subnet nobody asked for change after creation."""

    id: str
    name: str
    created_ns: int
    driver: str = "bridge"  # bridge | host | null
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    ipam: list[Ipam] = msgspec.field(default_factory=list)
    bridge: str = ""  # the kernel's interface; "" for host and none
    scope: str = "local"  # local | swarm: an overlay network, which on one node is a bridge
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
        return int(self.options.get(OPTION_ADVERTISE_COUNT, ADVERTISE_COUNT))

    @property
    def announcement_interval_s(self) -> float:
        """Return the pause between two announcements, in seconds."""
        return int(self.options.get(OPTION_ADVERTISE_MS, ADVERTISE_MS)) / 1000

    @property
    def interface_prefix(self) -> str:
        """Return what the names of containers' interfaces on it begin with; a number follows."""
        return self.options.get(OPTION_INTERFACE_PREFIX) or "eth"

    @property
    def host_binding(self) -> str:
        """Return the host address for ports of which the client names none; "" = all."""
        address = self.options.get(OPTION_HOST_BINDING, "")
        return "" if address == "0.0.0.0" else address


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The administrator's options for this daemon's networks: dockerd's, and `socket_lb`."""

    bridge: str = ""  # the default bridge's interface; "" = one of our own
    bip: str = ""  # its address and prefix; "" = the first free of the pools
    mtu: int = DEFAULT_MTU  # of the default bridge
    icc: bool = True  # containers on the default bridge may talk to each other
    ip_masq: bool = True  # what leaves the default bridge gets the host's address
    ip: str = "0.0.0.0"  # where ports of the default bridge are published; the wildcard: on both families
    socket_lb: bool = True  # clients on this host skip the translation of packets, where the kernel allows it
    pools: tuple[tuple[str, int], ...] = ()  # (range, prefix length) of new subnets; () = dockerd's

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
    """A port that a legacy link opens: of another container on the same network."""

    address: str
    proto: str
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
