"""`_ping`, `version`, `info`, `auth`: the engine about itself."""

from aiohttp import web

from bennu.engine.engine import Engine

NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
PING = NO_CACHE | {"Builder-Version": "1", "Swarm": "inactive"}


def routes(engine: Engine) -> list[web.RouteDef]:
    return [web.route("GET", "/_ping", ping), web.route("HEAD", "/_ping", ping)]


async def ping(request: web.Request) -> web.Response:
    if request.method == "HEAD":
        return web.Response(headers=PING | {"Content-Length": "0"}, content_type="text/plain", charset="utf-8")
    return web.Response(text="OK", headers=PING, content_type="text/plain", charset="utf-8")
