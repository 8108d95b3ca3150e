"""One container as its own parts see it: its record, what goes with it in memory, and what they may ask of it.

The parts (`effects`, `termination`, `removal`, `supervisor`) are handed their container as this base, so that they need
not know the whole, `container.Container`, which is made of them.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from bennu.engine.attach import Attachment
from bennu.engine.context import EngineContext
from bennu.engine.events import Event, event
from bennu.engine.execs import ExecSession
from bennu.engine.monitors import Monitors
from bennu.engine.policy import policy_of
from bennu.engine.probes import ProbeResult, as_shown
from bennu.engine.record import Record, new_id
from bennu.engine.stored_record import encode_record
from bennu.engine.wait_conditions import WaitResult, Waits
from bennu.errors import Conflict, NotFound
from bennu.lifecycle.death import Requester
from bennu.lifecycle.health import KEPT_RESULTS
from bennu.lifecycle.life_events import LifeEvent, MemoryKilled, Probed, SignalAsked
from bennu.lifecycle.life_model import Policy
from bennu.lifecycle.life_runs import UNKNOWN_AS
from bennu.lifecycle.status import State
from bennu.runtime import ExecRequest
from bennu.store import Put


class ContainerBase(ABC):
    """One container's record and memory. The record has one writer: `commit`, with the lock held."""

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

    # --- what its parts may ask of the whole -------------------------------------------------------------------------

    @abstractmethod
    async def advance(self, happened: LifeEvent, *, told: Sequence[Event] = (), **changes: object) -> None:
        """Feed an event to the machine, write the life it leads to, perform the effects. The caller holds the lock."""

    @abstractmethod
    async def send(self, asked: SignalAsked, *, called: str = "") -> None:
        """Send a signal, or call off a pending restart. Raises: Conflict if it does not run."""

    @abstractmethod
    async def stop(self, by: Requester, timeout_s: int | None = None, signal_text: str = "") -> None:
        """Stop it: stop signal, grace period, SIGKILL. Raises: NotModified if nothing runs."""

    @abstractmethod
    async def restart_unhealthy(self, by: Requester) -> None:
        """End the present run as a stop does, then start it again as after a crash."""

    # --- those who wait --------------------------------------------------------------------------------------------

    def end_attachments(self) -> None:
        """Release the attachments that wait for a next run, because there will be none."""
        for attachment in self.attachments:
            attachment.connect(None)
        self.attachments = []

    def wait_result(self) -> WaitResult:
        return WaitResult(self.exit_code, self.record.error)

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
