"""`/plugins`: there are none, and none can be installed."""

from aiohttp import web

from bennu.api.http.body import read_body
from bennu.api.http.query import text
from bennu.api.http.responses import json_response
from bennu.errors import InvalidParameter, NotFound, NotImplementedHere
from bennu.images.reference import parse_reference
from bennu.model import Shape

NAME = "/plugins/{name:.+}"


class PluginPrivilege(Shape):
    name: str = ""
    description: str = ""
    value: list[str] | None = None


def routes() -> list[web.RouteDef]:
    return [
        web.route("GET", "/plugins", list_none),
        web.route("GET", "/plugins/privileges", refuse),
        web.route("POST", "/plugins/create", refuse),
        web.route("POST", "/plugins/pull", pull),
        web.route("GET", f"{NAME}/json", find_none),
        web.route("DELETE", NAME, find_none),
        *(web.route("POST", f"{NAME}/{verb}", find_none) for verb in ("enable", "disable", "push")),
        web.route("POST", f"{NAME}/set", configure),
        web.route("POST", f"{NAME}/upgrade", pull),
    ]


async def list_none(request: web.Request) -> web.Response:
    return json_response([])


async def refuse(request: web.Request) -> web.Response:
    raise NotImplementedHere("managing plugins is not implemented")


async def find_none(request: web.Request) -> web.Response:
    # `docker inspect NAME` asks here in passing: a 501 would end its search, though there is simply no such plugin.
    raise NotFound(f'plugin "{request.match_info["name"]}" not found')


async def configure(request: web.Request) -> web.Response:
    await read_body(request, list[str])
    return await find_none(request)


async def pull(request: web.Request) -> web.Response:
    await read_body(request, list[PluginPrivilege])
    if not text(request, "remote"):
        raise InvalidParameter("invalid reference format")
    parse_reference(text(request, "remote"))
    return await refuse(request)
