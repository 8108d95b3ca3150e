"""`POST /grpc` and `POST /session`: connections on which BuildKit's services are spoken.

(moby `api/server/router/grpc/grpc_routes.go`, `api/server/router/session/session_routes.go`.)

What it takes is loaded when the first client comes: most daemons never build.
"""

from aiohttp import web

from bennu.api.http.streams import Hijacked, attend, ends_with_client, switch_protocol
from bennu.engine.engine import Engine
from bennu.errors import InvalidParameter


def routes(engine: Engine) -> list[web.RouteDef]:
    api = GrpcRoutes(engine)
    return [web.route("POST", "/grpc", api.grpc), web.route("POST", "/session", api.session)]


class GrpcRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @ends_with_client
    async def grpc(self, request: web.Request) -> web.StreamResponse:
        check_protocol(request)
        front = await self._engine.build_front.get()
        return await attend(request, switch_protocol(request, "h2c"), front.attend)

    @ends_with_client
    async def session(self, request: web.Request) -> web.StreamResponse:
        check_protocol(request)
        front = await self._engine.build_front.get()
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        front.sessions.check(headers)

        async def work(connection: Hijacked) -> None:
            await front.sessions.attend(connection, headers)

        return await attend(request, switch_protocol(request, "h2c"), work)


def check_protocol(request: web.Request) -> None:
    """Refuse a connection that is not to become HTTP/2. Raises: InvalidParameter."""
    protocol = request.headers.get("Upgrade", "")
    if not protocol:
        raise InvalidParameter("no upgrade proto in request")
    if protocol != "h2c":
        raise InvalidParameter(f"protocol {protocol[:100]} not supported")
