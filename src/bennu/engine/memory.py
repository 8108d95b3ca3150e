"""Telling, while a container runs, that the kernel killed a process of it for memory."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from bennu.errors import Unavailable

if TYPE_CHECKING:
    from bennu.engine.supervisor import Supervisor


class MemoryMonitor:
    """Of one container. What is killed with its end is told with its end."""

    def __init__(self, container: "Supervisor") -> None:
        self._container = container
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Idempotent."""
        if self._task is None or self._task.done():
            name = f"memory of {self._container.id[:12]}"
            self._task = self._container.services.tasks.create_task(self._tell(), name=name)

    def stop(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _tell(self) -> None:
        container = self._container
        is_news = False  # what was counted at first may have been told by a former daemon
        async with contextlib.aclosing(container.services.runtime.observer.watch_oom(container.id)) as counts:
            async for kills in counts:
                if is_news or kills > container.record.oom_told:
                    await self._tell_once(kills)
                is_news = True

    async def _tell_once(self, kills: int) -> None:
        container = self._container
        async with container.lock:
            if not container.record.pid:
                return
            changed = msgspec.structs.replace(container.record, oom_told=kills)
            # With a full disk it is told with the next, or with the end.
            with contextlib.suppress(Unavailable):
                await container.commit(changed, [container.event("oom")])
