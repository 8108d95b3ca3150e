"""The front for clients of BuildKit's protocol, made when the first of them comes: most daemons never build."""

import asyncio
from typing import TYPE_CHECKING

from bennu.engine.context import EngineContext
from bennu.engine.sandbox import host_gateways
from bennu.images.building import Builder

if TYPE_CHECKING:
    from bennu.build.front import Front


class LazyFront:
    """Makes the one front of this host."""

    def __init__(self, services: EngineContext, builder: Builder) -> None:
        self._services = services
        self._builder = builder
        self._made: Front | None = None
        self._making = asyncio.Lock()

    async def get(self) -> "Front":
        async with self._making:
            if self._made is None:
                self._made = await self._make()
            return self._made

    async def _make(self) -> "Front":
        from bennu.build.buildah_solver import BuildahSolver
        from bennu.build.front import Front
        from bennu.build.wire.contexts import Contexts

        services = self._services

        async def announce(action: str, image_id: str, name: str) -> None:
            image = services.images.find(image_id)
            await services.journal.publish("image", action, image_id, {**image.labels, "name": name})

        contexts = Contexts(services.data_root / "build" / "contexts")
        await asyncio.to_thread(contexts.open)
        solver = BuildahSolver(self._builder, services.images, announce)
        return Front(solver, contexts, list(host_gateways(services)))
