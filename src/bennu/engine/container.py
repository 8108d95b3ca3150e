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
from bennu.engine.context import EngineContext
from bennu.engine.deaths import certify
from bennu.engine.effects import perform
from bennu.engine.events import Event, event
from bennu.engine.execs import ExecSession
from bennu.engine.launch import teardown_events
from bennu.engine.monitors import Monitors
from bennu.engine.policy import policy_of
from bennu.engine.probes import ProbeResult, as_shown
from bennu.engine.record import Record, new_id
from bennu.engine.removal import remove_container
from bennu.engine.stored_record import encode_record
from bennu.engine.supervisor import Supervisor
from bennu.engine.termination import EndRequest, end, left_of_grace, see_end, wait_killed
from bennu.engine.wait_conditions import WaitCondition, WaitResult, Waits
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound, NotModified, Unavailable
from bennu.lifecycle.death import Requester, Verb
from bennu.lifecycle.health import KEPT_RESULTS
from bennu.lifecycle.life import step
from bennu.lifecycle.life_events import (
    Durability,
    LifeEvent,
    MemoryKilled,
    PauseAsked,
    Probed,
    RestartNowAsked,
    SignalAsked,
    StartAsked,
    TeardownNotice,
    Transition,
    UnhealthyRestartAsked,
    UnpauseAsked,
)
from bennu.lifecycle.life_model import PendingOperation, Policy
from bennu.lifecycle.life_runs import UNKNOWN_AS
from bennu.lifecycle.signals import is_linux_signal, parse_signal
from bennu.lifecycle.status import State
from bennu.runtime import ExecRequest
from bennu.store import Put

log = logging.getLogger(__name__)


class Container:
    """One container, alive or not."""

    def __init__(self, services: EngineContext, record: Record) -> None:
        self.record = record
        self.services = services
        self.lock = asyncio.Lock()
        self.waits = Waits()
        self.exited = asyncio.Event()  # set while no process exists: followers of the log stop, stops are done
        self.removing = False
        self.gone = False  # its record is deleted: nothing may write it again
        self.is_new = False  # it never ran, and nothing was copied into it: its root is its image's
        self.keep_after_exit = False  # an API restart is under way: no auto-removal
        self.attachments: list[Attachment] = []  # waiting for the next start
        self.supervisor = Supervisor(self)
        self.monitors = Monitors(services, self)
        self.readiness = self.monitors.readiness
        if record.pid == 0:
            self.exited.set()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def policy(self) -> Policy:
        """The restart policy as configured now; `docker update` changes it."""
        return policy_of(self.record)

    @property
    def exit_code(self) -> int:
        """The exit code as clients see it: an unknown one is 255 (dockerd since 25)."""
        return UNKNOWN_AS if self.record.exit_code is None else self.record.exit_code

    def check_running(self) -> None:
        """Check that a live process can be talked to. Raises: Conflict with Docker's words otherwise."""
        if self.record.state is State.RESTARTING:
            raise Conflict(f"Container {self.id} is restarting, wait until the container is running")
        if not self.record.running:
            raise Conflict(f"container {self.id} is not running")

    # --- its record -------------------------------------------------------------------------------------------------

    def event(self, action: str, **details: str) -> Event:
        """Make a container event with Docker's attributes: labels win over details, image and name over labels."""
        config = self.record.config
        attributes = {**details, **(config.labels or {})}
        if config.image:
            attributes["image"] = config.image
        attributes["name"] = self.record.name
        return event("container", action, self.id, attributes)

    async def publish(self, action: str, **details: str) -> None:
        await self.services.journal.commit((), (self.event(action, **details),))

    async def commit(self, changed: Record, events: Sequence[Event], more: Sequence[Put] = ()) -> None:
        """Write the record with its events, then make it visible. The caller holds the lock.

        Raises: Unavailable; NotFound when it was removed meanwhile. Then nothing has changed.
        """
        if self.gone:
            raise NotFound(f"No such container: {self.id}")
        await self.services.journal.commit([Put(f"containers/{self.id}", encode_record(changed)), *more], events)
        self.record = changed

    async def change(self, action: str, details: dict[str, str], **changes: object) -> None:
        """Write other fields of the record with one event (rename, update)."""
        async with self.lock:
            await self.commit(msgspec.structs.replace(self.record, **changes), [self.event(action, **details)])

    # --- its life ---------------------------------------------------------------------------------------------------

    async def advance(self, happened: LifeEvent, *, told: Sequence[Event] = (), **changes: object) -> None:
        """Feed an event to the machine, write the resulting life, and perform the effects. The caller holds the lock.

        `told`: events that come before those of the step. `changes`: other fields of the record, written with it.
        Raises: IllegalTransition, Unavailable, NotFound, and then nothing has changed; and the errors of the effects.
        """
        before = self.record
        change = step(before.life, happened, self.policy, now_ns=time.time_ns(), draw=random.random())
        if not change.keeps_sandbox:
            changes["sandbox"] = None
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
            self.services.counters[f"death {certificate.cause}"] += 1

    def _events(self, change: Transition) -> list[Event]:
        events: list[Event] = []
        for notice in change.notices:
            if isinstance(notice, TeardownNotice):
                events += teardown_events(self.services, self.record)
            else:
                events.append(self.event(notice.action, **notice.details))
        return events

    # --- what its monitors see (`RunView`) ---------------------------------------------------------------------------

    async def take_probe(self, result: ProbeResult) -> None:
        """Record a finished health probe. A probe that began before the present run is ignored. Raises: Unavailable."""
        async with self.lock:
            record = self.record
            after_ns = result.start_ns - record.started_at_ns
            if record.state is State.RUNNING and record.health is not None and after_ns >= 0:
                probes = [*record.probes, as_shown(result)][-KEPT_RESULTS:]
                await self.advance(Probed(exit_code=result.exit_code, started_after_ns=after_ns), probes=probes)

    async def take_memory_kills(self, kills: int) -> None:
        """Record that `kills` processes of the present run were killed for memory. Raises: Unavailable."""
        async with self.lock:
            if self.record.pid:
                await self.advance(MemoryKilled(kills))

    def new_session(self, request: ExecRequest) -> ExecSession:
        """Make an exec session in this container that is not yet visible to any client."""
        return ExecSession(id=new_id(), container=self, request=request)

    def publish_transient(self, action: str, **details: str) -> None:
        """Publish an event of this container without writing it."""
        self.services.journal.publish_transient([self.event(action, **details)])

    # --- waiting and attaching --------------------------------------------------------------------------------------

    def wait(self, condition: WaitCondition) -> "asyncio.Future[WaitResult]":
        """Register a waiter; it is registered when this returns. See `Waits`."""
        future = self.waits.register(condition)
        if condition is WaitCondition.NOT_RUNNING and not self.record.running:
            future.set_result(self.wait_result())
        return future

    async def attach(self) -> Attachment:
        """Attach to the present run, or to the next one if none is."""
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
        await self.publish("attach")
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Remove the attachment of a client that has left. Idempotent."""
        attachment.close()
        if attachment in self.attachments:
            self.attachments.remove(attachment)

    def end_attachments(self) -> None:
        """Release the attachments that wait for a next run, because there will be none."""
        for attachment in self.attachments:
            attachment.connect(None)
        self.attachments = []

    def wait_result(self) -> WaitResult:
        return WaitResult(self.exit_code, self.record.error)

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
