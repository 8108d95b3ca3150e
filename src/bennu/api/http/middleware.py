"""What all routes share: versions, headers, unknown paths, and which requests a client can interrupt."""

import asyncio
import logging
import posixpath
import re
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from bennu.api.http.authorization import Judges, make_authorizer
from bennu.api.http.errors import Handler, errors_to_http
from bennu.api.http.query import api_minor, check_query_text
from bennu.api.http.responses import empty_response, error_response
from bennu.api.http.serve import Connection
from bennu.api.http.versions import API_VERSION, SERVER
from bennu.errors import BennuError

SLASHES: Final = re.compile(r"/{2,}")  # POSIX leaves two at the beginning
log = logging.getLogger(__name__)


def build_application(routes: Iterable[web.RouteDef], judges: Judges | None = None) -> web.Application:
    """Build an application of `routes`, each with and without a version in front.

    `judges`: see `make_authorizer`; None: nobody judges requests.
    """
    finisher = Finisher()
    authorizers = [make_authorizer(judges)] if judges else []
    app = web.Application(middlewares=[edge, errors_to_http, *authorizers, check_version, finisher.middleware])
    for route in routes:  # HEAD is not implied by GET: dockerd answers it only where it says so
        app.router.add_route(route.method, route.path, route.handler)
        app.router.add_route(route.method, "/v{version:[0-9.]+}" + route.path, route.handler)
    app.on_response_prepare.append(add_headers)
    app.on_cleanup.append(finisher.close)
    return app


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what needs no resource: OPTIONS, doubled slashes, unknown paths, NULs."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    connection.begin()
    try:
        response = await _route(request, handler)
    finally:
        goes_on = connection.end()
    if not goes_on:
        response.force_close()
    return response


async def _route(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method == "OPTIONS":
        return empty_response()
    path, _, query = request.raw_path.partition("?")
    if path.startswith("/") and (clean := clean_path(path)) != path:
        return web.Response(status=301, headers={"Location": clean + (f"?{query}" if query else "")})
    if request.match_info.http_exception is not None:
        return error_response("page not found", 404)
    if "%00" in request.raw_path:
        return error_response("invalid request: a NUL character in the URL", 400)
    return await handler(request)


def clean_path(path: str) -> str:
    """Answer the path without `.`, `..` and empty parts, as Go's `path.Clean`; a slash at its end stays."""
    clean = SLASHES.sub("/", posixpath.normpath(path))
    return clean if clean == "/" or not path.endswith("/") else clean + "/"


@web.middleware
async def check_version(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse API versions that are not spoken here, and queries that Go would not parse."""
    api_minor(request)
    check_query_text(request.raw_path.partition("?")[2])
    return await handler(request)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer of a known route bears (moby `api/server/middleware/version.go`)."""
    if isinstance(request.protocol, Connection):
        request.protocol.answering = True
    headers = response.headers
    if request.match_info.http_exception is not None:
        headers.popall("Server", None)
        return
    headers["Server"] = SERVER
    headers["Ostype"] = "linux"
    headers["Api-Version"] = API_VERSION
    headers["Docker-Experimental"] = "false"


class Finisher:
    """Runs a request to its end although its client has left, so that a stop that was asked for happens.

    The exceptions are marked with `ends_with_client` (streams, waits).
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[web.StreamResponse]] = set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Shield requests that change something; let those be cancelled that read, or are marked."""
        if request.method in ("GET", "HEAD") or getattr(request.match_info.handler, "ends_with_client", False):
            return await handler(request)
        task = asyncio.ensure_future(handler(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    async def close(self, app: web.Application) -> None:
        """Wait 5 s for the requests that still run, then cancel them."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for task in self._tasks:
            task.cancel()


def _log_failure(task: asyncio.Task[web.StreamResponse]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, BennuError | ConnectionError):
        log.error("a request whose client had left failed", exc_info=error)
