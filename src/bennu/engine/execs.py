"""Exec sessions: other processes inside a running container. Known to this daemon only, as in dockerd."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from bennu.engine.background import Background
from bennu.engine.record import Record
from bennu.engine.start_failure import describe, ends_task
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound, Unavailable
from bennu.lifecycle.status import State
from bennu.runtime import ExecProcess, ExecRequest, Runtime, RuntimeFailure

KEEP_ENDED_NS: Final = 10 * 60 * 10**9
CANNOT_RUN: Final = 126  # exit code of a session whose start broke off
UNKNOWN: Final = 255  # and of one whose end could not be watched

log = logging.getLogger(__name__)


class ExecHost(Protocol):
    """The container that a session runs in."""

    @property
    def id(self) -> str: ...

    @property
    def record(self) -> Record: ...

    def check_running(self) -> None:
        """Check that a live process can be talked to. Raises: Conflict with Docker's words otherwise."""
        ...

    async def publish(self, action: str, **details: str) -> None:
        """Publish an event of the container."""
        ...


@dataclass(slots=True)
class ExecSession:
    """One exec session. `exit_code` is None until it has ended; `pid` is the host's and stays after the end."""

    id: str
    container: ExecHost
    request: ExecRequest
    detach_keys: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    ended_at_ns: int = 0  # monotonic
    process: ExecProcess | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)  # started, or failed to
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # exit_code is final

    @property
    def command(self) -> str:
        """The command as named in events: without arguments it keeps its trailing space."""
        return " ".join([self.request.args[0], " ".join(self.request.args[1:])])


class Execs:
    """All exec sessions of this host."""

    def __init__(self, runtime: Runtime, tasks: Background) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self._sessions: dict[str, ExecSession] = {}

    def find(self, exec_id: str) -> ExecSession:
        try:
            return self._sessions[exec_id]
        except KeyError:
            raise NotFound(f"No such exec instance: {exec_id}") from None

    def running_in(self, container_id: str) -> list[str]:
        return [s.id for s in self._sessions.values() if s.running and s.container.id == container_id]

    def forget_container(self, container_id: str) -> None:
        for session in [s for s in self._sessions.values() if s.container.id == container_id]:
            del self._sessions[session.id]

    @contextlib.contextmanager
    def showing(self, session: ExecSession) -> Iterator[None]:
        """Make a session with an external owner (a probe) findable for as long as it runs."""
        session.started = session.running = True
        self._sessions[session.id] = session
        try:
            yield
        finally:
            self._sessions.pop(session.id, None)

    async def create(self, container: ExecHost, session: ExecSession) -> str:
        """Register a session; answer its id. Raises: InvalidParameter, Conflict with Docker's words."""
        if not session.request.args:
            raise InvalidParameter("No exec command specified")
        if container.record.state is State.PAUSED:
            raise Conflict(f"Container {container.record.name} is paused, unpause the container before exec")
        container.check_running()
        if session.request.user:
            await self._runtime.execs.check_user(container.id, session.request.user)
        self._drop_old()
        self._sessions[session.id] = session
        await container.publish(f"exec_create: {session.command}", execID=session.id)
        return session.id

    async def start(self, session: ExecSession) -> ExecProcess:
        """Start it; the caller reads its output, this host watches its end.

        Raises: Conflict; RuntimeFailure with the text for the client (the session then has its exit code).
        """
        if session.started:
            word = "is already running" if session.running else "has already run"
            raise Conflict(f"exec command {session.id} {word}")
        session.container.check_running()
        session.started = True
        try:
            process = await self._runtime.execs.run(session.container.id, session.request)
        except BaseException as error:
            session.exit_code = error.exit_code if isinstance(error, RuntimeFailure) else CANNOT_RUN
            session.ended.set()
            session.ended_at_ns = time.monotonic_ns()
            if isinstance(error, BennuError) or ends_task(error):
                raise
            log.error("exec %s failed by what nobody has foreseen", session.id, exc_info=error)
            raise RuntimeFailure(describe(error), CANNOT_RUN) from error
        finally:
            session.ready.set()
        session.process, session.pid, session.running = process, process.pid, True
        try:
            with contextlib.suppress(Unavailable):  # an event that cannot be written ends no process
                await session.container.publish(f"exec_start: {session.command}", execID=session.id)
        except BaseException:
            process.discard()  # nobody will read it
            raise
        finally:
            self._tasks.create_task(self._watch(session, process), name=f"exec {session.id[:12]}")
        return process

    async def resize(self, session: ExecSession, height: int, width: int) -> None:
        """Resize the session's terminal, waiting up to 10 s for the start. Raises: BennuError, InvalidParameter."""
        session.container.check_running()
        try:
            async with asyncio.timeout(10):
                await session.ready.wait()
        except TimeoutError:
            raise BennuError("timeout waiting for exec session ready") from None
        if session.process is None:
            raise InvalidParameter("exec process is not started")
        if session.running:
            await session.process.resize(height, width)

    async def _watch(self, session: ExecSession, process: ExecProcess) -> None:
        try:
            session.exit_code = await process.wait()
        finally:
            session.exit_code = UNKNOWN if session.exit_code is None else session.exit_code
            session.running = False
            session.ended.set()
            session.ended_at_ns = time.monotonic_ns()
        await session.container.publish("exec_die", execID=session.id, exitCode=str(session.exit_code))

    def _drop_old(self) -> None:
        now = time.monotonic_ns()
        old = [s.id for s in self._sessions.values() if s.ended_at_ns and now - s.ended_at_ns > KEEP_ENDED_NS]
        for exec_id in old:
            del self._sessions[exec_id]
