"""One container of this host: its record, the operations that change it, and the error texts for its clients.

The texts are dockerd's. `Container` is the only writer of its record. Every change is made under the container's lock,
held for a short and bounded time and never while waiting for a process to end. `lifecycle.life` decides each
transition: `advance` feeds it an event, writes the answer, and performs the effects (`effects`). A change is written
first and becomes visible after (`commit`).
"""

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Sequence

import msgspec

from bennu.descriptors import reserve
from bennu.engine.attach import Attachment
from bennu.engine.container_base import ContainerBase
from bennu.engine.context import EngineContext
from bennu.engine.deaths import certify
from bennu.engine.effects import perform
from bennu.engine.events import Event
from bennu.engine.launch import check_given_sources, given_sources, teardown_events
from bennu.engine.record import Record
from bennu.engine.removal import remove_container
from bennu.engine.sandbox import bound_endpoints
from bennu.engine.supervisor import Supervisor
from bennu.engine.termination import EndRequest, end, left_of_grace, see_end, wait_killed
from bennu.engine.wait_conditions import WaitCondition, WaitResult
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound, NotModified, Unavailable
from bennu.lifecycle.death import Requester, Verb
from bennu.lifecycle.life import step
from bennu.lifecycle.life_events import (
    Durability,
    LifeEvent,
    PauseAsked,
    RestartNowAsked,
    SignalAsked,
    StartAsked,
    TeardownNotice,
    Transition,
    UnhealthyRestartAsked,
    UnpauseAsked,
)
from bennu.lifecycle.life_model import PendingOperation
from bennu.lifecycle.signals import is_linux_signal, parse_signal
from bennu.lifecycle.status import State
from bennu.pace import in_thread

log = logging.getLogger(__name__)


