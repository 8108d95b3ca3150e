"""The containers of this node's tasks: the task each was made for, and their removal."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from bennu.cluster.task_container import TASK_ID_LABEL
from bennu.cluster.task_files import TaskFiles
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.errors import BennuError, NotFound
from bennu.lifecycle.death import Requester

log = logging.getLogger(__name__)


class TaskContainers:
    """An index over the engine's containers, which know their task by a label."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._task_of: dict[str, str] = {}  # by container
        self._of_task: dict[str, list[str]] = {}

    def note(self, container_id: str, task_id: str) -> None:
        """Note that a container was made for the task."""
        self._task_of[container_id] = task_id
        self._of_task.setdefault(task_id, []).append(container_id)

    def task_of(self, container_id: str) -> str | None:
        return self._task_of.get(container_id)

    def of_task(self, task_id: str) -> list[Container]:
        """List the containers of a task that are still there, oldest first."""
        return list(self._present(task_id))

    def _present(self, task_id: str) -> Iterator[Container]:
        for container_id in list(self._of_task.get(task_id, ())):
            with contextlib.suppress(BennuError):
                yield self._engine.find(container_id)

    async def remove(self, task_id: str) -> None:
        """Stop and remove what is left of a task that is over. A failure is logged."""
        by = Requester.daemon(f"task {task_id} is over")
        for container in self.of_task(task_id):
            with contextlib.suppress(NotFound):
                await remove_container(self._engine, container, by)
            self._task_of.pop(container.id, None)
        self._of_task.pop(task_id, None)


async def remove_container(engine: Engine, container: Container, by: Requester) -> None:
    """Stop and remove the container of a task that is over. Raises: NotFound when it was removed meanwhile."""
    try:
        if container.record.running:
            with contextlib.suppress(BennuError):
                await container.stop(by)
        await engine.remove(container.id, by, force=True, volumes=True)
    except NotFound:
        raise
    except BennuError as error:
        log.warning("container %s of a task that is over could not be removed: %s", container.id[:12], error)


async def remove_all_tasks(engine: Engine, files: TaskFiles) -> None:
    """Remove every task's container and what it was given, once the swarm is left and no agent runs any more."""
    by = Requester.daemon("the node left the swarm")

    async def sweep(container: Container) -> None:
        with contextlib.suppress(NotFound):
            await remove_container(engine, container, by)
        await files.remove(task_of(container))

    await asyncio.gather(*(sweep(container) for container in engine.list() if task_of(container)))


def task_of(container: Container) -> str:
    """Return the id of the task the container was made for; "" for others."""
    return (container.record.config.labels or {}).get(TASK_ID_LABEL, "")
