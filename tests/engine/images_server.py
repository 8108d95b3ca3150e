"""The image routes alone on a socket of their own: real store, real images, real networks, no containers."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from bennu.api.http.middleware import build_application
from bennu.api.http.serve import ApiServer
from bennu.api.routes import build, images, registries
from bennu.api.routes.events import EventRoutes
from bennu.engine.build_front import LazyFront
from bennu.engine.build_places import make_builder
from bennu.engine.context import Resolving
from bennu.engine.events import Journal
from bennu.engine.settings import EngineSettings
from bennu.images import Images
from bennu.network import Networks, NetworkSettings
from bennu.runtime import Runtime
from bennu.runtime.hostfacts import read_host_facts
from bennu.store import open_sqlite


@contextlib.asynccontextmanager
async def serve_images(root: Path, path: Path) -> AsyncIterator[Images]:
    async with open_sqlite(root / "state.db") as store:
        runtime = Runtime(root / "run")
        services: Any = SimpleNamespace(
            images=Images(root / "images", store),
            store=store,
            boot_id="of a test",
            journal=Journal(store),
            networks=Networks(store, root, root / "run", NetworkSettings()),
            runtime=runtime,
            host_facts=read_host_facts(runtime.cgroups),
            resolving=Resolving(),
            settings=EngineSettings(),
            data_root=root,
            exec_root=root / "run",
        )
        builder = make_builder(services)
        await services.journal.open()
        await builder.read()
        await services.images.open()
        await services.networks.open({})
        await builder.open()
        front = LazyFront(services, builder)
        engine: Any = SimpleNamespace(services=services, builder=builder, build_front=front, list=list)  # no containers
        routes = [web.route(method, "/_ping", ping) for method in ("GET", "HEAD")]
        routes.append(web.route("GET", "/events", EventRoutes(engine).events))
        routes += [*registries.routes(engine), *images.routes(engine), *build.routes(engine)]
        server = ApiServer(build_application(routes))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        await server.start([listener])
        try:
            yield services.images
        finally:
            await server.close()
            await services.networks.close(remove=True)
            services.networks.let_go()


async def ping(request: web.Request) -> web.Response:
    return web.Response(text="OK", headers={"Builder-Version": "1"})


async def main() -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    async with serve_images(Path(sys.argv[1]), Path(sys.argv[2])):
        print("ready", flush=True)
        await ending.wait()


if __name__ == "__main__":
    asyncio.run(main())
