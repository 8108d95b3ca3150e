"""The waiters for a container's end, and their results (`POST /containers/X/wait`)."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum


class WaitCondition(StrEnum):
    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class WaitResult:
    """The result of a wait. `error` is the container's start, stop or removal error; empty when there is none."""

    exit_code: int
    error: str = ""


class Waits:
    """The waiters of one container. A waiter whose client left is simply cancelled."""

    def __init__(self) -> None:
        self._waiting: dict[WaitCondition, set[asyncio.Future[WaitResult]]] = {kind: set() for kind in WaitCondition}

    def register(self, condition: WaitCondition) -> asyncio.Future[WaitResult]:
        """Register a waiter, before this returns; answer a future that is set when the condition is met."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[condition]
        waiting.add(future)
        future.add_done_callback(waiting.discard)
        return future

    def process_ended(self, result: WaitResult) -> None:
        """Release the waiters for `not-running` and `next-exit`, as their spec asks when the process is gone.

        A coming restart makes no difference.
        """
        self._release(WaitCondition.NOT_RUNNING, result)
        self._release(WaitCondition.NEXT_EXIT, result)

    def removed(self, result: WaitResult) -> None:
        """Release all waiters, because the container is removed and no further event can happen to it."""
        for condition in WaitCondition:
            self._release(condition, result)

    def _release(self, condition: WaitCondition, result: WaitResult) -> None:
        for future in list(self._waiting[condition]):
            if not future.done():
                future.set_result(result)
