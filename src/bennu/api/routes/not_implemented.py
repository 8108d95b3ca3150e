"""Known routes of the API that are not here: each is refused with the name of the feature."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from bennu.errors import NotFound, NotImplementedHere

NOT_HERE: Final = (
    ("POST", "/containers/{id}/checkpoints", "checkpointing a container"),
    ("GET", "/containers/{id}/checkpoints", "checkpointing a container"),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "checkpointing a container"),
    ("POST", "/session", "a BuildKit session"),
    ("POST", "/grpc", "BuildKit over gRPC"),
    ("GET", "/distribution/{name:.+}/json", "asking a registry about an image"),
    ("GET", "/plugins/privileges", "managing plugins"),
    ("POST", "/plugins/pull", "managing plugins"),
    ("POST", "/plugins/create", "managing plugins"),
    ("DELETE", "/plugins/{name:.+}", "managing plugins"),
    ("POST", "/plugins/{name:.+}/{verb:enable|disable|upgrade|push|set}", "managing plugins"),
)


def routes() -> list[web.RouteDef]:
    known = [web.get("/plugins/{name:.+}/json", _no_plugin)]
    return known + [web.route(method, path, _not_here(feature)) for method, path, feature in NOT_HERE]


async def _no_plugin(request: web.Request) -> web.StreamResponse:
    # `docker inspect NAME` asks here in passing: a 501 would end its search, though there is simply no such plugin.
    raise NotFound(f'plugin "{request.match_info["name"]}" not found')


def _not_here(feature: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise NotImplementedHere(f"{feature} is not implemented")

    return refuse
