"""The image routes alone on a socket of their own: real store, real images, no containers and no networks."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from bennu.api import build, images
from bennu.api.assembly import assemble
from bennu.api.events import Events
from bennu.api.serve import ApiServer
from bennu.engine.events import Journal
from bennu.images import Images
from bennu.store import open_sqlite


@contextlib.asynccontextmanager
async def serve_images(root: Path, path: Path) -> AsyncIterator[Images]:
    async with open_sqlite(root / "state.db") as store:
        services = SimpleNamespace(
            images=Images(root / "images", store), journal=Journal(store), data_root=root, exec_root=root / "run"
        )
        await services.journal.open()
        await services.images.open()
        engine: Any = SimpleNamespace(services=services)
        routes = [web.route(method, "/_ping", ping) for method in ("GET", "HEAD")]
        routes.append(web.route("GET", "/events", Events(engine).events))
        routes += [*images.routes(engine), *build.routes(engine)]
        server = ApiServer(assemble(routes))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        await server.start([listener])
        try:
            yield services.images
        finally:
            await server.close()


async def ping(request: web.Request) -> web.Response:
    return web.Response(text="OK", headers={"Builder-Version": "1"})


async def main() -> None:
    async with serve_images(Path(sys.argv[1]), Path(sys.argv[2])):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
