"""The supervisor of one container: the only writer of its record.

Every operation takes the container's lock for a short, bounded time; nobody holds it while waiting for a process to
end. While a process lives, or a restart is pending, one task (`_supervise`) waits for what comes next. A change is
written first and becomes visible after (`_commit`); what was running when a daemon died is picked up by `adopt`.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from bennu.engine.attach import Attachment
from bennu.engine.events import Event, event
from bennu.engine.launch import launch, release, start_failure
from bennu.engine.record import Record, SentSignal
from bennu.engine.services import Services
from bennu.engine.waits import WaitCondition, WaitResult, Waits
from bennu.errors import BennuError, Conflict, InvalidParameter, NotModified
from bennu.lifecycle.death import Asker
from bennu.lifecycle.restart import Exit, Restart, RestartHistory, RestartPolicy, Stay, decide_restart
from bennu.lifecycle.signals import is_linux_signal, parse_signal
from bennu.lifecycle.status import State
from bennu.lifecycle.stop import effect_of_signal
from bennu.store import Put

log = logging.getLogger(__name__)

KILL_WAIT_S: Final = 10  # dockerd: then kill(2) on the host pid, 2 s more, then an error
LAST_WAIT_S: Final = 2
encode_record = msgspec.json.Encoder().encode


class Container:
    """One container, alive or not."""

    def __init__(self, services: Services, record: Record) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.waits = Waits()
        self.removing = False
        self._services = services
        self._attachments: list[Attachment] = []
        self._supervisor: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()  # set while no process exists
        self._back_off_over = asyncio.Event()
        self._keep_after_exit = False  # an API restart is under way: no auto-removal
        self.exited = asyncio.Event()  # set when the present run's output has ended: followers of the log stop
        if record.pid == 0:
            self._ended.set()
            self.exited.set()

    # --- what it says of itself ---------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self.record.id

    def event(self, action: str, **details: str) -> Event:
        """A container event with Docker's attributes: labels win over details, image and name over labels."""
        config = self.record.config
        attributes = {**details, **(config.labels or {})}
        if config.image:
            attributes["image"] = config.image
        attributes["name"] = self.record.name
        return event("container", action, self.id, attributes)

    async def publish(self, action: str, **details: str) -> None:
        await self._services.journal.commit((), (self.event(action, **details),))

    def check_running(self) -> None:
        """Raises: Conflict with Docker's words unless a live process can be talked to."""
        if self.record.state is State.RESTARTING:
            raise Conflict(f"Container {self.id} is restarting, wait until the container is running")
        if not self.record.running:
            raise Conflict(f"container {self.id} is not running")

    def wait(self, condition: WaitCondition) -> "asyncio.Future[WaitResult]":
        """Registered when this returns; see `Waits`."""
        future = self.waits.register(condition)
        if condition is WaitCondition.NOT_RUNNING and not self.record.running:
            future.set_result(self._wait_result())
        return future

    async def attach(self) -> Attachment:
        """Attach to the present run, or to the next one if none is."""
        if self.record.state is State.PAUSED:
            raise Conflict(f"container {self.record.name} is paused, unpause the container before attach")
        if self.record.state is State.RESTARTING:
            raise Conflict(f"container {self.record.name} is restarting, wait until the container is running")
        attachment = Attachment()
        async with self.lock:
            if self.record.state is State.RUNNING:
                attachment.connect(await self._services.runtime.attach(self.id))
            else:
                self._attachments.append(attachment)
        await self.publish("attach")
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Its client has left. Idempotent."""
        attachment.close()
        if attachment in self._attachments:
            self._attachments.remove(attachment)

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
                manually_stopped=False,
            )
            try:
                await self._launch(fresh)
            except BennuError:
                if self.record.host_config.auto_remove:
                    self._services.tasks.create_task(self._auto_remove(), name=f"auto-remove {self.id[:12]}")
                raise
            self._supervisor = self._services.tasks.create_task(self._supervise(), name=f"supervise {self.id[:12]}")

    def _check_startable(self) -> None:
        if self.removing or self.record.state in (State.REMOVING, State.DEAD):
            raise Conflict("container is marked for removal and cannot be started")
        if self.record.state is State.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        if self.record.state in (State.RUNNING, State.RESTARTING):
            raise NotModified(f"container {self.id} is already running")

    async def _launch(self, base: Record) -> None:
        """Make a process of it; `base` becomes the record with what the start adds. Holds the lock."""
        try:
            launched = await launch(self._services, base, self._attachments)
        except BennuError as error:
            await self._record_failed_start(error)
            raise
        self._attachments = []
        changed = msgspec.structs.replace(
            base,
            state=State.RUNNING,
            exit_code=0,
            error="",
            oom_killed=False,
            pid=launched.pid,
            conmon_pid=launched.conmon_pid,
            sandbox=launched.sandbox,
            started_at_ns=launched.started_at_ns,
            started_before=True,
            life=base.life + 1,
            boot_id=self._services.boot_id,
            restart_due_ns=0,
            signals=[],
        )
        try:
            await self._commit(changed, [*launched.events, self.event("start")])
        except BaseException:
            # Not on disk, so it never happened.
            await asyncio.shield(release(self._services, changed))
            raise
        self._ended.clear()
        self.exited.clear()

    async def _record_failed_start(self, error: BennuError) -> None:
        """A failed start leaves `created` (or `exited`) with its code and text, and no event."""
        message = str(error)
        ran_before = self.record.started_at_ns != 0
        changed = msgspec.structs.replace(
            self.record,
            state=State.EXITED if ran_before else State.CREATED,
            error=message,
            exit_code=start_failure(error),
            pid=0,
            sandbox=None,
            restart_due_ns=0,
        )
        await self._commit(changed, [])

    # --- stop, kill, restart ------------------------------------------------------------------------------------

    async def kill(self, signal_text: str, by: Asker) -> None:
        """Send a signal for a client; SIGKILL also waits for the end. Raises: Conflict, InvalidParameter."""
        try:
            number = parse_signal(signal_text) if signal_text else signal.SIGKILL
        except InvalidParameter as error:
            raise InvalidParameter(f"cannot kill container: {self.record.name}: {error}") from None
        if not is_linux_signal(number):
            raise InvalidParameter(
                f"cannot kill container: {self.record.name}: the linux daemon does not support signal {number}"
            )
        await self.send(number, by)
        if number == signal.SIGKILL:
            await self.wait_killed()

    async def stop(self, by: Asker, timeout_s: int | None = None, signal_text: str = "") -> None:
        """Stop signal, grace period, SIGKILL. A negative timeout never escalates.

        Raises: NotModified if nothing runs. A cancellation (the client left) must be shielded by the caller.
        """
        if not self.record.running:
            raise NotModified(f"container {self.id} is already stopped")
        if self.record.state is State.RESTARTING:
            await self.send(self._stop_signal(""), by)
        else:
            await self._end(self._stop_signal(signal_text), self._grace_s(timeout_s), by)
        await self.publish("stop")

    async def restart(self, by: Asker, timeout_s: int | None = None, signal_text: str = "") -> None:
        """Stop what runs, then start; no auto-removal in between. Raises: BennuError for any failure."""
        self._keep_after_exit = True
        try:
            if self.record.running:
                await self.stop(by, timeout_s, signal_text)
            await self.start(by)
        except NotModified:
            pass
        except BennuError as error:
            raise BennuError(f"Cannot restart container {self.record.name}: {error}") from error
        finally:
            self._keep_after_exit = False
        await self.publish("restart")

    async def _end(self, number: int, grace_s: float | None, by: Asker) -> None:
        try:
            await self.send(number, by)
        except Conflict:
            return  # it ended by itself meanwhile: that is what was wanted
        if grace_s is None:
            await self._ended.wait()
            return
        if grace_s > 0 and await self._wait_ended(grace_s):
            return
        try:
            await self.send(signal.SIGKILL, by)
        except Conflict:
            return
        await self.wait_killed()

    async def send(self, number: int, by: Asker) -> None:
        """Bookkeeping first, durable; then the signal; then the event. A pending restart is cancelled instead."""
        async with self.lock:
            if not self.record.running:
                raise Conflict(f"cannot kill container: {self.record.name}: container {self.id} is not running")
            paused = self.record.state is State.PAUSED
            effect = effect_of_signal(self._declared_stop_signal(), number, paused=paused)
            changed = msgspec.structs.replace(
                self.record,
                manually_stopped=True,
                restart_cancelled=self.record.restart_cancelled or effect.cancel_restart,
                signals=[*self.record.signals, SentSignal(time.time_ns(), number, by)],
            )
            if self.record.state is State.RESTARTING:
                await self._cancel_back_off(changed)
                return
            await self._commit(changed, [])
            await self._services.runtime.kill(self.id, number)
            events = [self.event("kill", signal=str(number))]
            if effect.unpause:
                await self._services.runtime.resume(self.id)
                changed = msgspec.structs.replace(changed, state=State.RUNNING)
                events.append(self.event("unpause"))
            await self._commit(changed, events)

    async def _cancel_back_off(self, changed: Record) -> None:
        if not changed.restart_cancelled:
            await self._commit(changed, [])
            return
        await self._commit(
            msgspec.structs.replace(changed, state=State.EXITED, restart_due_ns=0, sandbox=None),
            [],
        )
        await release(self._services, changed)
        self._back_off_over.set()

    async def _wait_ended(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def wait_killed(self) -> None:
        if await self._wait_ended(KILL_WAIT_S):
            return
        await self._services.runtime.kill(self.id, signal.SIGKILL, everyone=True)
        if await self._wait_ended(LAST_WAIT_S):
            return
        blocker = await self._services.runtime.describe_stuck(self.id)
        raise BennuError(f"tried to kill container, but did not receive an exit event: {blocker}")

    def _declared_stop_signal(self) -> int | None:
        declared = self.record.config.stop_signal
        return parse_signal(declared) if isinstance(declared, str) and declared else None

    def _stop_signal(self, asked: str) -> int:
        if asked:
            try:
                return parse_signal(asked)
            except InvalidParameter as error:
                raise BennuError(f"cannot stop container: {self.record.name}: {error}") from None
        return self._declared_stop_signal() or signal.SIGTERM

    def _grace_s(self, asked: int | None) -> float | None:
        configured = self.record.config.stop_timeout
        grace = asked if asked is not None else configured if isinstance(configured, int) else None
        if grace is None:
            grace = self._services.default_stop_timeout_s
        return None if grace < 0 else grace

    # --- pause, rename, removal ---------------------------------------------------------------------------------

    async def pause(self) -> None:
        async with self.lock:
            if self.record.state is State.PAUSED:
                raise Conflict(f"container {self.id} is already paused")
            self.check_running()
            await self._services.runtime.pause(self.id)
            await self._commit(msgspec.structs.replace(self.record, state=State.PAUSED), [self.event("pause")])

    async def unpause(self) -> None:
        async with self.lock:
            if self.record.state is not State.PAUSED:
                raise BennuError(f"Container {self.id} is not paused")
            await self._services.runtime.resume(self.id)
            await self._commit(msgspec.structs.replace(self.record, state=State.RUNNING), [self.event("unpause")])

    async def change(self, action: str, details: dict[str, str], **changes: object) -> None:
        """Write other fields of the record with one event (rename, update)."""
        async with self.lock:
            await self._commit(msgspec.structs.replace(self.record, **changes), [self.event(action, **details)])

    # --- what follows an end ------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take up the supervision of what a former daemon left running or waiting."""
        self._supervisor = self._services.tasks.create_task(self._supervise(), name=f"supervise {self.id[:12]}")

    async def _supervise(self) -> None:
        try:
            while True:
                if self.record.pid:
                    await self._services.runtime.wait_conmon(self.record.conmon_pid)
                    async with self.lock:
                        await self._process_end()
                if self.record.state is not State.RESTARTING or not await self._restart_when_due():
                    break
        except Exception:
            # One container's failure must not take the others' supervision with it.
            log.exception("supervision of container %s failed", self.id)
            return
        if self.record.host_config.auto_remove and not self._keep_after_exit:
            await self._auto_remove()

    async def _process_end(self) -> None:
        """The process is gone: write down how, decide what follows, tell everyone. Holds the lock."""
        services, record = self._services, self.record
        ended = services.runtime.read_exit(self.id)
        oom_killed = services.runtime.oom_kills(self.id) > 0
        exit_code = ended.exit_code if ended else None
        finished_ns = ended.finished_at_ns if ended else time.time_ns()
        await services.runtime.delete(self.id)
        decision = self._decide(exit_code, finished_ns)
        changed = msgspec.structs.replace(
            record,
            exit_code=exit_code,
            finished_at_ns=finished_ns,
            oom_killed=oom_killed,
            pid=0,
            conmon_pid=0,
            restart_delay_ns=decision.delay_ns,
        )
        if isinstance(decision, Restart):
            changed.state = State.RESTARTING
            changed.restart_count += 1
            changed.restart_due_ns = time.time_ns() + decision.delay_ns
            before: Sequence[Event] = ()
        else:
            changed.state = State.EXITED
            changed.sandbox = None
            before = await release(services, record)
        seconds = max(0, finished_ns - record.started_at_ns) // 10**9
        code = 255 if exit_code is None else exit_code
        await self._commit(changed, [*before, self.event("die", execDuration=str(seconds), exitCode=str(code))])
        self._back_off_over.clear()
        self._ended.set()
        self.exited.set()
        self.waits.process_ended(self._wait_result())

    def _decide(self, exit_code: int | None, finished_ns: int) -> Restart | Stay:
        record = self.record
        policy = record.host_config.restart_policy
        return decide_restart(
            RestartPolicy.parse(policy.name, policy.maximum_retry_count),
            Exit(
                code=exit_code,
                ran_for_ns=max(0, finished_ns - record.started_at_ns),
                stopped_by_user=record.manually_stopped,
            ),
            RestartHistory(
                count=record.restart_count,
                delay_ns=record.restart_delay_ns,
                cancelled=record.restart_cancelled,
            ),
        )

    async def _restart_when_due(self) -> bool:
        """Wait out the back-off and start again. False: it was cancelled, or the start failed."""
        wait_s = max(0, self.record.restart_due_ns - time.time_ns()) / 1e9
        try:
            async with asyncio.timeout(wait_s):
                await self._back_off_over.wait()
        except TimeoutError:
            pass
        async with self.lock:
            if self.record.state is not State.RESTARTING:
                return False
            try:
                await self._launch(self.record)
            except BennuError as error:
                log.warning("container %s could not be restarted: %s", self.id[:12], error)
                return False
            return True

    async def _auto_remove(self) -> None:
        try:
            await self._services.index.auto_remove(self)
        except BennuError as error:
            log.warning("container %s could not be removed: %s", self.id[:12], error)

    @property
    def exit_code(self) -> int:
        """As clients see it: an unknown exit code is 255 (dockerd since 25)."""
        return 255 if self.record.exit_code is None else self.record.exit_code

    def end_attachments(self) -> None:
        """There will be no next run: let go those who wait for it."""
        for attachment in self._attachments:
            attachment.connect(None)
        self._attachments = []

    def _wait_result(self) -> WaitResult:
        return WaitResult(self.exit_code, self.record.error)

    async def _commit(self, changed: Record, events: Sequence[Event]) -> None:
        await self._services.journal.commit([Put(f"containers/{self.id}", encode_record(changed))], events)
        self.record = changed
