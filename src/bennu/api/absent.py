"""The API's routes that are known and not here: each says so by name, as honestly as its status code can."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from bennu.errors import NotFound, NotImplementedHere, Unavailable

NO_SWARM: Final = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)

# Routes that dockerd itself refuses while the node is in no swarm.
NEED_SWARM: Final = (
    ("GET", "/swarm"),
    ("POST", "/swarm/leave"),
    ("POST", "/swarm/update"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/unlock"),
    ("GET", "/services"),
    ("POST", "/services/create"),
    ("GET", "/services/{id}"),
    ("DELETE", "/services/{id}"),
    ("POST", "/services/{id}/update"),
    ("GET", "/services/{id}/logs"),
    ("GET", "/nodes"),
    ("GET", "/nodes/{id}"),
    ("DELETE", "/nodes/{id}"),
    ("POST", "/nodes/{id}/update"),
    ("GET", "/tasks"),
    ("GET", "/tasks/{id}"),
    ("GET", "/tasks/{id}/logs"),
    ("GET", "/secrets"),
    ("POST", "/secrets/create"),
    ("GET", "/secrets/{id}"),
    ("DELETE", "/secrets/{id}"),
    ("POST", "/secrets/{id}/update"),
    ("GET", "/configs"),
    ("POST", "/configs/create"),
    ("GET", "/configs/{id}"),
    ("DELETE", "/configs/{id}"),
    ("POST", "/configs/{id}/update"),
)

NOT_HERE: Final = (
    ("POST", "/swarm/init", "docker swarm init"),
    ("POST", "/swarm/join", "docker swarm join"),
    ("POST", "/containers/{id}/checkpoints", "checkpointing a container"),
    ("GET", "/containers/{id}/checkpoints", "checkpointing a container"),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "checkpointing a container"),
    ("GET", "/containers/{id}/changes", "docker diff"),
    ("GET", "/containers/{id}/export", "docker export"),
    ("POST", "/commit", "docker commit"),
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
    swarm = [web.route(method, path, _needs_swarm) for method, path in NEED_SWARM]
    swarm.append(web.get("/plugins/{name:.+}/json", _no_plugin))
    return swarm + [web.route(method, path, _not_here(feature)) for method, path, feature in NOT_HERE]


async def _no_plugin(request: web.Request) -> web.StreamResponse:
    # `docker inspect NAME` asks here in passing: a 501 would end its search, though there is simply no such plugin.
    raise NotFound(f'plugin "{request.match_info["name"]}" not found')


async def _needs_swarm(request: web.Request) -> web.StreamResponse:
    raise Unavailable(NO_SWARM)


def _not_here(feature: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise NotImplementedHere(f"{feature} is not implemented")

    return refuse
