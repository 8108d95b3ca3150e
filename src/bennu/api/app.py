"""The API as one aiohttp application."""

from aiohttp import web

from bennu.api import (
    absent,
    attach,
    build,
    commit,
    containers,
    deaths,
    events,
    exec,
    files,
    images,
    logs,
    metrics,
    networks,
    nodes,
    rollouts,
    secrets,
    service_logs,
    services,
    snapshots,
    stats,
    stories,
    swarm,
    system,
    tasks,
    volumes,
)
from bennu.api.assembly import assemble
from bennu.cluster import Cluster
from bennu.engine.engine import Engine


def make_app(engine: Engine, cluster: Cluster) -> web.Application:
    """All of the API, answering for `engine` and the swarm it may be in."""
    return assemble(all_routes(engine, cluster))


def all_routes(engine: Engine, cluster: Cluster) -> list[web.RouteDef]:
    return [
        *system.routes(engine, cluster),
        *containers.routes(engine),
        *attach.routes(engine),
        *exec.routes(engine),
        *events.routes(engine),
        *files.routes(engine),
        *logs.routes(engine),
        *stats.routes(engine),
        *build.routes(engine),
        *commit.routes(engine),
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
        *stories.routes(cluster),
        *secrets.routes(cluster),
        *metrics.routes(engine),
        *snapshots.routes(engine),
        *absent.routes(),
    ]
