"""Networks that services are attached to, and what services hold on them: virtual addresses and published ports."""

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

from bennu.cluster.api_types import ServiceSpecWire
from bennu.cluster.convert import read_template
from bennu.cluster.errors import invalid, precondition
from bennu.cluster.load_balancer import LoadBalancer
from bennu.cluster.ports import allocate_ports, are_numbers_of, is_ingress, needs_ingress
from bennu.cluster.state import Change, Changed, ClusterState
from bennu.cluster.tables import NetworkAttachment, ServiceRow
from bennu.cluster.task_containers import task_of
from bennu.engine.engine import Engine
from bennu.errors import BennuError, Forbidden, NotFound
from bennu.network import Network
from bennu.orchestration.model.nouns import Service
from bennu.orchestration.model.spec import EndpointSpec, ServiceSpec
from bennu.orchestration.model.states import EndpointMode

TASKS_LEAVE_S: Final = 60
NO_INGRESS: Final = "service needs ingress network, but no ingress network is present"
log = logging.getLogger(__name__)


class Allocator:
    def __init__(self, engine: Engine, state: ClusterState, balancer: LoadBalancer) -> None:
        self._engine = engine
        self._networks = engine.services.networks
        self._state = state
        self._balancer = balancer

    def resolve(self, wire: ServiceSpecWire) -> None:
        """Replace the names of a service's networks by their ids.

        Raises: BennuError (500) for a network that does not exist, Forbidden for a network of one host,
        InvalidParameter for the ingress network.
        """
        for attachment in wire.task_template.networks or wire.networks or ():
            try:
                network = self._networks.find(attachment.target)
            except NotFound:
                raise BennuError(f"network {attachment.target} not found") from None
            if network.scope != "swarm" and not network.is_predefined:
                raise Forbidden(
                    f"The network {network.name} cannot be used with services. Only networks scoped to the swarm can "
                    "be used, such as those created with the overlay driver."
                )
            if network.ingress:
                raise invalid(f'Service cannot be explicitly attached to the ingress network "{network.name}"')
            attachment.target = network.id

    # --- what a service has of them -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def allotted(self, row: ServiceRow, service: Service) -> AsyncIterator[ServiceRow]:
        """Yield the row to commit in the block: with the ports and virtual addresses that `service` needs.

        The caller holds the state's lock. New allotments are given up again if the block fails. Raises: BennuError.
        """
        others = [other for other in self._state.services if other.id != row.id]
        ports = allocate_ports(service.spec.endpoint, others, row.ports)
        networks = {network.id: network for network in self._with_vip(service.spec)}
        found = await self._networks.balancer.reserve(row.id, networks)
        vips = tuple(NetworkAttachment(key, _with_length(networks[key], found[key])) for key in networks)
        try:
            yield replace(row, service=service, ports=ports, vips=vips)
        except BaseException:
            self._balancer.present(row.id)
            with contextlib.suppress(BennuError):
                await asyncio.shield(self._balancer.write(row.id))
            raise

    def _with_vip(self, spec: ServiceSpec) -> list[Network]:
        """List the networks on which the service has a virtual address, ingress first. Raises: InvalidParameter."""
        found: list[Network] = []
        if needs_ingress(spec.endpoint):
            ingress = self._networks.ingress
            if ingress is None:
                raise precondition(NO_INGRESS)
            found.append(ingress)
        for attachment in read_template(spec.task.container).networks or ():
            with contextlib.suppress(NotFound):  # removed behind the back of a spec that a rollback restores
                network = self._networks.find(attachment.target)
                if network.scope == "swarm":
                    found.append(network)
        is_vip = (spec.endpoint or EndpointSpec()).mode is EndpointMode.VIP
        return found if is_vip else []

    async def keep_allotted(self) -> None:
        """Allot what services lack after a change that no request made, such as a rollback, until cancelled.

        Such services rolled back by themselves, or are on a network whose subnet had to move.
        """
        dirty = dict.fromkeys(self._state.services.rows)
        woken = asyncio.Event()
        woken.set()

        def on_change(told: list[Changed]) -> None:
            dirty.update((item.row_id, None) for item in told if item.table == "services" and item.after)
            if dirty:
                woken.set()

        self._state.watchers.append(on_change)
        try:
            while True:
                await woken.wait()
                woken.clear()
                while dirty:
                    await self._make_up(dirty.popitem()[0])
        finally:
            self._state.watchers.remove(on_change)

    async def _make_up(self, service_id: str) -> None:
        async with self._state.lock:
            row = self._state.services.get(service_id)
            if row is None or not self._lacks(row):
                return
            try:
                async with self.allotted(row, row.service) as full:
                    change = Change()
                    change.put(self._state.services, full)
                    await self._state.commit(change)
            except Exception as error:  # whatever is wrong with one service, the others get theirs
                log.warning("service %s does not get the ports and addresses it needs: %s", row.name, error)

    def _lacks(self, row: ServiceRow) -> bool:
        endpoint = row.service.spec.endpoint
        if not are_numbers_of(row.ports, endpoint.ports if endpoint else ()):
            return True
        front = self._networks.balancer.get(row.id)
        held = {vip.network_id for vip in row.vips if vip.address.partition("/")[0] == front.vip_on(vip.network_id)}
        try:
            return held != {network.id for network in self._with_vip(row.service.spec)}
        except BennuError:
            return True

    # --- what the networks ask ----------------------------------------------------------------------------------

    def pools(self) -> Sequence[tuple[str, int]]:
        cluster = self._state.cluster
        return [(pool, cluster.subnet_size) for pool in cluster.address_pools] if cluster else ()

    def may_attach(self, container_id: str, network: Network) -> bool:
        """Allow tasks on the networks of the swarm; other containers may join only where a person allowed it."""
        return bool(task_of(self._engine.find(container_id)))

    def shadowed_by(self, row: ServiceRow) -> tuple[str, ...]:
        """Name in words the containers of this node whose published ports the service takes over."""
        ports = {(port.protocol, port.published) for port in row.ports if is_ingress(port) and port.published}
        found = [
            (container.record.name.lstrip("/"), port)
            for container in self._engine.list()
            if not task_of(container) and container.record.sandbox is not None
            for port in container.record.sandbox.ports
            if (port.proto, port.host_port) in ports
        ]
        words = "port {}/{} is published by container {} too; from now on it leads to the service"
        # A container publishes it once for each family of addresses.
        return tuple(dict.fromkeys(words.format(port.host_port, port.proto, name) for name, port in found))

    def users_of(self, network: Network) -> list[ServiceRow]:
        if network.ingress:
            return [row for row in self._state.services if needs_ingress(row.service.spec.endpoint)]
        return [
            row
            for row in self._state.services
            if any(item.target == network.id for item in read_template(row.service.spec.task.container).networks or ())
        ]

    async def before_removal(self, network: Network) -> None:
        """Allow the removal of a network that no service has.

        Tasks of removed services may still be stopping on it: wait some time for them to leave.
        """
        if network.scope != "swarm" or self._state.cluster is None:
            return
        users = self.users_of(network)
        if users and network.ingress:
            raise precondition(f"ingress network cannot be removed because service {users[0].id} depends on it")
        if users:
            raise precondition(f"network {network.id} is in use by service {users[0].id}")
        give_up_at = time.monotonic() + TASKS_LEAVE_S
        for container_id in self._networks.endpoints_of(network):
            while self._is_leaving(container_id, network) and time.monotonic() < give_up_at:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    def _is_leaving(self, container_id: str, network: Network) -> bool:
        if container_id not in self._networks.endpoints_of(network):
            return False
        try:
            task_id = task_of(self._engine.find(container_id))
        except NotFound:
            return True
        row = self._state.tasks.get(task_id) if task_id else None
        return bool(task_id) and (row is None or row.task.service_id not in self._state.services.rows)


def _with_length(network: Network, address: str) -> str:
    subnets = [ipaddress.ip_network(pool.subnet) for pool in network.ipam]
    length = next(subnet.prefixlen for subnet in subnets if ipaddress.ip_address(address) in subnet)
    return f"{address}/{length}"
