"""Telling, while a container runs, that the kernel killed a process of it for memory."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

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
        async for kills in container.services.runtime.watch_oom(container.id):
            async with container.lock:
                record = container.record
                if record.pid and (is_news or kills > record.oom_told):
                    changed = msgspec.structs.replace(record, oom_told=kills)
                    await container.commit(changed, [container.event("oom")])
            is_news = True
