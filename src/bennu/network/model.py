"""The words of this package: networks, what a container asks of one, and what it got."""

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
DEFAULT_MTU: Final = 1500
PREDEFINED: Final = frozenset({"bridge", "host", "none"})


class NetworkFailure(BennuError):
    """The kernel refused something about a network; the text says what."""


class Ipam(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One subnet of a network. `ip_range` is where free addresses are taken from; "" = the whole subnet."""

    subnet: str
    gateway: str
    ip_range: str = ""
    aux: dict[str, str] = msgspec.field(default_factory=dict)  # addresses never given to a container
    asked: bool = False  # the client named the subnet (only then may a container name its address)


class Network(msgspec.Struct, kw_only=True):
    """A network as it is kept on disk. Never changes after its creation."""

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
    scope: str = "local"  # swarm: an overlay network, which on one node is a bridge
    ingress: bool = False  # of the swarm: published ports of services lead through it
    foreign: bool = False  # the interface is the administrator's: never changed, never deleted

    @property
    def is_predefined(self) -> bool:
        return self.name in PREDEFINED

    @property
    def has_names(self) -> bool:
        """Whether containers on it find each other by name: on user-defined networks only, as with Docker."""
        return self.driver == "bridge" and not self.is_predefined and not self.ingress

    @property
    def mtu(self) -> int:
        return int(self.options.get(OPTION_MTU, DEFAULT_MTU))

    @property
    def icc(self) -> bool:
        return self.options.get(OPTION_ICC, "true") in TRUE

    @property
    def masquerade(self) -> bool:
        return self.options.get(OPTION_MASQUERADE, "true") in TRUE

    @property
    def host_binding(self) -> str:
        """The host address ports are published on when the client names none; "" = all."""
        address = self.options.get(OPTION_HOST_BINDING, "")
        return "" if address == "0.0.0.0" else address


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the administrator says of this daemon's networks: the options of dockerd's command line."""

    bridge: str = ""  # the default bridge's interface; "" = one of our own
    bip: str = ""  # its address and prefix; "" = the first free of the pools
    mtu: int = DEFAULT_MTU  # of the default bridge
    icc: bool = True  # containers on the default bridge may talk to each other
    ip_masq: bool = True  # what leaves the default bridge gets the host's address
    ip: str = "0.0.0.0"  # where ports of the default bridge are published; the wildcard: on both families
    pools: tuple[tuple[str, int], ...] = ()  # (range, prefix length) of new subnets; () = dockerd's

    def bridge_options(self, bridge: str) -> dict[str, str]:
        """The default bridge's `Options`."""
        return {
            OPTION_DEFAULT_BRIDGE: "true",
            OPTION_ICC: str(self.icc).lower(),
            OPTION_MASQUERADE: str(self.ip_masq).lower(),
            OPTION_HOST_BINDING: self.ip,
            OPTION_BRIDGE_NAME: bridge,
            OPTION_MTU: str(self.mtu),
        }


class EndpointRequest(msgspec.Struct, kw_only=True):
    """What a container asks of one network. Empty fields: whatever is free, whatever is usual."""

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


class Endpoint(msgspec.Struct, kw_only=True):
    """A container's place on one network, as it is in force."""

    endpoint_id: str
    network_id: str
    network_name: str
    interface: str  # in the container: eth0, eth1, …
    host_interface: str  # the other end of the pair, a port of the bridge
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
    dns_names: list[str] = msgspec.field(default_factory=list)  # all the names it answers to, most usual first
    links: dict[str, str] = msgspec.field(default_factory=dict)
    driver_opts: dict[str, str] | None = None
    asked_ipv4: str = ""
    asked_ipv6: str = ""

    def address_of(self, version: int) -> str:
        """Of the family 4 or 6; "" = none."""
        return self.ip_address if version == 4 else self.ipv6_address

    def gateway_of(self, version: int) -> str:
        return self.gateway if version == 4 else self.ipv6_gateway

    def settings(self) -> EndpointSettings:
        """As inspect shows it."""
        asked = EndpointIPAMConfig(ipv4_address=self.asked_ipv4, ipv6_address=self.asked_ipv6)
        return EndpointSettings(
            ipam_config=asked if self.asked_ipv4 or self.asked_ipv6 else None,
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
    """One `-p`. `host_ip` "" = every address of both families; host ports 0,0 = any free one."""

    container_port: int
    proto: str = "tcp"
    host_ip: str = ""
    host_port_first: int = 0
    host_port_last: int = 0


class Resolver(msgspec.Struct, kw_only=True):
    """Where the embedded DNS of a sandbox sends what it does not know itself."""

    servers: list[str] = msgspec.field(default_factory=list)  # [] = the host's own
    port: int = 0  # of 127.0.0.11, where port 53 leads; 0 = not served yet


class Sandbox(msgspec.Struct, kw_only=True):
    """A container's network namespace and all that leads into it. Durable: part of the container's record."""

    sandbox_id: str
    netns: str  # path of the bind-mounted namespace
    endpoints: list[Endpoint] = msgspec.field(default_factory=list)
    ports: list[PublishedPort] = msgspec.field(default_factory=list)
    resolver: Resolver = msgspec.field(default_factory=Resolver)
    requested_ports: list[PortRequest] = msgspec.field(default_factory=list)

    @property
    def has_embedded_dns(self) -> bool:
        """Whether `/etc/resolv.conf` has to name 127.0.0.11."""
        return any(endpoint.dns_names for endpoint in self.endpoints)

    def gateway_endpoint(self, version: int = 4) -> Endpoint | None:
        """The one the default route of a family (4, 6) leads through: highest priority, then the first by name."""
        able = [endpoint for endpoint in self.endpoints if endpoint.gateway_of(version)]
        return min(able, key=lambda endpoint: (-endpoint.gw_priority, endpoint.network_name), default=None)


def as_settings(sandbox: Sandbox) -> Mapping[str, EndpointSettings]:
    """By network name, as `NetworkSettings.Networks` has it."""
    return {endpoint.network_name: endpoint.settings() for endpoint in sandbox.endpoints}
