"""Maps published ports to containers: allocates host ports, makes their rules, and proxies what rules cannot translate.

A port is mapped to the endpoint that the sandbox's default route leads through, and follows the default route to
another endpoint. Changes are in force after the firewall's next write.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator

from bennu.network.model import NetworkFailure, PortForward, Sandbox
from bennu.network.nat.conntrack import forget_udp_flows
from bennu.network.nat.nft import Firewall
from bennu.network.nat.port_allocator import PortAllocator, PortTaken
from bennu.network.nat.userland_proxy import ProxyRoute, UserlandProxy

log = logging.getLogger(__name__)


class PortMapper:
    """The mapped ports of all sandboxes, by container id; a sandbox also lists its own (`Sandbox.ports`)."""

    def __init__(self, firewall: Firewall, allocator: PortAllocator) -> None:
        self._firewall = firewall
        self._allocator = allocator
        self._forwards: dict[str, list[PortForward]] = {}
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

    def map(self, container_id: str, sandbox: Sandbox, host_binding: str) -> None:
        """Allocate the requested host ports; `host_binding` is the address of those that name none ("": all).

        Raises: NetworkFailure with dockerd's words; ports allocated so far are listed in the sandbox, for `unmap`.
        """
        target = sandbox.gateway_endpoint()
        if target is None:  # no default route: it cannot be reached from outside
            return
        for request in sandbox.requested_ports:
            try:
                sandbox.ports += self._allocator.allocate(request, host_binding)
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

    async def remap(self, container_id: str, sandbox: Sandbox, host_binding: str) -> None:
        """Map the ports to the default route's endpoint, which may be another one now.

        Raises: NetworkFailure, FirewallFailure.
        """
        before = self._forwards.pop(container_id, [])
        self._proxy.stop(container_id)
        if sandbox.gateway_endpoint() is None:
            self._allocator.release(sandbox.ports)
            sandbox.ports = []
        elif sandbox.ports:
            self._publish(container_id, sandbox)
        else:
            self.map(container_id, sandbox, host_binding)
        after = self._forwards.get(container_id, [])
        if after != before:
            await self._write([*before, *after])

    async def unmap(self, container_id: str, sandbox: Sandbox) -> None:
        """Remove the rules, then free the ports. Raises: FirewallFailure; the ports are free all the same."""
        self._proxy.stop(container_id)
        had_ports = self._forwards.pop(container_id, None)
        self._shut.discard(container_id)
        try:
            if had_ports:
                await self._write(had_ports)
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
        if container_id in self._shut and sandbox and sandbox.gateway_endpoint():
            self._shut.discard(container_id)
            self._publish(container_id, sandbox)
            await self._firewall.apply()

    def adopt(self, container_id: str, sandbox: Sandbox) -> None:
        """Keep the ports of a living container mapped; a port that another program took is only logged."""
        for port in sandbox.ports:
            try:
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
        self._forwards[container_id] = forwards_of(sandbox)
        self._proxy.set(container_id, [*self._routes(sandbox)])

    def _routes(self, sandbox: Sandbox) -> Iterator[ProxyRoute]:
        target = target_of(sandbox, 6) or target_of(sandbox, 4)
        for port in sandbox.ports:
            held = self._allocator.socket_of(port)
            if ":" in port.host_ip and held is not None:
                yield ProxyRoute(held, target, port.container_port)

    async def _write(self, changed: Iterable[PortForward]) -> None:
        await self._firewall.apply()
        flows = [forward.host_port for forward in changed if forward.proto == "udp"]
        if flows:
            await asyncio.to_thread(forget_udp_flows, flows)


def target_of(sandbox: Sandbox, version: int) -> str:
    """Return the address that ports published on a family (4, 6) are mapped to; "" = none."""
    endpoint = sandbox.gateway_endpoint(version)
    return endpoint.address_of(version) if endpoint else ""


def forwards_of(sandbox: Sandbox) -> list[PortForward]:
    """List the forwards of a sandbox's ports; a family without default route has none."""
    found = []
    for port in sandbox.ports:
        address = target_of(sandbox, 6 if ":" in port.host_ip else 4)
        if address:
            found.append(PortForward(port.proto, port.host_ip, port.host_port, address, port.container_port))
    return found
