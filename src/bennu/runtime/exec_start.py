"""Starts a further process in a container through `crun exec`, and tells for certain whether it started.

The runtime writes the process's pid only when everything but its program is set up, and its errors into a log; both
are pipes of ours. That a program cannot be executed shows after that. So a start counts when the process runs another
program than the runtime's own.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.errors import BennuError
from bennu.runtime.descriptors import Descriptors
from bennu.runtime.exec import ExecRequest
from bennu.runtime.exec_report import read_errors, read_new_pid
from bennu.runtime.failures import exec_failure

START_TIMEOUT_S: Final = 30


@dataclass(slots=True)
class Started:
    """The runtime's process, the pid of the new one, and our ends of its streams; the receiver owns them."""

    process: asyncio.subprocess.Process
    pid: int
    outputs: dict[int, int]  # descriptor → stream
    stdin: int  # -1: none


async def start_exec(
    command: Sequence[str],
    container_id: str,
    process: Mapping[str, Any],
    request: ExecRequest,
    *,
    folder: Path,
    pid_in_file: bool,
) -> Started:
    """Start the process with `command`, the runtime and its global options.

    `folder` takes the terminal's socket while it starts; `pid_in_file`: the runtime needs a real pid file, for it
    renames it into place (runc). A failure or a cancellation leaves no process.
    Raises: RuntimeFailure in runc's words.
    """
    with Descriptors() as theirs, Descriptors() as mine, contextlib.ExitStack() as stack:
        log, pid_pipe = mine.add_pipe(theirs), mine.add_pipe(theirs)
        log_write, pid_write = theirs.all
        config = theirs.add(_memory_file(msgspec.json.encode(process)))
        pid_file = folder / f"exec-{secrets.token_hex(4)}.pid" if pid_in_file else None
        options = [f"--pid-file={pid_file or f'/proc/self/fd/{pid_write}'}", f"--process=/proc/self/fd/{config}"]
        streams = _Streams()
        if request.tty:
            options.append(f"--console-socket={streams.open_terminal(mine, folder, stack)}")
        else:
            streams.open_pipes(mine, theirs, request)
        logging = (f"--log=/proc/self/fd/{log_write}", "--log-format=json")
        child = await asyncio.create_subprocess_exec(
            *(*command, *logging, "exec", *options, container_id),
            stdin=streams.theirs[0],
            stdout=streams.theirs[1],
            stderr=streams.theirs[2],
            pass_fds=[log_write, pid_write, config, *streams.inherited],
            start_new_session=True,
        )
        async with _ended_on_failure(child):
            theirs.close()
            async with asyncio.timeout(START_TIMEOUT_S):
                pid = await read_new_pid(pid_pipe, pid_file)
                await _wait_executed(pid, child, log, request, process)
            streams.receive_terminal(mine)
        mine.give_away(streams.stdin, *streams.outputs)
        return Started(child, pid, streams.outputs, streams.stdin)


@contextlib.asynccontextmanager
async def _ended_on_failure(child: asyncio.subprocess.Process) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await asyncio.shield(child.wait())
        raise


async def _wait_executed(
    pid: int, child: asyncio.subprocess.Process, log: int, request: ExecRequest, process: Mapping[str, Any]
) -> None:
    """Return when the new process runs its program, or has run it. Raises: RuntimeFailure."""
    if pid and await _executes(pid, child.pid):
        return
    await child.wait()
    said = read_errors(log)
    if said or not pid:
        raise exec_failure(said, request.args, process["cwd"])


async def _executes(pid: int, runtime_pid: int) -> bool:
    """Wait until a process runs another program than the runtime's. False: it ended, before or after that."""
    while True:
        try:
            if not Path(f"/proc/{pid}/exe").samefile(f"/proc/{runtime_pid}/exe"):
                return True
        except OSError:
            return False
        await asyncio.sleep(0.0005)


# --- its streams --------------------------------------------------------------------------------------------------


class _Streams:
    """The three streams that the runtime gets, and our ends of them."""

    def __init__(self) -> None:
        self.theirs = [asyncio.subprocess.DEVNULL] * 3
        self.outputs: dict[int, int] = {}
        self.stdin = -1
        self.inherited: list[int] = []  # what the runtime needs besides
        self._listener: socket.socket | None = None

    def open_pipes(self, mine: Descriptors, theirs: Descriptors, request: ExecRequest) -> None:
        if request.stdin:
            self.stdin = mine.add_pipe(theirs, readers_are_theirs=True)
            self.theirs[0] = theirs.all[-1]
        if request.output:
            for stream in (1, 2):
                self.outputs[mine.add_pipe(theirs)] = stream
                self.theirs[stream] = theirs.all[-1]

    def open_terminal(self, mine: Descriptors, folder: Path, stack: contextlib.ExitStack) -> str:
        """Listen for a terminal; answer the path of the socket that the runtime sends it to."""
        place = mine.add(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        path = f"/proc/self/fd/{place}/tty-{secrets.token_hex(4)}"  # a socket's own path must be short
        self._listener = stack.enter_context(_listening(path))
        self.inherited.append(place)
        return path

    def receive_terminal(self, mine: Descriptors) -> None:
        """Receive the terminal, if one was opened; both directions go through it from then on. Raises: BennuError."""
        if self._listener is not None:
            self.stdin = mine.add(_receive_terminal(self._listener))
            self.outputs = {self.stdin: 1}


def _memory_file(content: bytes) -> int:
    """Open a file that exists only as long as someone has it open."""
    descriptor = os.memfd_create("process", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return descriptor


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    """Listen where the runtime will send its terminal, for the block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        try:
            listener.listen(1)
            listener.setblocking(False)
            yield listener
        finally:
            Path(path).unlink()


def _receive_terminal(listener: socket.socket) -> int:
    """Receive the terminal, which the runtime sends before it reports the pid. Raises: BennuError."""
    try:
        connection, _ = listener.accept()
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
    except BlockingIOError:
        descriptors = []
    if not descriptors:
        raise BennuError("the runtime did not set up a terminal")
    os.set_blocking(descriptors[0], False)
    return descriptors[0]
