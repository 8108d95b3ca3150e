"""`/containers/{id}/archive`: files in and out of a container, for `docker cp`."""

import base64
from typing import Final

import msgspec
from aiohttp import web

from bennu.api.http.body import body_of
from bennu.api.http.query import flag, text
from bennu.api.http.responses import empty_response
from bennu.api.http.streams import ends_with_client, open_chunks
from bennu.api.shapes.instants import rfc3339
from bennu.engine.archive import PathStat, read_archive, stat_path, write_archive
from bennu.engine.engine import Engine
from bennu.errors import InvalidParameter

STAT_HEADER: Final = "X-Docker-Container-Path-Stat"


def routes(engine: Engine) -> list[web.RouteDef]:
    api = ArchiveRoutes(engine)
    path = "/containers/{id}/archive"
    return [
        web.route("HEAD", path, api.stat),
        web.route("GET", path, api.read),
        web.route("PUT", path, api.write),
    ]


class ArchiveRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def stat(self, request: web.Request) -> web.Response:
        container = self._engine.find(request.match_info["id"])
        stat = await stat_path(self._engine.services, container, path_of(request), request.match_info["id"])
        return web.Response(headers={STAT_HEADER: encode_stat(stat)})

    @ends_with_client
    async def read(self, request: web.Request) -> web.StreamResponse:
        called = request.match_info["id"]
        container = self._engine.find(called)
        path = path_of(request)
        stat = await stat_path(self._engine.services, container, path, called)
        await container.publish("archive-path")
        response = await open_chunks(request, "application/x-tar", headers={STAT_HEADER: encode_stat(stat)})
        async for piece in read_archive(self._engine.services, container, path, called):
            await response.write(piece)
        return response

    @ends_with_client
    async def write(self, request: web.Request) -> web.Response:
        called = request.match_info["id"]
        container = self._engine.find(called)
        pieces, same_kind = body_of(request), flag(request, "noOverwriteDirNonDir")
        await write_archive(
            self._engine.services, container, path_of(request), pieces, same_kind=same_kind, called=called
        )
        await container.publish("extract-to-dir")
        return empty_response()


def path_of(request: web.Request) -> str:
    """Read the path asked for. Raises: InvalidParameter."""
    path = text(request, "path")
    if not path:
        raise InvalidParameter("bad parameter: path cannot be empty")
    if "\0" in path or len(path) > 4096:
        raise InvalidParameter("bad parameter: path is no possible path")
    return path


def encode_stat(stat: PathStat) -> str:
    """Encode a stat as clients read it from the header: base64 of JSON."""
    facts = {
        "name": stat.name,
        "size": stat.size,
        "mode": stat.mode,
        "mtime": rfc3339(stat.mtime_ns),
        "linkTarget": stat.link_target,
    }
    return base64.b64encode(msgspec.json.encode(facts)).decode()
