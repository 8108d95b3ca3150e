"""`POST /commit`: makes an image of a container's writable layer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec
from aiohttp import web

from bennu.api.http.body import read_body_or_none
from bennu.api.http.query import flag, text
from bennu.api.http.responses import json_response
from bennu.api.http.streams import ends_with_client
from bennu.api.routes.images import repo_tag
from bennu.api.shapes.image import NOT_OF_IMAGES
from bennu.build.changes import apply_changes
from bennu.confined.client import cancel, finish
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.engine.wait_conditions import WaitCondition
from bennu.errors import Conflict
from bennu.images import Image
from bennu.images.importing import commit_image
from bennu.images.reference import Reference
from bennu.lifecycle.status import State
from bennu.model import ContainerConfig


def routes(engine: Engine) -> list[web.RouteDef]:
    return [web.route("POST", "/commit", CommitRoutes(engine).commit)]


class CommitRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._services = engine.services

    @ends_with_client
    async def commit(self, request: web.Request) -> web.Response:
        given = await read_body_or_none(request, ContainerConfig)
        name = repo_tag(text(request, "repo"), text(request, "tag"))
        container = self._engine.find(text(request, "container"))
        if container.record.state is State.DEAD:
            raise Conflict(f"You cannot commit container {container.id} which is Dead")
        if container.removing:
            raise Conflict(f"You cannot commit container {container.id} which is being removed")
        pause = flag(request, "pause", True) and container.record.state is State.RUNNING
        async with paused(container) if pause else contextlib.nullcontext():
            image = await unless_removed(container, self._make(request, container, name, given))
        return json_response({"Id": image.id}, 201)

    async def _make(
        self, request: web.Request, container: Container, name: Reference | None, given: ContainerConfig | None
    ) -> Image:
        images, journal = self._services.images, self._services.journal
        parent = images.by_id(container.record.image_id)
        folder = self._services.folder(container.id)
        if not (folder / "diff").is_dir():  # it never ran: let its layer come to be
            await images.mount(parent, folder)
            await images.unmount(folder)
        comment = text(request, "comment")
        changes = request.query.getall("changes", [])
        image = await commit_image(
            images,
            folder,
            parent,
            apply_changes(image_part(container.record.config) | (image_part(given) if given else {}), changes),
            container_id=container.id,
            name=name,
            author=text(request, "author"),
            comment=comment,
            created_by=" ".join([container.record.path, *container.record.args]),
        )
        await journal.publish("image", "create", image.id, {**image.labels, "name": image.id})
        reference = str(name) if name else ""
        if name is not None:
            await journal.publish("image", "tag", image.id, {**image.labels, "name": reference})
        told = container.event("commit", comment=comment, imageID=image.id, imageRef=reference)
        await journal.commit([], [told])
        return image


@contextlib.asynccontextmanager
async def paused(container: Container) -> AsyncIterator[None]:
    """Keep the container paused for the block and no longer, whenever the client leaves."""
    is_ours = False

    async def pause() -> None:
        nonlocal is_ours
        with contextlib.suppress(Conflict):  # it ended, or somebody else has just paused it
            await container.pause(briefly=True)
            is_ours = True

    try:
        await finish(pause())
        yield
    finally:
        if is_ours and container.record.state is State.PAUSED:
            await finish(container.unpause())


async def unless_removed(container: Container, work: Coroutine[Any, Any, Image]) -> Image:
    """Answer what `work` comes to. Raises: Conflict when the container is removed before."""
    removed = container.waits.register(WaitCondition.REMOVED)
    making = asyncio.ensure_future(work)
    try:
        await asyncio.wait((making, removed), return_when=asyncio.FIRST_COMPLETED)
        if making.done():
            return making.result()
        raise Conflict(f"You cannot commit container {container.id} which is being removed")
    finally:
        await cancel(making, removed)


def image_part(config: ContainerConfig) -> dict[str, Any]:
    """Answer what of a container's configuration belongs into an image, without what is empty."""
    parts: dict[str, Any] = msgspec.to_builtins(config)
    return {key: value for key, value in parts.items() if value and key not in NOT_OF_IMAGES}
