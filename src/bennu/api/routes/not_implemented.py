"""Known routes of the API that are not here: each is refused with the name of the feature."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from bennu.errors import InvalidParameter, NotImplementedHere

NOT_HERE: Final = (
    ("POST", "/containers/{id}/checkpoints", "checkpointing a container"),
    ("GET", "/containers/{id}/checkpoints", "checkpointing a container"),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "checkpointing a container"),
    ("PUT", "/volumes/{name:.+}", "changing a cluster volume"),
    ("POST", "/grpc", "BuildKit over gRPC"),
)


def routes() -> list[web.RouteDef]:
    refused = [web.route(method, path, _not_here(feature)) for method, path, feature in NOT_HERE]
    return [web.route("POST", "/session", session), *refused]


async def session(request: web.Request) -> web.StreamResponse:
    """Refuse a session of BuildKit, after what makes it none at all. Raises: InvalidParameter, NotImplementedHere."""
    protocol = request.headers.get("Upgrade", "")
    if not protocol:
        raise InvalidParameter("no upgrade proto in request")
    if protocol != "h2c":
        raise InvalidParameter(f"protocol {protocol[:100]} not supported")
    raise NotImplementedHere("a BuildKit session is not implemented")


def _not_here(feature: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise NotImplementedHere(f"{feature} is not implemented")

    return refuse