class Container(ContainerBase):
    """One container, alive or not, with all that a client can ask of it."""

    def __init__(self, services: EngineContext, record: Record) -> None:
        super().__init__(services, record)
        self.supervisor = Supervisor(self)

    # --- its life ---------------------------------------------------------------------------------------------------

    async def advance(self, happened: LifeEvent, *, told: Sequence[Event] = (), **changes: object) -> None:
        """Feed an event to the machine, write the resulting life, and perform the effects. The caller holds the lock.

        `told`: events that come before those of the step. `changes`: other fields of the record, written with it.
        Raises: IllegalTransition, Unavailable, NotFound, and then nothing has changed; and the errors of the effects.
        """
        before = self.record
        change = step(before.life, happened, self.policy, now_ns=time.time_ns(), draw=random.random())
        if not change.keeps_sandbox:
            changes |= {"sandbox": None, "endpoints": bound_endpoints(before)}
        await self._write(change, msgspec.structs.replace(before, life=change.life, **changes), told)
        self.supervisor.look_again()
        for effect in change.effects:
            if (led_to := await perform(self, effect)) is not None:
                await self.advance(led_to)

    async def _write(self, change: Transition, changed: Record, told: Sequence[Event]) -> None:
        if change.durability is Durability.NOT_WRITTEN:
            self.record = changed
            return
        death, path = change.death, self.services.log_path(self.id)
        if death is not None:
            await self.services.runtime.logs.finish(self.id)
        certificate = await certify(self.record, death, path) if death is not None else None
        puts = self.services.deaths.puts(certificate) if certificate else ()
        try:
            await self.commit(changed, [*told, *self._events(change)], puts)
        except Unavailable as error:
            if change.durability is Durability.REQUIRED:
                raise
            # The next write has it all.
            log.warning("container %s: %s; it is sent its signal all the same", self.id[:12], error)
            self.record = changed
        if certificate:
            self.services.tally.deaths[certificate.cause] += 1

    def _events(self, change: Transition) -> list[Event]:
        events: list[Event] = []
        for notice in change.notices:
            if isinstance(notice, TeardownNotice):
                events += teardown_events(self.services, self.record)
            else:
                events.append(self.event(notice.action, **notice.details))
        return events

    # --- waiting and attaching --------------------------------------------------------------------------------------

    def wait(self, condition: WaitCondition) -> "asyncio.Future[WaitResult]":
        """Register a waiter; it is registered when this returns. See `Waits`."""
        future = self.waits.register(condition)
        if condition is WaitCondition.NOT_RUNNING and not self.record.running:
            future.set_result(self.wait_result())
        return future

    async def attach(self) -> Attachment:
        """Attach to the present run, or to the next one if none is. A cancellation leaves nothing attached."""
        if self.record.state is State.PAUSED:
            raise Conflict(f"container {self.record.name} is paused, unpause the container before attach")
        if self.record.state is State.RESTARTING:
            raise Conflict(f"container {self.record.name} is restarting, wait until the container is running")
        attachment = Attachment()
        async with self.lock:
            if self.gone:
                raise NotFound(f"No such container: {self.id}")
            if self.record.state is State.RUNNING:
                attachment.connect(await self.services.runtime.streams.attach(self.id))
            else:
                self.attachments.append(attachment)
        try:
            await self.publish("attach")
        except BaseException:  # its client has left already
            self.detach(attachment)
            raise
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Remove the attachment of a client that has left. Idempotent."""
        attachment.close()
        if attachment in self.attachments:
            self.attachments.remove(attachment)

    # --- start --------------------------------------------------------------------------------------------------

    async def start(self, by: Requester) -> None:
        """Start it at a person's (or the daemon's) request: restart counters begin anew.

        Raises: NotModified if it runs; Conflict; the start's failure, which is recorded too.
        """
        async with self.lock:
            self._check_startable()
            try:
                await self.advance(StartAsked())
            except BaseException:
                if self.record.host_config.auto_remove:
                    removal = self.supervisor.auto_remove()
                    self.services.tasks.create_task(removal, name=f"auto-remove {self.id[:12]}")
                raise
            self.supervisor.begin()

    async def check_sources(self) -> None:
        """Refuse a person's start while a source of its binds is gone: then, as with dockerd, nothing has changed.

        Raises: InvalidParameter.
        """
        given = given_sources(self.record)
        if given and self.record.state in (State.CREATED, State.EXITED):
            await in_thread(lambda: check_given_sources(given))

    def _check_startable(self) -> None:
        if self.removing or self.record.state in (State.REMOVING, State.DEAD):
            raise Conflict("container is marked for removal and cannot be started")
        if self.record.state is State.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        if self.record.state in (State.RUNNING, State.RESTARTING):
            raise NotModified(f"container {self.id} is already running")

    async def restart_now(self) -> None:
        """Skip the rest of the back-off. Raises: Conflict when no restart is pending."""
        async with self.lock:
            if self.record.state is not State.RESTARTING:
                raise Conflict(f"container {self.record.name} has no restart pending: it is {self.record.state}")
            await self.advance(RestartNowAsked())

    # --- stop, kill, restart ------------------------------------------------------------------------------------

    async def send(self, asked: SignalAsked, *, called: str = "") -> None:
        """Send a signal, or call off a pending restart.

        Raises: Conflict if it does not run. A process whose end is not written down yet causes no error.
        """
        async with self.lock:
            if not self.record.running:
                name = called or self.record.name
                raise Conflict(f"cannot kill container: {name}: container {self.id} is not running")
            with reserve():
                await self.advance(asked)

    async def kill(self, signal_text: str, by: Requester, called: str = "") -> None:
        """Send a signal for a client; SIGKILL also waits for the end.

        `called`: the client's name for the container, repeated in errors. Raises: Conflict, InvalidParameter.
        """
        called = called or self.record.name
        try:
            number = parse_signal(signal_text) if signal_text else signal.SIGKILL
        except InvalidParameter as error:
            raise InvalidParameter(f"cannot kill container: {called}: {error}") from None
        if not is_linux_signal(number):
            raise InvalidParameter(
                f"cannot kill container: {called}: the linux daemon does not support signal {number}"
            )
        await self.send(SignalAsked(number=number, by=by, verb=Verb.KILL), called=called)
        if number == signal.SIGKILL:
            await wait_killed(self)

    async def stop(self, by: Requester, timeout_s: int | None = None, signal_text: str = "") -> None:
        """Stop it: stop signal, grace period, SIGKILL. A negative timeout never escalates.

        Raises: NotModified if nothing runs. A cancellation (the client left) must be shielded by the caller.
        """
        if not self.record.running:
            raise NotModified(f"container {self.id} is already stopped")
        await self._stop(by, Verb.STOP, timeout_s, signal_text)

    async def _stop(self, by: Requester, verb: Verb, timeout_s: int | None, signal_text: str) -> None:
        if self.record.state is State.RESTARTING:
            operation = PendingOperation(verb=verb, by=by)
            await self.send(SignalAsked(number=self._stop_signal(""), by=by, verb=verb, operation=operation))
        else:
            await end(self, EndRequest(self._stop_signal(signal_text), self.grace_s(timeout_s), by, verb))
        await self.publish("stop")

    async def restart_unhealthy(self, by: Requester) -> None:
        """End the present run as a stop does, then start it again as after a crash: same back-off, same budget."""
        async with self.lock:
            self.check_running()
            await self.advance(UnhealthyRestartAsked())
        await end(self, EndRequest(self._stop_signal(""), self.grace_s(), by, Verb.RESTART, for_good=False))

    async def shut_down(self, by: Requester) -> None:
        """Stop it with the daemon, which is not a person's wish: its policy counts again when the daemon starts."""
        with contextlib.suppress(Conflict):
            if self.record.state is State.RUNNING or self.record.state is State.PAUSED:
                await end(self, EndRequest(self._stop_signal(""), self.grace_s(), by, Verb.STOP, for_good=False))

    async def restart(
        self, by: Requester, timeout_s: int | None = None, signal_text: str = "", *, called: str = ""
    ) -> None:
        """Stop it if it runs, then start it; no auto-removal in between. Raises: BennuError for any failure."""
        self.keep_after_exit = True
        try:
            if self.record.running:
                await self._stop(by, Verb.RESTART, timeout_s, signal_text)
            await self.start(by)
        except NotModified:
            pass
        except BennuError as error:
            raise BennuError(f"Cannot restart container {called or self.record.name}: {error}") from error
        finally:
            self.is_new = False  # it never ran, and nothing was copied into it: its root is its image's
        self.keep_after_exit = False
        await self.publish("restart")

    async def finish_pending(self, *, is_held: bool = False) -> None:
        """Continue the pending operation that a former daemon had begun.

        `is_held`: the load balancer holds the container again. An operation that waited for connections to end is
        left alone until then.
        """
        pending = self.record.life.pending
        if pending is None or (pending.unbegun and not is_held):
            return
        if self.record.running:
            if pending.unbegun:
                await end(self, EndRequest.of(pending))
            else:
                await see_end(self, left_of_grace(self))
            if pending.verb is not Verb.REMOVE:
                await self.publish("stop")
        if not pending.outlasts_end:
            return
        if pending.verb is Verb.REMOVE:
            await remove_container(self.services, self, pending.by, force=True, volumes=pending.volumes)
        else:
            await self.restart(pending.by)

    def _stop_signal(self, asked: str) -> int:
        if asked:
            try:
                return parse_signal(asked)
            except InvalidParameter as error:
                raise BennuError(f"cannot stop container: {self.record.name}: {error}") from None
        return self.policy.stop_signal or signal.SIGTERM

    def grace_s(self, asked: int | None = None) -> float | None:
        """Return the seconds between the stop signal and SIGKILL; None: SIGKILL never follows."""
        configured = self.record.config.stop_timeout
        grace = asked if asked is not None else configured if isinstance(configured, int) else None
        if grace is None:
            grace = self.services.default_stop_timeout_s
        return None if grace < 0 else grace

    # --- pause --------------------------------------------------------------------------------------------------

    async def pause(self, *, briefly: bool = False) -> None:
        """Pause the container; `briefly`: for the length of a request, so not across a death of the daemon."""
        async with self.lock:
            if self.record.state is State.PAUSED:
                raise Conflict(f"container {self.id} is already paused")
            self.check_running()
            await self.advance(PauseAsked(briefly))

    async def unpause(self) -> None:
        async with self.lock:
            if self.record.state is not State.PAUSED:
                raise BennuError(f"Container {self.id} is not paused")
            await self.advance(UnpauseAsked())
