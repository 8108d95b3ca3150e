"""The supervision of one container: the only writer of its record.

Whoever changes the record holds the container's lock, for a short and bounded time; nobody holds it while waiting for
a process to end. While a process lives, or a restart is pending, one task (`_supervise`) waits for what comes next. A
change is written first and becomes visible after (`commit`); what was running when a daemon died is taken up by
`adopt`.
"""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import msgspec

from bennu.descriptors import reserve
from bennu.engine.attach import Attachment
from bennu.engine.deaths import certify, look_at_end
from bennu.engine.decisions import decide_after, decide_after_failed_start, tell_decision, with_restart
from bennu.engine.events import Event, event
from bennu.engine.health import Monitor, not_monitored, starting
from bennu.engine.launch import farewell, launch, release_quietly
from bennu.engine.links import note_links
from bennu.engine.log_bounds import LogKeeper
from bennu.engine.memory import MemoryMonitor
from bennu.engine.readiness import Readiness
from bennu.engine.record import Errand, Record
from bennu.engine.sandbox import tell_linkers
from bennu.engine.services import Services
from bennu.engine.start_failure import ends_task, is_shortage, start_failure, start_failure_code
from bennu.engine.waits import WaitResult, Waits
from bennu.errors import BennuError, Conflict, NotFound, Unavailable
from bennu.lifecycle.death import Asker, Decision, Ending, Verb
from bennu.lifecycle.restart import Restart, Stay
from bennu.lifecycle.status import State, check_transition
from bennu.runtime import NotAlive
from bennu.store import Put

log = logging.getLogger(__name__)

TRY_AGAIN_S: Final = 1.0  # after the disk refused to take an end
TRY_AGAIN_MOST_S: Final = 60.0
encode_record = msgspec.json.Encoder().encode


