"""Frontends and backends of services, as values: what a service publishes and which tasks take its connections.

A frontend is one service: virtual addresses, names, published ports. Its backends are the tasks that accept
connections now. `nat/` renders frontends to nftables rules, `dns/` answers with them, `lb/` keeps them. The words are
those of load balancers (IPVS, Envoy, Cilium).
"""

from collections.abc import Iterable

import msgspec


class FrontendAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A service on one network of the swarm. `vip` "" (dnsrr): its names answer with the addresses of its tasks."""

    network_id: str
    bridge: str = ""
    vip: str = ""
    names: tuple[str, ...] = ()


class BackendAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The address of a backend on one network; `ip6` "" if the network has no IPv6."""

    network_id: str
    ip: str
    ip6: str = ""


class BackendPort(msgspec.Struct, frozen=True, kw_only=True):
    """A published port of a service and the port of the task that it leads to."""

    proto: str
    published: int
    target: int


class ServiceBackend(msgspec.Struct, frozen=True, kw_only=True):
    """A task that accepts connections. `owner`: the task's id. `ip`: the address that published ports lead to."""

    owner: str
    ip: str
    addresses: tuple[BackendAddress, ...] = ()
    ports: tuple[BackendPort, ...] = ()

    def ips(self) -> set[str]:
        """Return all its IPv4 addresses."""
        return {self.ip, *(one.ip for one in self.addresses)} - {""}


class Frontend(msgspec.Struct, frozen=True, kw_only=True):
    """One service as its clients see it. `ports`: (protocol, number) of all it publishes, also without backends.

    Stored as JSON; the names of the fields are the names on disk unless one is given.
    """

    service_id: str
    addresses: tuple[FrontendAddress, ...] = msgspec.field(name="places", default=())  # the name on disk
    ports: tuple[tuple[str, int], ...] = ()
    backends: tuple[ServiceBackend, ...] = ()

    def vip_on(self, network_id: str) -> str:
        """Return the virtual address on a network, "" if there is none."""
        return next((address.vip for address in self.addresses if address.network_id == network_id), "")


def drop_conflicting_ports(frontends: Iterable[Frontend]) -> list[Frontend]:
    """Remove each port that two services claim, from both.

    Records read after a crash may be of different times, so the later owner of a port is unknown; the cluster
    publishes it again from the service's row (`test_two_services_that_were_stored_with_one_port_show_it_both_no_more`).
    """
    found = list(frontends)
    claims: dict[tuple[str, int], int] = {}
    for frontend in found:
        for port in frontend.ports:
            claims[port] = claims.get(port, 0) + 1
    return [
        msgspec.structs.replace(frontend, ports=tuple(port for port in frontend.ports if claims[port] == 1))
        for frontend in found
    ]


def backends_of(frontend: Frontend, proto: str, number: int) -> list[tuple[str, int]]:
    """List address and port of each backend of a published port."""
    return [
        (backend.ip, port.target)
        for backend in frontend.backends
        for port in backend.ports
        if (port.proto, port.published) == (proto, number) and backend.ip
    ]
