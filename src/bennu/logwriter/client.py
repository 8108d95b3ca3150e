"""What bennud tells the writer, and how it starts one, finds the one that lives, or replaces one of another version."""

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.logwriter.words import MAX_MESSAGE, SOCKET, Job, fingerprint, send

SOURCES: Final = Path(__file__).parents[2]
# Isolated and without site-packages: nothing but the standard library and these modules can be loaded.
PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv[1]); from bennu.logwriter.server import main; main()"
ANSWERS_WITHIN_S: Final = 5.0
FINISHES_WITHIN_S: Final = 10.0  # dockerd's patience with a log at a container's end
AGAIN_AFTER_S: Final = 0.2
CANNOT_START: Final = (OSError, RuntimeError)  # no process, no descriptor; no thread
FULL_PAUSE_S: Final = 0.005
# There is no room now for what is to be sent.
FULL: Final = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question that is not answered yet; `pipe` goes with it, or -1."""

    message: dict[str, Any]
    answer: asyncio.Future[None]
    pipe: int


class LogWriter:
    """The writer of one bennud's logs. It is started when it is first needed, and again if it has died."""

    def __init__(self, folder: Path, enter: Callable[[int], Awaitable[None]]) -> None:
        """Make it for a folder that is this bennud's alone; `enter(pid)` moves a process out of bennud's group."""
        self._folder = folder
        self._enter = enter
        self._channel: socket.socket | None = None
        self._connected_at = -AGAIN_AFTER_S
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count()
        self._asked: dict[int, _Asked] = {}
        self._holding: set[asyncio.Task[None]] = set()
        self._connecting = asyncio.Lock()
        self._restoring: asyncio.Task[None] | None = None

    async def take_up(self, jobs: Collection[Job]) -> None:
        """Go on with the runs that a former bennud has left, and with no others.

        Raises: OSError, RuntimeError if no writer can be started; it is tried again then.
        """
        self._jobs = {job.id: job for job in jobs}
        try:
            await self._connect(may_start=bool(jobs))
        except CANNOT_START:
            self._begin_restoring()  # their containers may be waiting already
            raise

    async def write(self, job: Job, pipe: int) -> None:
        """Have a run's log written from now on. Raises: OSError, RuntimeError if no writer can be started.

        `pipe` is a reading end of its pipe, which is taken over: the run may be over before the writer hears of it.
        """
        self._jobs[job.id] = job
        asked = self._note_run(job, pipe)
        if self._channel is not None:
            await self._send(asked.message, pipe)
            return
        try:
            await self._connect()  # tells what is asked
        except CANNOT_START:  # nobody is to be asked for it at its end
            del self._jobs[job.id]
            asked.answer.cancel()
            raise

    async def finish(self, container_id: str) -> None:
        """Return when everything that the container's run has written is in its log. Idempotent.

        A writer that does not get it done, because its disk does not, is not waited for any longer than dockerd waits.
        """
        if container_id in self._jobs:
            try:
                await self._ask({"finish": container_id}, FINISHES_WITHIN_S)
            except TimeoutError:
                log.warning("the log of container %s is not written to its end", container_id[:12])
            self._jobs.pop(container_id, None)

    def close(self) -> None:
        """Leave the writer to the next bennud; it ends by itself if no container runs."""
        if self._restoring is not None:
            self._restoring.cancel()
        for holding in self._holding:
            holding.cancel()
        self._jobs = {}
        self._drop()

    # --- the conversation -----------------------------------------------------------------------------------------

    def _note(self, message: dict[str, Any], pipe: int = -1) -> "_Asked":
        """Give a question a number; it is asked again of the next writer if this one dies."""
        number = next(self._numbers)
        asked = _Asked({**message, "ask": number}, asyncio.get_running_loop().create_future(), pipe)
        self._asked[number] = asked
        return asked

    def _note_run(self, job: Job, pipe: int) -> "_Asked":
        """Have a run told of, and its pipe held open until the writer has it."""
        asked = self._note({"write": job._asdict()}, pipe)
        holding = asyncio.get_running_loop().create_task(self._hold(asked), name=f"log of {job.id[:12]}")
        self._holding.add(holding)
        holding.add_done_callback(self._holding.discard)
        return asked

    def _note_runs(self) -> None:
        """Have all runs told of: whatever becomes of them, nothing in their pipes is lost between two writers."""
        noted = {asked.message["write"]["id"] for asked in self._asked.values() if asked.pipe >= 0}
        for job in self._jobs.values():
            if job.id not in noted:
                with contextlib.suppress(FileNotFoundError):  # its bundle is gone
                    self._note_run(job, os.open(job.pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    async def _hold(self, asked: "_Asked") -> None:
        """Keep a pipe open until the writer has it."""
        try:
            await asked.answer
        finally:
            self._asked.pop(asked.message["ask"], None)
            os.close(asked.pipe)

    async def _ask(self, message: dict[str, Any], limit_s: float) -> None:
        """Send a message and wait for the answer. Raises: TimeoutError."""
        asked = self._note(message)
        try:
            async with asyncio.timeout(limit_s):
                await self._send(asked.message)
                await asked.answer
        finally:
            self._asked.pop(asked.message["ask"], None)

    async def _send(self, message: dict[str, Any], pipe: int = -1) -> None:
        """Send a message; if the writer is gone, the next one is told everything anyway."""
        while self._channel is not None:
            try:
                send(self._channel, message, pipe)
                return
            except OSError as error:
                if error.errno not in FULL:
                    return
                await asyncio.sleep(FULL_PAUSE_S)

    def _hear(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop()
            self._begin_restoring()
            return
        message = json.loads(data)
        if "complaint" in message:
            log.warning("%s", message["complaint"])
        elif (asked := self._asked.get(message["answer"])) and not asked.answer.done():
            asked.answer.set_result(None)

    def _drop(self) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None

    # --- the writer's process -------------------------------------------------------------------------------------

    def _begin_restoring(self) -> None:
        self._restoring = asyncio.get_running_loop().create_task(self._restore(), name="log writer")

    async def _restore(self) -> None:
        """Start the next writer, because the last one is gone; containers may be waiting for it.

        One that was gone as soon as it was there may have died of what it is told: the next one is not told at once.
        """
        if time.monotonic() - self._connected_at < AGAIN_AFTER_S:
            await asyncio.sleep(AGAIN_AFTER_S)
        while self._jobs:
            try:
                await self._connect()
                return
            except CANNOT_START as error:
                log.error("the writer of the containers' logs cannot be started: %s", error)
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _connect(self, *, may_start: bool = True) -> None:
        """Have a writer at hand that knows all jobs, no others, and what is asked. Raises: OSError, RuntimeError."""
        async with self._connecting:
            if self._channel is not None:
                return
            if self._process is not None:
                self._process.poll()  # so that the kernel forgets it
            self._note_runs()
            found = await asyncio.to_thread(find_writer, self._folder)
            if found is None and not may_start:
                return
            channel = found or await self._start()
            channel.setblocking(False)
            self._channel, self._connected_at = channel, time.monotonic()
            asyncio.get_running_loop().add_reader(channel, self._hear)
            for asked in sorted(self._asked.values(), key=lambda asked: "write" not in asked.message):
                await self._send(asked.message, asked.pipe)
            await self._send({"only": list(self._jobs)})

    async def _start(self) -> socket.socket:
        channel, process = await asyncio.to_thread(start_writer, self._folder)
        self._process = process
        await self._enter(process.pid)
        return channel


def make_pipe(path: Path) -> int:
    """Create a run's pipe, and open the reading end that its conmon has to inherit.

    It keeps what was written while no writer lives, and conmon from being told of a broken pipe.
    """
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def find_writer(folder: Path) -> socket.socket | None:
    """Connect to the writer that lives, and have one of other sources leave. None: there is none. Blocks."""
    with _address(folder) as address, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        channel = _connect(address)
        if _is_of(channel, fingerprint()):
            return channel
        _have_leave(channel)
    return None


def start_writer(folder: Path) -> "tuple[socket.socket, subprocess.Popen[bytes]]":
    """Start a writer, when there is none, and connect to it. Blocks. Raises: OSError."""
    with _address(folder) as address, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        (folder / SOCKET).unlink(missing_ok=True)
        listening.bind(address)
        listening.listen()
        process = _start(listening.fileno(), folder, fingerprint())
        return _connect(address), process


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    """Name the socket through a descriptor: its path may have 107 bytes only."""
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET}"
    finally:
        os.close(directory)


def _connect(address: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.settimeout(ANSWERS_WITHIN_S)
        channel.connect(address)
    except BaseException:
        channel.close()
        raise
    return channel


def _is_of(channel: socket.socket, sources: str) -> bool:
    """Tell whether the writer there is of these sources."""
    with contextlib.suppress(OSError, ValueError):
        channel.send(b'{"ask": 0}')
        while data := channel.recv(MAX_MESSAGE):
            message = json.loads(data)
            if "answer" in message:
                return bool(message["sources"] == sources)
    return False


def _have_leave(channel: socket.socket) -> None:
    """Have a writer hand over to the next, and wait until it is gone."""
    with channel, contextlib.suppress(OSError):
        channel.send(b'{"leave": true}')
        while channel.recv(MAX_MESSAGE):
            pass


def _start(listening: int, folder: Path, sources: str) -> "subprocess.Popen[bytes]":
    arguments = [str(SOURCES), str(listening), str(folder), sources]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[listening],
        cwd="/",
        env={"LC_ALL": "C"},
        start_new_session=True,
    )
