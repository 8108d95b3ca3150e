"""`/services`."""

from typing import Final

from aiohttp import web

from bennu.api.http.body import read_body_or_none
from bennu.api.http.query import Filters, api_minor, filters, flag, header, text
from bennu.api.http.responses import empty_response, json_list_response, json_response
from bennu.api.routes.older_clients import drop_newer_of_service
from bennu.api.routes.swarm import read_version
from bennu.api.shapes.service import Json, service_json, service_status_json
from bennu.cluster import Cluster
from bennu.cluster.api_types import ServiceSpecWire
from bennu.cluster.convert import mode_json
from bennu.cluster.tables import ServiceRow
from bennu.errors import InvalidParameter
from bennu.go.bool import parse_bool

FILTERS: Final = frozenset({"id", "name", "label", "mode", "runtime"})
MODES: Final = {
    "Replicated": "replicated",
    "Global": "global",
    "ReplicatedJob": "replicated-job",
    "GlobalJob": "global-job",
}


def routes(cluster: Cluster) -> list[web.RouteDef]:
    api = ServiceRoutes(cluster)
    return [
        web.route("GET", "/services", api.list),
        web.route("POST", "/services/create", api.create),
        web.route("GET", "/services/{id}", api.inspect),
        web.route("DELETE", "/services/{id}", api.remove),
        web.route("POST", "/services/{id}/update", api.update),
    ]


class ServiceRoutes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def list(self, request: web.Request) -> web.Response:
        self._cluster.state.require_cluster()
        asked = filters(request)
        asked.check(FILTERS)
        wanted = text(request, "status")
        try:
            with_status = parse_bool(wanted or "false")
        except ValueError as error:
            raise InvalidParameter(f"invalid value for status: {wanted[:100]}: {error}") from None
        state = self._cluster.state
        rows = sorted((row for row in state.services if _fits(row, asked)), key=lambda row: row.id)
        insert_defaults = flag(request, "insertDefaults")

        def shape(row: ServiceRow) -> Json:
            shown = service_json(row, insert_defaults=insert_defaults)
            if with_status:
                shown["ServiceStatus"] = service_status_json(row, state.tasks_of(row.id))
            return shown

        return await json_list_response(rows, shape)

    async def inspect(self, request: web.Request) -> web.Response:
        row = self._cluster.services.find(request.match_info["id"])
        return json_response(service_json(row, insert_defaults=flag(request, "insertDefaults")))

    async def create(self, request: web.Request) -> web.Response:
        self._cluster.state.require_cluster()
        wire = await _read_spec(request)
        service_id = await self._cluster.services.create(wire, header(request, "X-Registry-Auth"))
        return json_response({"ID": service_id, "Warnings": self._warnings(service_id)}, 201)

    async def update(self, request: web.Request) -> web.Response:
        self._cluster.state.require_cluster()
        version = read_version(request, "service")
        wire = await _read_spec(request)
        await self._cluster.services.update(
            request.match_info["id"],
            wire,
            version,
            registry_auth=header(request, "X-Registry-Auth") or None,
            auth_from=text(request, "registryAuthFrom"),
            rollback=text(request, "rollback"),
        )
        return json_response({"Warnings": self._warnings(request.match_info["id"])})

    def _warnings(self, ref: str) -> tuple[str, ...] | None:
        return self._cluster.networks.shadowed_by(self._cluster.services.find(ref)) or None

    async def remove(self, request: web.Request) -> web.Response:
        await self._cluster.services.remove(request.match_info["id"])
        return empty_response()


async def _read_spec(request: web.Request) -> ServiceSpecWire:
    wire = await read_body_or_none(request, ServiceSpecWire)
    if wire is None:
        raise InvalidParameter("got EOF while reading request body")
    drop_newer_of_service(wire, api_minor(request))
    return wire


def _fits(row: ServiceRow, asked: Filters) -> bool:
    mode = MODES[next(iter(mode_json(row.service.spec.mode)))]
    tests = {
        "id": row.id.startswith,
        "name": row.name.startswith,
        "mode": lambda value: value == mode,
        "runtime": lambda value: value == "container",
    }
    return all(
        not asked.all(key) or any(map(test, asked.all(key))) for key, test in tests.items()
    ) and asked.labels_match(row.labels)
