"""Whether traffic may be sent to a container, by its `bennu.ready.*` labels; it decides nothing else.

Asked once a second while the container runs. Known to this daemon only: after its death it is asked anew.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from bennu.engine.probes import Prober
from bennu.lifecycle.probe import READY, Probe, probe_from_labels
from bennu.lifecycle.status import State

if TYPE_CHECKING:
    from bennu.engine.container import Container

INTERVAL_S: Final = 1.0
TIMEOUT_NS: Final = 5 * 10**9


class Readiness:
    """Of one container's runs. `ready` is None when no label asks, or the first answer is not there yet."""

    def __init__(self, container: "Container") -> None:
        self.ready: bool | None = None
        self.changed = asyncio.Event()  # set, and replaced, whenever `ready` changes
        self._container = container
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin to ask the present run, if a label says how. Raises nothing: labels were read at creation."""
        self.stop()
        container = self._container
        if container.record.state is State.RUNNING and (probe := self._probe()) is not None:
            name = f"ready {container.id[:12]}"
            self._task = container.services.tasks.create_task(self._keep_asking(probe), name=name)

    @property
    def is_asked(self) -> bool:
        """Whether the container has such a label."""
        return self._probe() is not None

    def _probe(self) -> Probe | None:
        return probe_from_labels(READY, self._container.record.config.labels or {})

    def stop(self) -> None:
        """Nobody asks any more, so it is not ready. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._set(None)

    async def _keep_asking(self, probe: Probe) -> None:
        services, record = self._container.services, self._container.record
        prober = Prober(services.runtime, record.id, record.pid, probe, timeout_ns=TIMEOUT_NS, purpose="ready")
        while True:
            async with services.probe_places.take():
                result = await prober.run()
            self._set(result.exit_code == 0)
            await asyncio.sleep(INTERVAL_S)

    def _set(self, ready: bool | None) -> None:
        if ready is not self.ready:
            self.ready = ready
            self.changed.set()
            self.changed = asyncio.Event()
