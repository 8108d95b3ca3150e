"""Known routes of the API that are not here: each is refused with the name of the feature."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from bennu.errors import NotImplementedHere

NOT_HERE: Final = (
    ("POST", "/containers/{id}/checkpoints", "checkpointing a container"),
    ("GET", "/containers/{id}/checkpoints", "checkpointing a container"),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "checkpointing a container"),
    ("PUT", "/volumes/{name:.+}", "changing a cluster volume"),
)


def routes() -> list[web.RouteDef]:
    return [web.route(method, path, _not_here(feature)) for method, path, feature in NOT_HERE]


def _not_here(feature: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise NotImplementedHere(f"{feature} is not implemented")

    return refuse
