"""A person's commands to a rollout, and the description of one.

The verbs are `orchestration/rollout/commands.py`; here they are carried out under the state's lock, and what follows is
the manager's. `look` gathers what is stored with what can only be seen now: health, place in the balancer, open
connections.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bennu.cluster.cluster import Cluster
from bennu.cluster.connections import look_at_sockets
from bennu.cluster.errors import precondition
from bennu.cluster.tables import ServiceRow, TaskRow
from bennu.engine.container import Container
from bennu.errors import BennuError, InvalidParameter
from bennu.orchestration.model.nouns import Service
from bennu.orchestration.model.revisions import accept_rollback_to
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.rollout.commands import abort_rollout, pause_rollout, promote_rollout, resume_rollout

VERBS: Final[Mapping[str, Callable[..., Service]]] = {
    "pause": pause_rollout,
    "resume": resume_rollout,
    "promote": promote_rollout,
    "abort": abort_rollout,
}


@dataclass(frozen=True, slots=True)
class Sight:
    """The visible facts about one task now.

    `connections` None: they cannot be counted; `drain_left_ns` None: the task is not being drained.
    """

    row: TaskRow
    revision: int | None
    health: str
    in_balancer: bool
    connections: int | None
    drain_left_ns: int | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An obstacle to a rollout's next step; `left_ns` None: until something else changes."""

    subject: str
    reason: str
    left_ns: int | None


class Rollouts:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def do(self, ref: str, verb: str) -> None:
        """Carry out a person's command to a rollout. Raises: NotFound, Conflict, InvalidParameter."""
        await self._change(ref, lambda service, now_ns: VERBS[verb](service, now_ns=now_ns))

    async def roll_back_to(self, ref: str, number: int) -> None:
        """Roll a service back to one of its revisions.

        Raises: NotFound for a service or revision that is not there, InvalidParameter for the present one.
        """

        def go(service: Service, now_ns: int) -> Service:
            if service.revisions and service.revisions[-1].number == number:
                raise InvalidParameter(f"revision {number} of service {service.id} is the one in force")
            return accept_rollback_to(service, number, now_ns=now_ns)

        await self._change(ref, go)

    async def _change(self, ref: str, change: Callable[[Service, int], Service]) -> None:
        cluster = self._cluster
        async with cluster.state.lock:
            row = cluster.services.find(ref)
            assert cluster.manager is not None
            try:
                service = change(row.service, cluster.manager.now_ns)
            except InvalidParameter as error:
                if "does not have a previous spec" in str(error):
                    raise precondition(str(error)) from None
                raise
            await cluster.services.put(row, service)

    def find(self, ref: str) -> ServiceRow:
        return self._cluster.services.find(ref)

    def waits(self, row: ServiceRow) -> list[Waiting]:
        manager = self._cluster.manager
        if manager is None:
            return []
        now_ns = manager.now_ns
        return [
            Waiting(wait.subject, wait.reason, None if wait.until_ns is None else max(0, wait.until_ns - now_ns))
            for wait in manager.waits.get(row.id, ())
        ]

    async def look(self, row: ServiceRow) -> list[Sight]:
        """Collect all tasks of a service that are not over, and the last ended one of a slot that has none.

        The tasks are ordered by slot, oldest first.
        """
        shown: dict[tuple[int, str], list[TaskRow]] = {}
        for item in sorted(self._cluster.state.tasks_of(row.id), key=lambda item: item.task.created_at_ns):
            where = (item.task.slot, "" if item.task.slot else str(item.task.node_id))
            shown.setdefault(where, []).append(item)
        found = []
        for where in sorted(shown):
            tasks = shown[where]
            alive = [item for item in tasks if not item.task.has_ended]
            found += [await self._look_at(row, item) for item in alive or tasks[-1:]]
        return found

    async def _look_at(self, service: ServiceRow, row: TaskRow) -> Sight:
        container, balancer = self._container(row), self._cluster.balancer
        record = container.record if container and not row.task.has_ended else None
        connections: int | None = None
        ports = row.task.endpoint.ports if row.task.endpoint else ()
        targets = [port.target for port in ports if port.protocol == "tcp"]
        in_balancer, drain_left_ns = balancer.serves(row.id), balancer.drain_left_ns(row.id)
        if record is not None and record.running and (targets or in_balancer or drain_left_ns is not None):
            seen = await look_at_sockets(record.pid, targets)
            connections = seen.connections if seen else None
        revisions = [one.number for one in service.service.revisions if one.spec_version == row.task.spec_version]
        return Sight(
            row=row,
            revision=revisions[-1] if revisions else None,
            health=record.health.status if record is not None and record.health else "",
            in_balancer=in_balancer,
            connections=connections,
            drain_left_ns=drain_left_ns,
        )

    def _container(self, row: TaskRow) -> Container | None:
        if not row.container_id or row.task.state < TaskState.READY:
            return None
        try:
            return self._cluster.engine.find(row.container_id)
        except BennuError:
            return None
