"""`docker diff` and `docker export`: what a container has made of its image."""

from aiohttp import web

from bennu.api.http.responses import json_response
from bennu.api.http.streams import ends_with_client, open_chunks
from bennu.engine.archive import export_rootfs, find_changes
from bennu.engine.engine import Engine


def routes(engine: Engine) -> list[web.RouteDef]:
    api = ExportRoutes(engine)
    return [
        web.route("GET", "/containers/{id}/changes", api.changes),
        web.route("GET", "/containers/{id}/export", api.export),
    ]


class ExportRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def changes(self, request: web.Request) -> web.Response:
        services = self._engine.services
        container = self._engine.find(request.match_info["id"])
        found = await find_changes(services, container)
        return json_response([{"Path": path, "Kind": kind} for path, kind in found] or None)

    @ends_with_client
    async def export(self, request: web.Request) -> web.StreamResponse:
        container = self._engine.find(request.match_info["id"])
        response = await open_chunks(request, "application/x-tar")
        async for piece in export_rootfs(self._engine.services, container):
            await response.write(piece)
        await container.publish("export")
        return response
