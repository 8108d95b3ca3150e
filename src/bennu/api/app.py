"""The API as one aiohttp application."""

from aiohttp import web

from bennu.api.http.middleware import build_application
from bennu.api.routes import (
    archive,
    attach,
    build,
    commit,
    containers,
    deaths,
    events,
    exec,
    export,
    grpc,
    images,
    logs,
    metrics,
    networks,
    nodes,
    not_implemented,
    plugins,
    registries,
    rollouts,
    secrets,
    service_logs,
    services,
    stats,
    swarm,
    system,
    tasks,
    volumes,
    why,
)
from bennu.cluster import Cluster
from bennu.engine.engine import Engine


def make_app(engine: Engine, cluster: Cluster) -> web.Application:
    """Build the application that answers for `engine` and for the swarm it may be in."""
    return build_application(all_routes(engine, cluster), engine.judges)


def all_routes(engine: Engine, cluster: Cluster) -> list[web.RouteDef]:
    """List every route of the API, without the version in front."""
    return [
        *system.routes(engine, cluster),
        *containers.routes(engine),
        *attach.routes(engine),
        *exec.routes(engine),
        *events.routes(engine),
        *archive.routes(engine),
        *logs.routes(engine),
        *stats.routes(engine),
        *build.routes(engine),
        *grpc.routes(engine),
        *commit.routes(engine),
        *registries.routes(engine),
        *images.routes(engine),
        *networks.routes(engine),
        *volumes.routes(engine),
        *deaths.routes(engine),
        *swarm.routes(cluster),
        *nodes.routes(cluster),
        *services.routes(cluster),
        *rollouts.routes(cluster),
        *service_logs.routes(cluster),
        *tasks.routes(cluster),
        *why.routes(cluster),
        *secrets.routes(cluster),
        *metrics.routes(engine),
        *export.routes(engine),
        *plugins.routes(),
        *not_implemented.routes(),
    ]
