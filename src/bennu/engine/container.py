"""A container as clients use it: start, stop, kill, restart, pause, attach, wait. The words are dockerd's."""

import asyncio
import contextlib
import signal

import msgspec

from bennu.engine.attach import Attachment
from bennu.engine.health import not_monitored
from bennu.engine.killing import Killable
from bennu.engine.record import Errand
from bennu.engine.waits import WaitCondition, WaitResult
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound, NotModified
from bennu.lifecycle.death import Asker, Verb
from bennu.lifecycle.signals import is_linux_signal, parse_signal
from bennu.lifecycle.status import State


class Container(Killable):
    """One container, alive or not, as clients use it."""

    def wait(self, condition: WaitCondition) -> "asyncio.Future[WaitResult]":
        """Registered when this returns; see `Waits`."""
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
        """Its client has left. Idempotent."""
        attachment.close()
        if attachment in self.attachments:
            self.attachments.remove(attachment)

    # --- start --------------------------------------------------------------------------------------------------

    async def start(self, by: Asker) -> None:
        """Start it at a person's (or the daemon's) request: restart counters begin anew.

        Raises: NotModified if it runs; Conflict; the start's failure, which is recorded too.
        """
        async with self.lock:
            self._check_startable()
            fresh = msgspec.structs.replace(
                self.record,
                restart_count=0,
                restart_delay_ns=0,
                restart_due_ns=0,
                restart_cancelled=False,
                restarts_ns=[],
                crash_score=0.0,
                manually_stopped=False,
            )
            try:
                await self.launch(fresh)
            except BaseException:
                if self.record.host_config.auto_remove:
                    self.services.tasks.create_task(self.auto_remove(), name=f"auto-remove {self.id[:12]}")
                raise
            self.adopt()

    def _check_startable(self) -> None:
        if self.removing or self.record.state in (State.REMOVING, State.DEAD):
            raise Conflict("container is marked for removal and cannot be started")
        if self.record.state is State.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        if self.record.state in (State.RUNNING, State.RESTARTING):
            raise NotModified(f"container {self.id} is already running")

    # --- stop, kill, restart ------------------------------------------------------------------------------------

    async def kill(self, signal_text: str, by: Asker, called: str = "") -> None:
        """Send a signal for a client; SIGKILL also waits for the end.

        `called`: what the client calls the container; errors call it the same. Raises: Conflict, InvalidParameter.
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
        await self.send(number, by, Verb.KILL, called=called)
        if number == signal.SIGKILL:
            await self.wait_killed()

    async def stop(self, by: Asker, timeout_s: int | None = None, signal_text: str = "") -> None:
        """Stop signal, grace period, SIGKILL. A negative timeout never escalates.

        Raises: NotModified if nothing runs. A cancellation (the client left) must be shielded by the caller.
        """
        if not self.record.running:
            raise NotModified(f"container {self.id} is already stopped")
        await self._stop(by, Verb.STOP, timeout_s, signal_text)

    async def _stop(self, by: Asker, verb: Verb, timeout_s: int | None, signal_text: str) -> None:
        if self.record.state is State.RESTARTING:
            await self.send(self._stop_signal(""), by, verb, errand=Errand(verb=verb, by=by))
        else:
            await self.end(self._stop_signal(signal_text), self.grace_s(timeout_s), by, verb)
        await self.publish("stop")

    async def revive(self, by: Asker) -> None:
        """End the present run as a stop does, then start it again as after a crash: same back-off, same budget."""
        async with self.lock:
            self.check_running()
            await self.commit(msgspec.structs.replace(self.record, revive=True), [])
        await self.end(self._stop_signal(""), self.grace_s(None), by, Verb.RESTART, for_good=False)

    async def shut_down(self, by: Asker) -> None:
        """Stop it with the daemon: not a person's wish, so its policy counts again when the daemon starts."""
        with contextlib.suppress(Conflict):
            if self.record.state is State.RUNNING or self.record.state is State.PAUSED:
                await self.end(self._stop_signal(""), self.grace_s(None), by, Verb.STOP, for_good=False)

    async def restart(
        self, by: Asker, timeout_s: int | None = None, signal_text: str = "", *, called: str = ""
    ) -> None:
        """Stop what runs, then start; no auto-removal in between. Raises: BennuError for any failure."""
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
            self.keep_after_exit = False
        await self.publish("restart")

    async def _complete(self, errand: Errand) -> None:
        if errand.verb is Verb.REMOVE:
            await self.services.index.remove(self.id, errand.by, force=True, volumes=errand.volumes)
        else:
            await self.restart(errand.by)

    def _stop_signal(self, asked: str) -> int:
        if asked:
            try:
                return parse_signal(asked)
            except InvalidParameter as error:
                raise BennuError(f"cannot stop container: {self.record.name}: {error}") from None
        return self.declared_stop_signal() or signal.SIGTERM

    def grace_s(self, asked: int | None = None) -> float | None:
        configured = self.record.config.stop_timeout
        grace = asked if asked is not None else configured if isinstance(configured, int) else None
        if grace is None:
            grace = self.services.default_stop_timeout_s
        return None if grace < 0 else grace

    # --- pause, rename, removal ---------------------------------------------------------------------------------

    async def pause(self, *, briefly: bool = False) -> None:
        """`briefly`: for the length of a request, so not across a death of the daemon."""
        async with self.lock:
            if self.record.state is State.PAUSED:
                raise Conflict(f"container {self.id} is already paused")
            self.check_running()
            if briefly:
                await self.commit(msgspec.structs.replace(self.record, pause_is_brief=True), [])
            await self.services.runtime.freezer.pause(self.id)
            self.unwatch_run()
            paused = msgspec.structs.replace(self.record, state=State.PAUSED, health=not_monitored(self.record.health))
            await self.commit(paused, [self.event("pause")])

    async def unpause(self) -> None:
        async with self.lock:
            if self.record.state is not State.PAUSED:
                raise BennuError(f"Container {self.id} is not paused")
            await self.services.runtime.freezer.resume(self.id)
            running = msgspec.structs.replace(self.record, state=State.RUNNING, pause_is_brief=False)
            await self.commit(running, [self.event("unpause")])
            self.watch_run()

    async def change(self, action: str, details: dict[str, str], **changes: object) -> None:
        """Write other fields of the record with one event (rename, update)."""
        async with self.lock:
            await self.commit(msgspec.structs.replace(self.record, **changes), [self.event(action, **details)])
