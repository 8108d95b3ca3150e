"""The task that waits for a container's next event: the end of its process, or an alarm of the clock.

It runs while a process lives or a restart is pending, and feeds each event to the container's machine. After a daemon's
death, the next daemon gives its running containers a new supervisor.
"""

import asyncio
import contextlib
import logging
import time
from typing import Final

from bennu.descriptors import reserve
from bennu.engine.container_base import ContainerBase
from bennu.engine.deaths import look_at_end
from bennu.engine.removal import auto_remove
from bennu.engine.start_failure import ends_task
from bennu.errors import BennuError, Conflict, NotFound, Unavailable
from bennu.lifecycle.life import Alarm, Owed, find_owed, next_alarm
from bennu.lifecycle.life_events import RestartDue
from bennu.lifecycle.status import State
from bennu.runtime import NotAlive

TRY_AGAIN_S: Final = 1.0  # after the disk refused to take an end
TRY_AGAIN_MOST_S: Final = 60.0

log = logging.getLogger(__name__)


class Supervisor:
    """The supervisor of one container; at most one of its tasks runs."""

    def __init__(self, container: ContainerBase) -> None:
        self._container = container
        self._timer: asyncio.Timeout | None = None  # while it waits

    def begin(self) -> None:
        """Begin to supervise: the container was just started, or a former daemon left it running or waiting."""
        name = f"supervise {self._container.id[:12]}"
        self._container.services.tasks.create_task(self._supervise(), name=name)

    def look_again(self) -> None:
        """Reschedule the alarm, because the container's life has changed."""
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(self._due_at())

    def _due_at(self) -> float | None:
        """Compute the next alarm by the event loop's clock; None: nothing is due while the process lives."""
        record, now = self._container.record, asyncio.get_running_loop().time()
        alarm = next_alarm(record.life)
        if alarm is None:
            return None if record.pid else now
        return now + max(0, alarm.at_ns - time.time_ns()) / 1e9

    async def _supervise(self) -> None:
        container, pause_s = self._container, TRY_AGAIN_S
        while True:
            try:
                if not await self._take_next():
                    break
                pause_s = TRY_AGAIN_S
                continue
            except Unavailable as error:
                # An end must not be lost because the disk is full: it is written as soon as that is possible.
                log.error("container %s: %s; trying again", container.id[:12], error)
            except BaseException as error:
                if ends_task(error):
                    raise
                # Nor may one container's failure take the others' supervision with it, or end its own.
                log.exception("supervision of container %s failed; trying again", container.id)
                pause_s = min(2 * pause_s, TRY_AGAIN_MOST_S)
            await asyncio.sleep(pause_s)
        policy = container.policy
        if (
            policy.auto_remove
            and not container.keep_after_exit
            and find_owed(container.record.life, policy) is Owed.REMOVAL
        ):
            await self.auto_remove()

    async def _take_next(self) -> bool:
        """Wait for the next event and process it. False: no further event comes."""
        container = self._container
        alarm = next_alarm(container.record.life)
        if alarm is None and not container.record.pid:
            return False
        has_ended = await self._wait()
        async with container.lock:
            if has_ended:
                with reserve():
                    await self._take_end()
            elif alarm is not None and alarm == next_alarm(container.record.life):
                return await self._take_alarm(alarm)
        return True

    async def _wait(self) -> bool:
        """Wait for the next event. True: the process is gone. False: an alarm is due, or the alarm has changed."""
        container = self._container
        timer = self._timer = asyncio.timeout_at(self._due_at())
        try:
            async with timer:
                if not container.record.pid:
                    await asyncio.get_running_loop().create_future()
                with contextlib.suppress(NotAlive):  # its bundle is gone, so it is gone
                    await container.services.runtime.observer.wait_end(container.id)
        except TimeoutError:
            if not timer.expired():
                raise
            return False
        finally:
            self._timer = None
        return True

    async def _take_end(self) -> None:
        """Record the process's end, decide the next step, and announce it. The caller holds the lock."""
        container = self._container
        services = container.services
        container.monitors.stop()
        ended = look_at_end(services.runtime, container.record, daemon_ends=services.ending)
        # The exit code's only other home is the runtime's exit file: it is on disk here before that is deleted.
        await container.advance(ended)
        services.tally.restarts += container.record.state is State.RESTARTING

    async def _take_alarm(self, alarm: Alarm) -> bool:
        """Process an alarm. The caller holds the lock. False: the daemon ends, and the next one continues."""
        container = self._container
        is_restart = isinstance(alarm.event, RestartDue)
        if is_restart and container.services.ending:
            return False
        try:
            with contextlib.nullcontext() if is_restart else reserve():
                await container.advance(alarm.event)
        except Unavailable:
            raise
        except BennuError as error:
            what = "restarted" if is_restart else "sent SIGKILL"
            log.warning("container %s could not be %s: %s", container.id[:12], what, error)
        return True

    async def auto_remove(self) -> None:
        """Remove it as `--rm` asks, with retries: an obstacle of now may be gone later."""
        container, pause_s = self._container, TRY_AGAIN_S
        while not container.gone:
            try:
                await auto_remove(container.services, container)
            except (NotFound, Conflict):
                return  # another does it, or wants it otherwise
            except Exception as error:
                log.warning("container %s could not be removed: %s; trying again", container.id[:12], error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, TRY_AGAIN_MOST_S)