class Supervisor(ABC):
    """Keeps one container's record and the world in agreement."""

    def __init__(self, services: Services, record: Record) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.waits = Waits()
        self.removing = False
        self.gone = False  # its record is deleted: nothing may write it again
        self.exited = asyncio.Event()  # set while no process exists: followers of the log stop, stops are done
        self.services = services
        self.attachments: list[Attachment] = []  # waiting for the next start
        self.keep_after_exit = False  # an API restart is under way: no auto-removal
        self._back_off_over = asyncio.Event()
        self.monitor = Monitor(self)
        self.readiness = Readiness(self)
        self.memory = MemoryMonitor(self)
        self.log_keeper = LogKeeper(self)
        if record.pid == 0:
            self.exited.set()

    @property
    def id(self) -> str:
        return self.record.id

    def check_running(self) -> None:
        """Raises: Conflict with Docker's words unless a live process can be talked to."""
        if self.record.state is State.RESTARTING:
            raise Conflict(f"Container {self.id} is restarting, wait until the container is running")
        if not self.record.running:
            raise Conflict(f"container {self.id} is not running")

    def event(self, action: str, **details: str) -> Event:
        """A container event with Docker's attributes: labels win over details, image and name over labels."""
        config = self.record.config
        attributes = {**details, **(config.labels or {})}
        if config.image:
            attributes["image"] = config.image
        attributes["name"] = self.record.name
        return event("container", action, self.id, attributes)

    async def publish(self, action: str, **details: str) -> None:
        await self.services.journal.commit((), (self.event(action, **details),))

    # --- from a record to a process -------------------------------------------------------------------------------

    async def launch(self, base: Record) -> None:
        """Make a process of it; `base` becomes the record with what the start adds. Holds the lock.

        Raises: BennuError, whatever went wrong, and then it is written down; what is to end the task itself.
        """
        try:
            await self._begin_run(base)
        except BaseException as error:
            failure = start_failure(error)
            await self._record_failed_start(failure, shortage=is_shortage(error))
            if failure is error:
                raise
            raise failure from error
        self.exited.clear()
        try:
            note_links(self.services, self.record)
            tell_linkers(self.services, self.record)
            self.watch_run()
        except BaseException as error:  # it runs all the same, and has to be supervised
            if ends_task(error):
                raise
            log.exception("not everybody could be told that container %s runs", self.id)

    async def _begin_run(self, base: Record) -> None:
        launched = await launch(self.services, base, self.attachments)
        self.attachments = []
        changed = msgspec.structs.replace(
            base,
            state=State.RUNNING,
            exit_code=0,
            error="",
            oom_killed=False,
            oom_told=0,
            pid=launched.pid,
            sandbox=launched.sandbox,
            started_at_ns=launched.started_at_ns,
            started_before=True,
            life=base.life + 1,
            boot_id=self.services.boot_id,
            restart_due_ns=0,
            signals=[],
            unsent=0,
            errand=None,
            gave_up=False,
            revive=False,
            health=starting(base),
        )
        try:
            await self.commit(changed, [*launched.events, self.event("start")])
        except BaseException:
            # Not on disk, so it never happened.
            await asyncio.shield(release_quietly(self.services, changed))
            raise

    def watch_run(self) -> None:
        """Begin to probe the present run for health and readiness, as far as it has probes, and to watch its memory
        and its log."""
        self.monitor.watch()
        self.readiness.watch()
        self.memory.watch()
        self.log_keeper.watch()

    def unwatch_run(self) -> None:
        """Idempotent."""
        self.monitor.stop()
        self.readiness.stop()
        self.memory.stop()
        self.log_keeper.stop()

    @abstractmethod
    async def stop(self, by: Asker, timeout_s: int | None = None, signal_text: str = "") -> None:
        """Stop signal, grace period, SIGKILL. Raises: NotModified if nothing runs."""

    @abstractmethod
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
        """Send a signal, or cancel a pending restart."""

    @abstractmethod
    async def revive(self, by: Asker) -> None:
        """End the present run as a stop does, then start it again as after a crash."""

    async def _record_failed_start(self, error: BennuError, *, shortage: bool) -> None:
        """A failed start leaves `created` (or `exited`) with its code and text, and no event.

        A failed restart by policy keeps the exit code of the run before; one that failed since the host had too little
        of something is tried again. Only the end of a row of restarts releases those who wait: of a first start, the
        client is told by its own answer, and who waits for the next exit goes on waiting, as with dockerd.
        """
        record, code, now_ns = self.record, start_failure_code(error), time.time_ns()
        decision = decide_after_failed_start(record, shortage=shortage)
        was_restart, restarts = record.state is State.RESTARTING, isinstance(decision, Restart)
        ended = State.EXITED if record.started_at_ns else State.CREATED
        changed = msgspec.structs.replace(
            record,
            state=State.RESTARTING if restarts else ended,
            error=str(error),
            exit_code=record.exit_code if was_restart else code,
            pid=0,
            sandbox=None,
            restart_delay_ns=decision.delay_ns if restarts else record.restart_delay_ns,
            restart_due_ns=now_ns + decision.delay_ns if restarts else 0,
            errand=None,
        )
        ending = Ending(exit_code=code, finished_at_ns=now_ns, start_error=str(error))
        await self._commit_end(changed, [], ending, tell_decision(changed, decision, changed.restart_due_ns))
        if was_restart and not restarts:
            self.waits.process_ended(self.wait_result())

    async def _commit_end(self, changed: Record, events: Sequence[Event], ending: Ending, decision: Decision) -> None:
        """The end, the events that tell of it and its certificate, in one transaction."""
        services = self.services
        certificate = await certify(self.record, ending, decision, services.log_path(self.id))
        await self.commit(changed, events, services.deaths.puts(certificate))
        services.tally[f"death {certificate.cause}"] += 1

    # --- what follows an end ------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Supervise from here on: it was just started, or a former daemon left it running or waiting."""
        if self.record.pid and self.record.state is State.RUNNING and not self.monitor.watches:
            # What the former daemon saw last is old: health begins anew, its log is kept.
            self.record = msgspec.structs.replace(self.record, health=starting(self.record))
            self.watch_run()
            note_links(self.services, self.record)
        self.services.tasks.create_task(self._supervise(), name=f"supervise {self.id[:12]}")

    async def lost_at_reboot(self) -> None:
        """The host went down with it: how its process ended, nobody knows. A pending restart is void."""
        record = self.record
        lived = record.pid != 0
        changed = msgspec.structs.replace(
            record,
            state=State.EXITED if record.started_at_ns else State.CREATED,
            exit_code=None if lived else record.exit_code,
            finished_at_ns=time.time_ns() if lived else record.finished_at_ns,
            pid=0,
            sandbox=None,
            restart_due_ns=0,
            unsent=0,
            errand=self._lasting_errand(),
        )
        if lived:
            ending = Ending(exit_code=None, finished_at_ns=changed.finished_at_ns, lost=True)
            reason = "the host went down; its policy is asked as the daemon starts"
            followed = tell_decision(record, Stay(0, reason))
            await self._commit_end(changed, [self.event("die", exitCode="255")], ending, followed)
        else:
            await self.commit(changed, [])
        self.exited.set()

    async def _supervise(self) -> None:
        pause_s = TRY_AGAIN_S
        while True:
            try:
                if not await self._next_end_and_restart():
                    break
                pause_s = TRY_AGAIN_S
                continue
            except Unavailable as error:
                # An end must not be lost because the disk is full: it is written as soon as that is possible.
                log.error("container %s: %s; trying again", self.id[:12], error)
            except BaseException as error:
                if ends_task(error):
                    raise
                # Nor may one container's failure take the others' supervision with it, or end its own.
                log.exception("supervision of container %s failed; trying again", self.id)
                pause_s = min(2 * pause_s, TRY_AGAIN_MOST_S)
            await asyncio.sleep(pause_s)
        if self.record.host_config.auto_remove and not self.record.running and not self._comes_back():
            await self.auto_remove()

    def _comes_back(self) -> bool:
        """It has ended only to be started again at a person's request."""
        errand = self.record.errand
        return self.keep_after_exit or (errand is not None and errand.verb is Verb.RESTART)

    async def _next_end_and_restart(self) -> bool:
        """Wait for the next end, write it down, restart if that was decided. False: it stays ended."""
        if self.record.pid:
            with contextlib.suppress(NotAlive):  # its bundle is gone, so it is gone
                await self.services.runtime.observer.wait_end(self.id)
            async with self.lock:
                with reserve():
                    await self._process_end()
        return self.record.state is State.RESTARTING and await self._restart_when_due()

    async def _process_end(self) -> None:
        """The process is gone: write down how, decide what follows, tell everyone. Holds the lock."""
        self.unwatch_run()
        ending = look_at_end(self.services.runtime, self.record)
        decision = decide_after(self.record, ending, daemon_ends=self.services.ending)
        record, restarts = self.record, isinstance(decision, Restart)
        changed = msgspec.structs.replace(
            record,
            exit_code=ending.exit_code,
            finished_at_ns=ending.finished_at_ns,
            oom_killed=ending.oom is not None,
            pid=0,
            restart_delay_ns=decision.delay_ns,
            unsent=0,
            errand=self._lasting_errand(),
            gave_up=isinstance(decision, Stay) and decision.gave_up,
            pause_is_brief=False,
            health=not_monitored(self.record.health),
        )
        told_late = ending.oom is not None and ending.oom.kills > record.oom_told
        events = [self.event("oom")] if told_late else []
        if restarts:
            changed = with_restart(changed, decision.delay_ns, time.time_ns())
        else:
            changed.state = State.EXITED
            changed.sandbox = None
            events += farewell(self.services, record)
        seconds = max(0, ending.finished_at_ns - record.started_at_ns) // 10**9
        code = 255 if ending.exit_code is None else ending.exit_code
        events.append(self.event("die", execDuration=str(seconds), exitCode=str(code)))
        followed = tell_decision(record, decision, changed.restart_due_ns)
        # The exit code's only other home is the runtime's exit file: it is on disk here before that is deleted.
        await self._commit_end(changed, events, ending, followed)
        self.services.tally["restarts"] += restarts
        self._back_off_over.clear()
        try:
            await self._let_go(record, keep_sandbox=restarts)
        finally:
            self.exited.set()
            self.waits.process_ended(self.wait_result())

    def _lasting_errand(self) -> Errand | None:
        """What is left to do of the errand under way once the process has ended."""
        errand = self.record.errand
        return errand if errand is not None and errand.outlasts_end else None

    async def _let_go(self, record: Record, *, keep_sandbox: bool) -> None:
        """Give back what the process held; what cannot be given back now is cleared by the next start or removal."""
        if not keep_sandbox:
            await release_quietly(self.services, record)
            return
        try:
            await self.services.runtime.delete(self.id)
        except Exception:
            log.exception("what is left of the process of container %s could not be cleared away", self.id)

    async def restart_now(self) -> None:
        """Skip what is left of the back-off. Raises: Conflict when no restart is pending."""
        async with self.lock:
            if self.record.state is not State.RESTARTING:
                raise Conflict(f"container {self.record.name} has no restart pending: it is {self.record.state}")
            self._back_off_over.set()

    async def _restart_when_due(self) -> bool:
        """Wait out the back-off and start again. False: it was cancelled, or the start failed for good."""
        wait_s = max(0, self.record.restart_due_ns - time.time_ns()) / 1e9
        try:
            async with asyncio.timeout(wait_s):
                await self._back_off_over.wait()
        except TimeoutError:
            pass
        async with self.lock:
            if self.record.state is not State.RESTARTING or self.services.ending:
                return False  # the next daemon goes on with what is pending
            try:
                await self.launch(self.record)
            except Unavailable:
                raise
            except BennuError as error:
                log.warning("container %s could not be restarted: %s", self.id[:12], error)
                return self.record.state is State.RESTARTING
            return True

    async def auto_remove(self) -> None:
        """Remove it as `--rm` asks; what stands in the way now may be gone later."""
        pause_s = TRY_AGAIN_S
        while not self.gone:
            try:
                await self.services.index.auto_remove(self.id)
            except (NotFound, Conflict):
                return  # another does it, or wants it otherwise
            except Exception as error:
                log.warning("container %s could not be removed: %s; trying again", self.id[:12], error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, TRY_AGAIN_MOST_S)

    @property
    def exit_code(self) -> int:
        """As clients see it: an unknown exit code is 255 (dockerd since 25)."""
        return 255 if self.record.exit_code is None else self.record.exit_code

    def end_attachments(self) -> None:
        """There will be no next run: let go those who wait for it."""
        for attachment in self.attachments:
            attachment.connect(None)
        self.attachments = []

    def wait_result(self) -> WaitResult:
        return WaitResult(self.exit_code, self.record.error)

    async def commit(self, changed: Record, events: Sequence[Event], more: Sequence[Put] = ()) -> None:
        """Write the record with its events, then let it be seen.

        Raises: Unavailable; IllegalTransition; NotFound when it was removed meanwhile. Then nothing has changed.
        """
        if self.gone:
            raise NotFound(f"No such container: {self.id}")
        check_transition(self.record.state, changed.state)
        await self.services.journal.commit([Put(f"containers/{self.id}", encode_record(changed)), *more], events)
        self.record = changed
