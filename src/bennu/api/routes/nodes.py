"""`/nodes`."""

from aiohttp import web

from bennu.api.http.body import read_body
from bennu.api.http.query import filters
from bennu.api.http.responses import empty_response, json_response
from bennu.api.routes.swarm import read_version
from bennu.api.shapes.service import NodeSpecBody, node_json
from bennu.cluster import Cluster
from bennu.cluster.tables import NodeRow

FILTERS = frozenset({"id", "name", "label", "node.label", "role", "membership"})


def routes(cluster: Cluster) -> list[web.RouteDef]:
    api = NodeRoutes(cluster)
    return [
        web.route("GET", "/nodes", api.list),
        web.route("GET", "/nodes/{id}", api.inspect),
        web.route("DELETE", "/nodes/{id}", api.remove),
        web.route("POST", "/nodes/{id}/update", api.update),
    ]


class NodeRoutes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def list(self, request: web.Request) -> web.Response:
        self._cluster.state.require_cluster()
        asked = filters(request)
        asked.check(FILTERS)

        def fits(row: NodeRow) -> bool:
            tests = {
                "id": row.id.startswith,
                "name": row.node.hostname.startswith,
                "role": lambda value: value == row.node.role.value,
                "membership": lambda value: value == "accepted",
            }
            return (
                all(not asked.all(key) or any(map(test, asked.all(key))) for key, test in tests.items())
                and asked.labels_match(row.node.engine_labels)
                and asked.labels_match(row.node.labels, "node.label")
            )

        return json_response([node_json(row) for row in self._cluster.state.nodes if fits(row)])

    async def inspect(self, request: web.Request) -> web.Response:
        return json_response(node_json(self._cluster.nodes.find(request.match_info["id"])))

    async def update(self, request: web.Request) -> web.Response:
        version = read_version(request, "node")
        body = await read_body(request, NodeSpecBody)
        spec = {"Name": body.name, "Labels": body.labels, "Role": body.role, "Availability": body.availability}
        await self._cluster.nodes.update(request.match_info["id"], spec, version)
        return empty_response()

    async def remove(self, request: web.Request) -> web.Response:
        self._cluster.nodes.remove(request.match_info["id"])
        return empty_response()
