"""What a container has made of its image: `docker diff`, `docker export`, `docker commit`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from bennu.api.answer import answer
from bennu.api.query import flag, text
from bennu.api.streams import ends_with_client, open_chunks
from bennu.engine.archive import export_rootfs
from bennu.engine.changes import read_changes
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.errors import BennuError, Conflict
from bennu.images.importing import commit_image
from bennu.images.reference import Reference, parse_reference
from bennu.lifecycle.status import State


def routes(engine: Engine) -> list[web.RouteDef]:
    api = Snapshots(engine)
    return [
        web.route("GET", "/containers/{id}/changes", api.changes),
        web.route("GET", "/containers/{id}/export", api.export),
        web.route("POST", "/commit", api.commit),
    ]


class Snapshots:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def changes(self, request: web.Request) -> web.Response:
        services = self._engine.services
        container = self._engine.find(request.match_info["id"])
        image = services.images.by_id(container.record.image_id)
        layers = services.images.layers
        lowers = [layers.root / layers.lower_of(diff_id) for diff_id in reversed(image.diff_ids)]
        found = await asyncio.to_thread(read_changes, services.folder(container.id) / "diff", lowers)
        return answer([{"Path": path, "Kind": kind} for path, kind in found] or None)

    @ends_with_client
    async def export(self, request: web.Request) -> web.StreamResponse:
        container = self._engine.find(request.match_info["id"])
        response = await open_chunks(request, "application/x-tar")
        async for piece in export_rootfs(self._engine.services, container):
            await response.write(piece)
        await container.publish("export")
        return response

    async def commit(self, request: web.Request) -> web.Response:
        services = self._engine.services
        container = self._engine.find(text(request, "container"))
        check_committable(container)
        name = read_name(request)
        comment = text(request, "comment")
        async with paused(container) if flag(request, "pause", default=True) else contextlib.nullcontext():
            image = await commit_image(
                services.images,
                services.folder(container.id),
                services.images.by_id(container.record.image_id),
                config_of(container),
                container_id=container.id,
                name=name,
                author=text(request, "author"),
                comment=comment,
                created_by=" ".join([container.record.path, *container.record.args]),
                changes=request.query.getall("changes", []),
            )
            shown = str(name.tagged()) if name else ""
            await container.publish("commit", comment=comment, imageID=image.id, imageRef=shown)
        return answer({"Id": image.id}, 201)


def check_committable(container: Container) -> None:
    if container.removing:
        raise Conflict(f"You cannot commit container {container.id} which is being removed")
    if container.record.state is State.DEAD:
        raise Conflict(f"You cannot commit container {container.id} which is Dead")


def read_name(request: web.Request) -> Reference | None:
    repo, tag = text(request, "repo"), text(request, "tag")
    return parse_reference(f"{repo}:{tag}" if tag else repo) if repo else None


def config_of(container: Container) -> dict[str, Any]:
    config: dict[str, Any] = msgspec.to_builtins(container.record.config)
    return config


@contextlib.asynccontextmanager
async def paused(container: Container) -> AsyncIterator[None]:
    """Hold a running container still, so that what is read of it belongs together; others need not be held."""
    try:
        await container.pause()
    except Conflict:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(BennuError):  # it was unpaused, or killed, meanwhile
            await container.unpause()
