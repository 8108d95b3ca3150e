"""The API as one aiohttp application."""

from aiohttp import web

from bennu.api import (
    absent,
    attach,
    build,
    containers,
    deaths,
    events,
    exec,
    files,
    images,
    logs,
    metrics,
    networks,
    stats,
    system,
    volumes,
)
from bennu.api.assembly import assemble
from bennu.engine.engine import Engine


def make_app(engine: Engine) -> web.Application:
    """All of the API, answering for `engine`."""
    return assemble(all_routes(engine))


def all_routes(engine: Engine) -> list[web.RouteDef]:
    return [
        *system.routes(engine),
        *containers.routes(engine),
        *attach.routes(engine),
        *exec.routes(engine),
        *events.routes(engine),
        *files.routes(engine),
        *logs.routes(engine),
        *stats.routes(engine),
        *build.routes(engine),
        *images.routes(engine),
        *networks.routes(engine),
        *volumes.routes(engine),
        *deaths.routes(engine),
        *metrics.routes(engine),
        *absent.routes(),
    ]
