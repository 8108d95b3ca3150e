"""Maps published ports to containers: allocates host ports, makes their rules, and proxies what rules cannot translate.

A port is mapped to the endpoint that the sandbox's default route leads through, and follows the default route to
another endpoint. Changes are in force after the firewall's next write.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from bennu.model import PublishedPort
from bennu.network.model import (
    Endpoint,
    GatewayMode,
    Network,
    NetworkFailure,
    NetworkSettings,
    OpenPort,
    PortForward,
    PortRequest,
    Sandbox,
)
from bennu.network.nat.conntrack import forget_udp_flows
from bennu.network.nat.nft import Firewall
from bennu.network.nat.port_allocator import PortAllocator, PortTaken
from bennu.network.nat.userland_proxy import ProxyRoute, UserlandProxy

WILDCARDS: Final = {4: "0.0.0.0", 6: "::"}
log = logging.getLogger(__name__)


class PortMapper:
    """The mapped ports of all sandboxes, by container id; a sandbox also lists its own (`Sandbox.ports`)."""

    def __init__(
        self,
        firewall: Firewall,
        allocator: PortAllocator,
        network_of: Callable[[str], Network | None],
        settings: NetworkSettings,
    ) -> None:
        self._firewall = firewall
        self._allocator = allocator
        self._network_of = network_of  # by id
        self._settings = settings
        self._forwards: dict[str, list[PortForward]] = {}
        self._opened: dict[str, list[OpenPort]] = {}
        self._shut: set[str] = set()  # containers whose ports refuse new connections
        self._proxy = UserlandProxy()

    def port_forwards(self) -> frozenset[PortForward]:
        """Return the forwards of all ports that accept new connections, for the ruleset."""
        return frozenset(
            forward
            for container_id, entries in self._forwards.items()
            if container_id not in self._shut
            for forward in entries
        )

    def open_ports(self) -> frozenset[OpenPort]:
        """Return the ports that are reached at the containers' addresses, for the ruleset."""
        return frozenset(
            port for container_id, ports in self._opened.items() if container_id not in self._shut for port in ports
        )

    def map(self, container_id: str, sandbox: Sandbox) -> None:
        """Allocate the requested host ports.

        Raises: NetworkFailure with dockerd's words; ports allocated so far are listed in the sandbox, for `unmap`.
        """
        target = _way_out(sandbox)
        if target is None:  # no default route: it cannot be reached from outside
            return
        for request in sandbox.requested_ports:
            try:
                sandbox.ports += self._allocate(sandbox, target, request)
            except PortTaken as error:
                raise NetworkFailure(
                    "driver failed programming external connectivity on endpoint "
                    f"{target.container_name} ({target.endpoint_id}): {error}"
                ) from error
        if sandbox.ports:
            self._publish(container_id, sandbox)

    async def apply(self, container_id: str) -> None:
        """Return when the rules of the mapped ports are in force. Raises: FirewallFailure."""
        await self._write(self._forwards.get(container_id, ()))

    async def remap(self, container_id: str, sandbox: Sandbox) -> None:
        """Map the ports to the default route's endpoint, which may be another one now.

        Raises: NetworkFailure, FirewallFailure.
        """
        before = self._forwards.pop(container_id, [])
        opened = self._opened.pop(container_id, [])
        self._proxy.stop(container_id)
        if sandbox.ports and {port.host_ip for port in sandbox.ports if not port.host_port} != self._routed(sandbox):
            self._allocator.release(sandbox.ports)
            sandbox.ports = []
        if _way_out(sandbox) is None:
            self._allocator.release(sandbox.ports)
            sandbox.ports = []
        elif sandbox.ports:
            self._publish(container_id, sandbox)
        else:
            self.map(container_id, sandbox)
        after = self._forwards.get(container_id, [])
        if after != before or opened != self._opened.get(container_id, []):
            await self._write([*before, *after])

    async def unmap(self, container_id: str, sandbox: Sandbox) -> None:
        """Remove the rules, then free the ports. Raises: FirewallFailure; the ports are free all the same."""
        self._proxy.stop(container_id)
        forwards = self._forwards.pop(container_id, [])
        opened = self._opened.pop(container_id, [])
        self._shut.discard(container_id)
        try:
            if forwards or opened:
                await self._write(forwards)
        finally:
            self._allocator.release(sandbox.ports)

    async def shut(self, container_id: str) -> None:
        """Refuse new connections to the ports; open ones go on. Idempotent. Raises: FirewallFailure."""
        if container_id in self._forwards and container_id not in self._shut:
            self._shut.add(container_id)
            self._proxy.pause(container_id)
            await self._firewall.apply()

    async def reopen(self, container_id: str, sandbox: Sandbox | None) -> None:
        """Undo `shut`. Idempotent. Raises: FirewallFailure."""
        if container_id in self._shut and sandbox and _way_out(sandbox):
            self._shut.discard(container_id)
            self._publish(container_id, sandbox)
            await self._firewall.apply()

    def adopt(self, container_id: str, sandbox: Sandbox) -> None:
        """Keep the ports of a living container mapped; a port that another program took is only logged."""
        for port in sandbox.ports:
            try:
                if port.host_port:
                    self._allocator.adopt(port)
            except PortTaken as error:
                log.warning("a program of the host took a port of container %s: %s", container_id[:12], error)
        if sandbox.ports:
            self._publish(container_id, sandbox)

    def close(self) -> None:
        """Stop proxying and free all sockets; the rules stay."""
        self._proxy.close()
        self._allocator.close()

    def _publish(self, container_id: str, sandbox: Sandbox) -> None:
        self._forwards[container_id] = [
            forward for forward in forwards_of(sandbox) if self._settings.has_rules(6 if ":" in forward.host_ip else 4)
        ]
        self._opened[container_id] = [*self._opened_of(sandbox)]
        self._proxy.set(container_id, [*self._routes(sandbox)])

    def _allocate(self, sandbox: Sandbox, target: Endpoint, request: PortRequest) -> list[PublishedPort]:
        """Allocate the host ports of one request, as far as the container is reached. Raises: PortTaken."""
        binding = getattr(self._network_of(target.network_id), "host_binding", "")
        routed = self._routed(sandbox)
        reached = {version for version in (4, 6) if target_of(sandbox, version)}
        if 4 in reached and self._settings.userland_proxy:
            reached.add(6)  # the proxy carries what comes by IPv6
        hosts = self._allocator.hosts_of(request.host_ip or binding)
        bound = [host for host in hosts if WILDCARDS[_version(host)] not in routed and _version(host) in reached]
        found = self._allocator.allocate(request, bound) if bound else []
        found += [
            PublishedPort(container_port=request.container_port, proto=request.proto, host_ip=host, host_port=0)
            for host in routed
            if not request.host_ip or _version(request.host_ip) == _version(host)
        ]
        return sorted(found, key=lambda port: _version(port.host_ip))

    def _routed(self, sandbox: Sandbox) -> set[str]:
        """Return the wildcard addresses of the families that no ports are translated for."""
        return {WILDCARDS[version] for version in (4, 6) if self._mode(sandbox, version) is GatewayMode.ROUTED}

    def _mode(self, sandbox: Sandbox, version: int) -> GatewayMode | None:
        endpoint = sandbox.gateway_endpoint(version)
        network = self._network_of(endpoint.network_id) if endpoint else None
        return network.gateway_mode(version) if network else None

    def _opened_of(self, sandbox: Sandbox) -> Iterator[OpenPort]:
        for version in (4, 6):
            endpoint = sandbox.gateway_endpoint(version)
            network = self._network_of(endpoint.network_id) if endpoint else None
            if network is None or not self._settings.has_rules(version):
                continue
            is_routed = network.gateway_mode(version) is GatewayMode.ROUTED
            if is_routed or self._settings.allow_direct_routing or network.trusted_interfaces:
                for port in sandbox.ports:
                    if _version(port.host_ip) == version:
                        yield OpenPort(port.proto, target_of(sandbox, version), port.container_port)

    def _routes(self, sandbox: Sandbox) -> Iterator[ProxyRoute]:
        for port in sandbox.ports:
            version = _version(port.host_ip)
            target = target_of(sandbox, version) or target_of(sandbox, 4)
            held = self._allocator.socket_of(port)
            is_carried = version == 6 or not self._settings.has_rules(4)
            if self._settings.userland_proxy and is_carried and target and held is not None:
                yield ProxyRoute(held, target, port.container_port)

    async def _write(self, changed: Iterable[PortForward]) -> None:
        await self._firewall.apply()
        flows = [forward.host_port for forward in changed if forward.proto == "udp"]
        if flows:
            await asyncio.to_thread(forget_udp_flows, flows)


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _way_out(sandbox: Sandbox) -> Endpoint | None:
    """Return the endpoint whose network says how ports are published; None: the container is not reached."""
    return sandbox.gateway_endpoint(4) or sandbox.gateway_endpoint(6)


def target_of(sandbox: Sandbox, version: int) -> str:
    """Return the address that ports published on a family (4, 6) are mapped to; "" = none."""
    endpoint = sandbox.gateway_endpoint(version)
    return endpoint.address_of(version) if endpoint else ""


def forwards_of(sandbox: Sandbox) -> list[PortForward]:
    """List the forwards of a sandbox's ports; a family without default route has none."""
    found = []
    for port in sandbox.ports:
        address = target_of(sandbox, _version(port.host_ip))
        if address and port.host_port:
            found.append(PortForward(port.proto, port.host_ip, port.host_port, address, port.container_port))
    return found
