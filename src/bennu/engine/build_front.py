"""The front for clients of BuildKit's protocol, made when the first of them comes: most daemons never build."""

import asyncio
from typing import TYPE_CHECKING

from bennu.build.builder import Builder
from bennu.engine.context import EngineContext
from bennu.engine.sandbox import host_gateways

if TYPE_CHECKING:
    from bennu.build.front import Front
    from bennu.build.traced import TracedBuilds


class LazyFront:
    """Makes the one front of this host."""

    def __init__(self, services: EngineContext, builder: Builder) -> None:
        self._services = services
        self._builder = builder
        self._made: Front | None = None
        self._traced: TracedBuilds | None = None
        self._making = asyncio.Lock()

    async def traced(self) -> "TracedBuilds":
        """Answer the second way to the same builds."""
        from bennu.build.traced import TracedBuilds

        front = await self.get()
        if self._traced is None:
            self._traced = TracedBuilds(front)
        return self._traced

    async def get(self) -> "Front":
        async with self._making:
            if self._made is None:
                self._made = await self._make()
            return self._made

    async def _make(self) -> "Front":
        from bennu.build.front import Front
        from bennu.build.wire.contexts import Contexts

        services = self._services

        contexts = Contexts(services.data_root / "build" / "contexts")
        await asyncio.to_thread(contexts.open)
        return Front(self._builder, contexts, list(host_gateways(services)), services.journal.publish)
