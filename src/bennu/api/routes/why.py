"""`/bennu/v1/services/{id}/why` and `/bennu/v1/tasks/{id}/why`: each slot's attempts, and what was decided when."""

from collections.abc import Sequence

import msgspec
from aiohttp import web

from bennu.api.http.responses import json_response
from bennu.api.routes.deaths import Death, death_of
from bennu.api.shapes.instants import rfc3339
from bennu.cluster import Cluster
from bennu.cluster.convert import container_spec
from bennu.cluster.tables import ServiceRow, TaskRow
from bennu.model import Shape
from bennu.pace import paced

Waits = dict[str, list[str]]  # by subject: the reasons


class TaskWhy(Shape):
    """One attempt. `Made` and `Ended` are the orchestrator's reasons; `Death` tells how its container ended."""

    id: str = msgspec.field(name="ID")
    name: str
    node: str
    image: str
    desired: str
    state: str
    since: str
    message: str
    err: str
    awaits: str  # what keeps it from the next state, if it is known
    made: str
    ended: str
    death: Death | None


class SlotWhy(Shape):
    """A slot of the service with its attempts, newest first."""

    name: str
    tasks: list[TaskWhy]


class ReasonShape(Shape):
    time: str
    reason: str


class ServiceWhy(Shape):
    """What is known of a service: its slots, what it waits for, and the last decisions about it as a whole.

    The newest decision is first.
    """

    service: str
    slots: list[SlotWhy]
    waits: list[str]
    decisions: list[ReasonShape]


def routes(cluster: Cluster) -> list[web.RouteDef]:
    api = WhyRoutes(cluster)
    return [
        web.route("GET", "/bennu/v1/services/{id}/why", api.of_service),
        web.route("GET", "/bennu/v1/tasks/{id}/why", api.of_task),
    ]


class WhyRoutes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def of_service(self, request: web.Request) -> web.Response:
        self._cluster.state.require_cluster()
        service = self._cluster.services.find(request.match_info["id"])
        return json_response(await self._tell(service, self._cluster.state.tasks_of(service.id)))

    async def of_task(self, request: web.Request) -> web.Response:
        """Tell of the slot that the task is, or was, in."""
        self._cluster.state.require_cluster()
        task = self._cluster.state.tasks.find(request.match_info["id"], lambda row: row.name, "task")
        service = self._cluster.services.find(task.task.service_id)
        same = [row for row in self._cluster.state.tasks_of(service.id) if slot_name(row) == slot_name(task)]
        return json_response(await self._tell(service, same))

    async def _tell(self, service: ServiceRow, tasks: Sequence[TaskRow]) -> ServiceWhy:
        slots: dict[str, list[TaskRow]] = {}
        for row in sorted(tasks, key=lambda row: -row.created_ns):
            slots.setdefault(slot_name(row), []).append(row)
        waits = self._waits(service.id)
        ordered = sorted(slots.items(), key=lambda item: item[1][0].task.slot)
        return ServiceWhy(
            service=service.name,
            slots=[
                SlotWhy(name=name, tasks=[await self._task(row, waits) for row in rows])
                async for name, rows in paced(ordered)
            ],
            waits=waits.get("service", []),
            decisions=[ReasonShape(time=rfc3339(one.at_ns), reason=one.text) for one in reversed(service.reasons)],
        )

    def _waits(self, service_id: str) -> Waits:
        found: Waits = {}
        manager = self._cluster.manager
        for wait in manager.waits.get(service_id, ()) if manager else ():
            found.setdefault(wait.subject, []).append(wait.reason)
        return found

    def _awaits(self, row: TaskRow, waits: Waits) -> str:
        agent = self._cluster.agent
        if row.task.has_ended or agent is None:
            return ""
        reasons = [reason for reason in waits.get(f"task {row.id}", ()) if reason != row.task.status.err]
        return agent.awaits(row.id) or "; ".join(reasons)

    async def _task(self, row: TaskRow, waits: Waits) -> TaskWhy:
        status = row.task.status
        deaths = await self._cluster.engine.services.deaths.of(row.container_id) if row.container_id else []
        return TaskWhy(
            id=row.id,
            name=row.name,
            node=row.task.node_id or "",
            image=container_spec(row.task.spec).image,
            desired=row.task.desired.name.lower(),
            state=status.state.name.lower(),
            since=rfc3339(status.timestamp_ns),
            message=status.message,
            err=status.err,
            awaits=self._awaits(row, waits),
            made=row.why_made,
            ended=row.why_desired,
            death=death_of(deaths[-1]) if deaths else None,
        )


def slot_name(row: TaskRow) -> str:
    """Name a slot: `web.1`, or of a global service `web.NODE`."""
    return f"{row.service_name}.{row.task.slot or row.task.node_id or '?'}"
