"""Allocates the host ports of services, and proxies them where the kernel cannot translate.

Apart from the balancer, which decides what services show, because it owns sockets and connections. A port that another
program has is published all the same, as by dockerd's ingress: the rules come first, and that program gets no
connections from outside while the service publishes the port.
"""

import logging
from collections.abc import Iterable
from typing import Final

from bennu.model import PublishedPort
from bennu.network.model import PortRequest
from bennu.network.nat.port_allocator import PortAllocator, PortTaken
from bennu.network.nat.userland_proxy import ProxyRoute, UserlandProxy

LOOPBACK: Final = "127.0.0.1"  # the rules translate it to a backend
log = logging.getLogger(__name__)


class ServicePorts:
    """The ports by service id. IPv6 clients are proxied to the same port by IPv4."""

    def __init__(self, allocator: PortAllocator) -> None:
        self._allocator = allocator
        self._proxy = UserlandProxy()
        self._ports: dict[str, dict[tuple[str, int], list[PublishedPort]]] = {}

    def set(self, service_id: str, ports: Iterable[tuple[str, int]]) -> None:
        """Allocate exactly these (protocol, number) for the service from now on; others are released."""
        wanted, mine = dict.fromkeys(ports), self._ports.get(service_id, {})
        if wanted.keys() == mine.keys():
            return
        self._proxy.stop(service_id)
        for key in mine.keys() - wanted.keys():
            self._allocator.release(mine[key])
        self._ports[service_id] = {key: mine[key] if key in mine else self._allocate(*key) for key in wanted}
        self._proxy.set(service_id, [*self._routes(service_id)])
        if not wanted:
            del self._ports[service_id]

    def _allocate(self, proto: str, number: int) -> list[PublishedPort]:
        try:
            return self._allocator.allocate(
                PortRequest(container_port=number, proto=proto, host_port_first=number, host_port_last=number),
                self._allocator.hosts_of(""),
            )
        except PortTaken as error:
            log.warning("a service publishes port %d/%s all the same: %s", number, proto, error)
            return []

    def _routes(self, service_id: str) -> Iterable[ProxyRoute]:
        for held in (port for ports in self._ports[service_id].values() for port in ports):
            sock = self._allocator.socket_of(held)
            if ":" in held.host_ip and sock is not None:
                yield ProxyRoute(sock, LOOPBACK, held.host_port)

    def close(self) -> None:
        """Stop proxying; the sockets stay the allocator's to close."""
        self._proxy.close()
