"""`/tasks`."""

from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from bennu.api.http.query import Filters, filters
from bennu.api.http.responses import json_list_response, json_response
from bennu.api.shapes.service import Json, task_json
from bennu.cluster import Cluster
from bennu.cluster.tables import TaskRow
from bennu.errors import BennuError
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.slots.outdated import why_outdated

FILTERS: Final = frozenset({"id", "name", "service", "node", "label", "desired-state", "runtime", "_up-to-date"})


def routes(cluster: Cluster) -> list[web.RouteDef]:
    api = TaskRoutes(cluster)
    return [web.route("GET", "/tasks", api.list_), web.route("GET", "/tasks/{id}", api.inspect)]


class TaskRoutes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def list_(self, request: web.Request) -> web.Response:
        self._cluster.state.require_cluster()
        asked = filters(request)
        asked.check(FILTERS)
        rows = self._chosen(asked)
        return await json_list_response(rows, self._shape(rows))

    async def inspect(self, request: web.Request) -> web.Response:
        self._cluster.state.require_cluster()
        row = self._cluster.state.tasks.find(request.match_info["id"], lambda row: row.name, "task")
        return json_response(self._shape([row])(row))

    def _shape(self, rows: Sequence[TaskRow]) -> Callable[[TaskRow], Json]:
        """Make the function that writes any of these rows as JSON."""
        networks = {network.id: network for network in self._cluster.engine.services.networks.all()}
        services = self._cluster.state.services.rows
        jobs = {
            key for key in {row.task.service_id for row in rows} if key in services and services[key].service.is_job
        }
        return lambda row: task_json(row, networks, is_job=row.task.service_id in jobs)

    def _chosen(self, asked: Filters) -> list[TaskRow]:
        state = self._cluster.state
        desired = {_desired(word) for word in asked.all("desired-state")}
        nodes = {self._cluster.nodes.find(ref).id for ref in asked.all("node")}
        services = {self._cluster.services.find(ref).id for ref in asked.all("service")}
        up_to_date = asked.boolean("_up-to-date")
        rows = [row for key in services for row in state.tasks_of(key)] if services else list(state.tasks)
        return [
            row
            for row in rows
            if (not asked.all("id") or any(map(row.id.startswith, asked.all("id"))))
            and (not asked.all("name") or any(map(row.name.startswith, asked.all("name"))))
            and (not desired or row.task.desired in desired)
            and (not nodes or row.task.node_id in nodes)
            and (not asked.all("runtime") or "container" in asked.all("runtime"))
            and asked.labels_match(row.service_labels)
            and (up_to_date is None or self._is_up_to_date(row) is up_to_date)
        ]

    def _is_up_to_date(self, row: TaskRow) -> bool:
        service = self._cluster.state.services.get(row.task.service_id)
        if service is None:
            return False
        node = self._cluster.state.nodes.get(row.task.node_id) if row.task.node_id else None
        return why_outdated(row.task, service.service, node.node if node else None) is None


def _desired(word: str) -> TaskState:
    """Read a desired state; the docker command asks for `accepted` where it means `running`."""
    try:
        return TaskState.from_word(word.lower())
    except KeyError:
        raise BennuError(f"Invalid desired-state filter: '{word}'") from None
