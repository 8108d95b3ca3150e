"""The networks that services are attached to."""

import asyncio
import time
from typing import Final

from bennu.cluster.agent import task_of
from bennu.cluster.errors import precondition
from bennu.cluster.records import ServiceRow
from bennu.cluster.state import State
from bennu.cluster.translate import read_template
from bennu.cluster.wire import ServiceSpecWire
from bennu.engine.engine import Engine
from bennu.errors import BennuError, Forbidden, NotFound
from bennu.network import Network

TASKS_LEAVE_S: Final = 60


class ServiceNetworks:
    def __init__(self, engine: Engine, state: State) -> None:
        self._engine = engine
        self._networks = engine.services.networks
        self._state = state

    def resolve(self, wire: ServiceSpecWire) -> None:
        """Targets become ids. Raises: BennuError (500) for what is not there, Forbidden for a network of one host."""
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
            attachment.target = network.id

    def users_of(self, network_id: str) -> list[ServiceRow]:
        return [
            row
            for row in self._state.services
            if any(item.target == network_id for item in read_template(row.service.spec.task.container).networks or ())
        ]

    async def before_removal(self, network: Network) -> None:
        """A network is free when no service has it, although tasks of removed ones may still be stopping on it."""
        if network.scope != "swarm" or self._state.cluster is None:
            return
        users = self.users_of(network.id)
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
