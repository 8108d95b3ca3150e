"""How a container is ended on request: bookkeeping, signal, grace period, SIGKILL; and again after a daemon's death.

What takes several writes leaves word of itself on the record before it begins: the signal that is about to be sent
(`unsent`) and what is being done (`errand`). A daemon that finds such a word goes on from there (`finish_errand`).
"""

import asyncio
import logging
import signal
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

import msgspec

from bennu.descriptors import reserve
from bennu.engine.events import Event
from bennu.engine.health import not_monitored
from bennu.engine.launch import farewell
from bennu.engine.record import Errand, Record
from bennu.engine.supervisor import Supervisor
from bennu.errors import BennuError, Conflict, Unavailable
from bennu.lifecycle.death import Asker, SentSignal, Verb
from bennu.lifecycle.signals import parse_signal
from bennu.lifecycle.status import State
from bennu.lifecycle.stop import KillEffect, effect_of_signal
from bennu.runtime import NotAlive

KEPT_SIGNALS: Final = 100  # the last ones of a life: some programs are sent HUP every minute
KILL_WAIT_S: Final = 10  # dockerd: then kill(2) on the host pid, 2 s more, then an error
LAST_WAIT_S: Final = 2

log = logging.getLogger(__name__)


class Killable(Supervisor):
    """A container that can be sent signals and made to end."""

    async def send(
        self,
        number: int,
        by: Asker,
        verb: Verb,
        *,
        for_good: bool = True,
        called: str = "",
        errand: Errand | None = None,
    ) -> None:
        """Bookkeeping first, durable; then the signal; then the event. A pending restart is cancelled instead.

        `for_good`: counts as a person's wish that it end, as Docker has it; else its policy decides what follows.
        Raises: Conflict if it does not run. A process that has ended, but whose end is not written down, is no error.
        """
        async with self.lock:
            record = self.record
            if not record.running:
                raise Conflict(f"cannot kill container: {called or record.name}: container {self.id} is not running")
            cancels = for_good and self._effect_of(number).cancel_restart
            changed = msgspec.structs.replace(
                record,
                manually_stopped=record.manually_stopped or for_good,
                restart_cancelled=record.restart_cancelled or cancels,
                signals=[*record.signals, SentSignal(time.time_ns(), number, by, verb)][-KEPT_SIGNALS:],
                errand=errand or record.errand,
            )
            if record.state is State.RESTARTING:
                await self._cancel_back_off(changed)
                return
            changed.unsent = number
            with reserve():
                await self._note(changed, [])
                await self._deliver()

    async def _note(self, changed: Record, events: Sequence[Event]) -> None:
        """What ends a container does not wait for room on the disk, for it makes room. The next write has it all."""
        try:
            await self.commit(changed, events)
        except Unavailable as error:
            log.warning("container %s: %s; it is sent its signal all the same", self.id[:12], error)
            self.record = changed

    async def _deliver(self) -> None:
        """Send the signal that is written down, then tell of it. Holds the lock."""
        number, paused = self.record.unsent, self.record.state is State.PAUSED
        changed = msgspec.structs.replace(self.record, unsent=0)
        try:
            await self.services.runtime.kill(self.id, number)
        except NotAlive:
            # It was faster. Its end is about to be processed, and this signal had no part in it.
            changed.signals = changed.signals[:-1]
            await self._note(changed, [])
            return
        events = [self.event("kill", signal=str(number))]
        unpause = paused and self._effect_of(number).unpause
        if unpause:
            await self.services.runtime.freezer.resume(self.id)
            changed.state, changed.pause_is_brief = State.RUNNING, False
            events.append(self.event("unpause"))
        await self._note(changed, events)
        if unpause:
            self.watch_run()

    def _effect_of(self, number: int) -> KillEffect:
        return effect_of_signal(self.declared_stop_signal(), number, paused=self.record.state is State.PAUSED)

    async def _cancel_back_off(self, changed: Record) -> None:
        if not changed.restart_cancelled:
            await self.commit(changed, [])
            return
        errand = changed.errand if changed.errand and changed.errand.outlasts_end else None
        ended = msgspec.structs.replace(changed, state=State.EXITED, restart_due_ns=0, sandbox=None, errand=errand)
        await self.commit(ended, farewell(self.services, changed))
        with reserve():
            await self._let_go(changed, keep_sandbox=False)
        self._back_off_over.set()
        self.waits.process_ended(self.wait_result())

    def declared_stop_signal(self) -> int | None:
        declared = self.record.config.stop_signal
        return parse_signal(declared) if isinstance(declared, str) and declared else None

    # --- until it has ended -------------------------------------------------------------------------------------

    async def end(self, number: int, grace_s: float | None, by: Asker, verb: Verb, *, for_good: bool = True) -> None:
        """Let go of it, then stop signal, grace period, SIGKILL; returns when it has ended.

        `grace_s` None: never escalate. Raises: BennuError that names the blocker if even SIGKILL does not end it.
        """
        parting = self.services.parting(self)
        if parting is None:
            await self._end_now(number, grace_s, by, verb, for_good)
            return
        unbegun = Errand(verb=verb, by=by, unbegun=number, grace_s=grace_s, for_good=for_good)
        async with self.lock:
            if not self.record.running:
                return
            await self._note(msgspec.structs.replace(self.record, errand=unbegun), [])
        async with parting:
            await self._end_now(number, grace_s, by, verb, for_good)

    async def _end_now(self, number: int, grace_s: float | None, by: Asker, verb: Verb, for_good: bool) -> None:
        kill_at_ns = 0 if grace_s is None else time.time_ns() + round(grace_s * 1e9)
        errand = Errand(verb=verb, by=by, kill_at_ns=kill_at_ns, for_good=for_good)
        try:
            await self.send(number, by, verb, for_good=for_good, errand=errand)
        except Conflict:
            return  # it ended by itself meanwhile: that is what was wanted
        await self._see_through(errand, grace_s)

    async def _see_through(self, errand: Errand, grace_s: float | None) -> None:
        if grace_s is None:
            await self.exited.wait()
            return
        if grace_s > 0 and await self._wait_ended(grace_s):
            return
        try:
            await self.send(signal.SIGKILL, errand.by, errand.verb, for_good=errand.for_good)
        except Conflict:
            return
        await self.wait_killed()

    async def _wait_ended(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        except TimeoutError:
            return False
        return True

    async def wait_killed(self) -> None:
        """SIGKILL was sent: return when it has ended. Raises: BennuError that names what keeps it from ending."""
        if await self._wait_ended(KILL_WAIT_S):
            return
        with reserve():
            await self.services.runtime.kill(self.id, signal.SIGKILL, everyone=True)
        if await self._wait_ended(LAST_WAIT_S):
            return
        with reserve():
            blocker = await self.services.runtime.observer.describe_stuck(self.id)
        async with self.lock:  # whoever asked is told that it failed, so nobody goes on with it
            await self.commit(msgspec.structs.replace(self.record, errand=None), [])
        raise BennuError(f"tried to kill container, but did not receive an exit event: {blocker}")

    # --- after a daemon's death ---------------------------------------------------------------------------------

    async def match_freezer(self) -> None:
        """The former daemon may have died between freezing or thawing it and writing that down: the kernel knows.

        What was paused for the length of a request runs on, for that request is over.
        """
        async with self.lock:
            try:
                frozen = await self.services.runtime.freezer.is_frozen(self.id)
                if frozen and self.record.pause_is_brief:
                    await self.services.runtime.freezer.resume(self.id)
                    frozen = False
            except NotAlive:
                return  # it ended meanwhile
            was_paused = self.record.state is State.PAUSED
            if frozen == was_paused and not self.record.pause_is_brief:
                return
            state = State.PAUSED if frozen else State.RUNNING
            health = not_monitored(self.record.health) if frozen else self.record.health
            changed = msgspec.structs.replace(self.record, state=state, pause_is_brief=False, health=health)
            events = [self.event("pause" if frozen else "unpause")] if frozen != was_paused else []
            await self.commit(changed, events)

    async def finish_errand(self, *, is_held: bool = False) -> None:
        """Go on with what the former daemon was asked for and had begun.

        `is_held`: those who let connections end hold it again. Until then what waited for that has to wait.
        """
        async with self.lock:
            if self.record.unsent and self.record.pid:
                with reserve():
                    await self._deliver()
        errand, signals = self.record.errand, self.record.signals
        if errand is None or (errand.unbegun and not is_held):
            return
        if self.record.running:
            if errand.unbegun:
                await self.end(errand.unbegun, errand.grace_s, errand.by, errand.verb, for_good=errand.for_good)
            elif signals and signals[-1].number == signal.SIGKILL:
                await self.wait_killed()
            else:
                await self._see_through(errand, _left_of_grace(errand))
            if errand.verb is not Verb.REMOVE:
                await self.publish("stop")
        if errand.outlasts_end:
            await self._complete(errand)

    @abstractmethod
    async def _complete(self, errand: Errand) -> None:
        """It has ended: do what that was wanted for."""


def _left_of_grace(errand: Errand) -> float | None:
    """Seconds; None = no end of it."""
    return max(0, errand.kill_at_ns - time.time_ns()) / 1e9 if errand.kill_at_ns else None
