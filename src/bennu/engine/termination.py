"""The ending of a container on request: drain, stop signal, grace period, SIGKILL; and again after a daemon's death.

An operation of several writes leaves a note on the record before it begins (`Life.pending`). A daemon that finds such a
note goes on from there (`Container.finish_pending`). SIGKILL after the grace period is due by the clock, and the
supervisor sends it: a waiter here only waits.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from bennu.descriptors import reserve
from bennu.engine.container_base import ContainerBase
from bennu.errors import BennuError, Conflict
from bennu.lifecycle.death import Requester, Verb
from bennu.lifecycle.life_events import DrainBegun, OperationFailed, SignalAsked
from bennu.lifecycle.life_model import PendingOperation

KILL_WAIT_S: Final = 10  # dockerd: then kill(2) on the host pid, 2 s more, then an error
LAST_WAIT_S: Final = 2


@dataclass(frozen=True, slots=True)
class EndRequest:
    """An order to end. `grace_s` None: no escalation. `for_good`: a person's wish; else its policy decides the rest."""

    stop_signal: int
    grace_s: float | None
    by: Requester
    verb: Verb
    for_good: bool = True

    @classmethod
    def of(cls, unbegun: PendingOperation) -> "EndRequest":
        """Make the request from an operation that a former daemon had not begun with."""
        return cls(unbegun.unbegun, unbegun.grace_s, unbegun.by, unbegun.verb, unbegun.for_good)


async def end(container: ContainerBase, asked: EndRequest) -> None:
    """Drain its connections, then send stop signal and, after the grace period, SIGKILL; return when it has ended.

    Raises: BennuError that names the blocker if even SIGKILL does not end it.
    """
    draining = container.services.pre_stop.of(container)
    if draining is None:
        await _end_now(container, asked)
        return
    unbegun = PendingOperation(
        verb=asked.verb, by=asked.by, unbegun=asked.stop_signal, grace_s=asked.grace_s, for_good=asked.for_good
    )
    async with container.lock:
        if not container.record.running:
            return
        await container.advance(DrainBegun(unbegun))
    async with draining:
        await _end_now(container, asked)


async def _end_now(container: ContainerBase, asked: EndRequest) -> None:
    kill_at_ns = 0 if asked.grace_s is None else time.time_ns() + round(asked.grace_s * 1e9)
    begun = PendingOperation(verb=asked.verb, by=asked.by, kill_at_ns=kill_at_ns, for_good=asked.for_good)
    try:
        await container.send(
            SignalAsked(
                number=asked.stop_signal, by=asked.by, verb=asked.verb, for_good=asked.for_good, operation=begun
            )
        )
    except Conflict:
        return  # it ended by itself meanwhile: that is what was wanted
    await see_end(container, asked.grace_s)


async def see_end(container: ContainerBase, grace_s: float | None) -> None:
    """Wait for the end after the stop signal was sent; SIGKILL follows after `grace_s` seconds, None: never."""
    if grace_s is None:
        await container.exited.wait()
    else:
        await wait_killed(container, after_s=grace_s)


async def wait_killed(container: ContainerBase, *, after_s: float = 0) -> None:
    """Wait for the end; SIGKILL was sent, or is due in `after_s` seconds.

    Raises: BennuError that names the obstacle to its end.
    """
    if await _wait_ended(container, after_s + KILL_WAIT_S):
        return
    with reserve():
        await container.services.runtime.kill_everyone(container.id)
    if await _wait_ended(container, LAST_WAIT_S):
        return
    with reserve():
        blocker = await container.services.runtime.observer.describe_stuck(container.id)
    async with container.lock:
        await container.advance(OperationFailed())
    raise BennuError(f"tried to kill container, but did not receive an exit event: {blocker}")


async def _wait_ended(container: ContainerBase, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await container.exited.wait()
    except TimeoutError:
        return False
    return True


def left_of_grace(container: ContainerBase) -> float | None:
    """Return the recorded seconds until SIGKILL follows; None: it does not."""
    life = container.record.life
    if life.pending is not None and life.pending.kill_at_ns:
        return max(0, life.pending.kill_at_ns - time.time_ns()) / 1e9
    return 0 if life.is_killed else None
