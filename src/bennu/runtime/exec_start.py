"""Starting a further process in a container through `crun exec`, and knowing for certain whether it started.

The runtime writes the process's pid only when everything but its program is set up, and its errors into a log; both
are pipes of ours. That a program cannot be executed shows after that. So a start counts when the process runs another
program than the runtime's own.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.errors import BennuError
from bennu.runtime.exec import ExecRequest
from bennu.runtime.failures import exec_failure
from bennu.runtime.paths import read_pid
from bennu.runtime.waiting import wait_readable

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
    group: str = "",
) -> Started:
    """Start it with `command`, the runtime and its global options; `group` names a control group below the container's.

    `folder` takes the terminal's socket while it starts. A failure or a cancellation leaves no process.
    Raises: RuntimeFailure in runc's words.
    """
    with _Descriptors() as theirs, _Descriptors() as mine, contextlib.ExitStack() as stack:
        log = mine.add_pipe(theirs)
        pid_pipe = mine.add_pipe(theirs)
        config = theirs.add(_memory_file(msgspec.json.encode(process)))
        log_write, pid_write = theirs.all[:2]
        # runc renames its pid file into place, so it needs a real one.
        pid_file = None if Path(command[0]).name == "crun" else folder / f"exec-{secrets.token_hex(4)}.pid"
        options = [f"--pid-file={pid_file or f'/proc/self/fd/{pid_write}'}", f"--process=/proc/self/fd/{config}"]
        options += [f"--cgroup={group}"] if group else []
        inherited = [log_write, pid_write, config]
        streams = _Streams()
        if request.tty:
            place = mine.add(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            path = f"/proc/self/fd/{place}/tty-{secrets.token_hex(4)}"
            streams.listener = stack.enter_context(_listening(path))
            options.append(f"--console-socket={path}")
            inherited.append(place)
        else:
            streams.open_pipes(mine, theirs, request)
        child = await asyncio.create_subprocess_exec(
            *command,
            f"--log=/proc/self/fd/{log_write}",
            "--log-format=json",
            "exec",
            *options,
            container_id,
            stdin=streams.theirs[0],
            stdout=streams.theirs[1],
            stderr=streams.theirs[2],
            pass_fds=inherited,
            start_new_session=True,
        )
        try:
            theirs.close()
            async with asyncio.timeout(START_TIMEOUT_S):
                pid = await _read_pid(pid_pipe, pid_file)
                await _wait_executed(pid, child, log, request, process)
            if streams.listener is not None:
                streams.stdin = mine.add(_receive_terminal(streams.listener))
                streams.outputs = {streams.stdin: 1}
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await asyncio.shield(child.wait())
            raise
        mine.give_away(streams.stdin, *streams.outputs)
        return Started(child, pid, streams.outputs, streams.stdin)


async def _read_pid(pipe: int, file: Path | None) -> int:
    """The pid the runtime reports through the pipe, or in the file. 0: it ended without, and closed the pipe."""
    if file is None:
        await wait_readable(pipe)
        return int(os.read(pipe, 32) or b"0")
    try:
        while True:
            if pid := read_pid(file):
                return pid
            with contextlib.suppress(BlockingIOError):
                if not os.read(pipe, 1):
                    return read_pid(file)
            await asyncio.sleep(0.002)
    finally:
        file.unlink(missing_ok=True)


async def _wait_executed(
    pid: int, child: asyncio.subprocess.Process, log: int, request: ExecRequest, process: Mapping[str, Any]
) -> None:
    """Return when the new process runs its program, or has run it. Raises: RuntimeFailure."""
    if pid and await _executes(pid, child.pid):
        return
    await child.wait()
    said = _read_errors(log)
    if said or not pid:
        raise exec_failure(said, request.args, process["cwd"])


async def _executes(pid: int, runtime_pid: int) -> bool:
    """Wait until a process runs another program than the runtime. False: it ended, before or after that."""
    while True:
        try:
            if not Path(f"/proc/{pid}/exe").samefile(f"/proc/{runtime_pid}/exe"):
                return True
        except OSError:
            return False
        await asyncio.sleep(0.0005)


def _read_errors(log: int) -> str:
    """What the runtime logged as errors; warnings do not count."""
    try:
        lines = os.read(log, 1 << 16).splitlines()
    except BlockingIOError:
        return ""
    errors = []
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            entry = msgspec.json.decode(line, type=_LogEntry)
            if entry.level == "error":
                errors.append(entry.msg)
    return "\n".join(errors)


class _LogEntry(msgspec.Struct):
    level: str = ""
    msg: str = ""


# --- descriptors --------------------------------------------------------------------------------------------------


class _Descriptors:
    """Descriptors that are closed in the end, except those given away."""

    def __init__(self) -> None:
        self.all: list[int] = []

    def __enter__(self) -> "_Descriptors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, descriptor: int) -> int:
        self.all.append(descriptor)
        return descriptor

    def add_pipe(self, writers: "_Descriptors", *, readers_are_theirs: bool = False) -> int:
        """A pipe with our end here, not blocking, and the other end in `writers`."""
        read, write = os.pipe()
        mine, other = (write, read) if readers_are_theirs else (read, write)
        os.set_blocking(mine, False)
        writers.add(other)
        return self.add(mine)

    def give_away(self, *descriptors: int) -> None:
        self.all = [one for one in self.all if one not in descriptors]

    def close(self) -> None:
        for descriptor in self.all:
            os.close(descriptor)
        self.all = []


class _Streams:
    """What the runtime gets as its three streams, and our ends of them."""

    def __init__(self) -> None:
        self.theirs = [asyncio.subprocess.DEVNULL] * 3
        self.outputs: dict[int, int] = {}
        self.stdin = -1
        self.listener: socket.socket | None = None

    def open_pipes(self, mine: _Descriptors, theirs: _Descriptors, request: ExecRequest) -> None:
        if request.stdin:
            self.stdin = mine.add_pipe(theirs, readers_are_theirs=True)
            self.theirs[0] = theirs.all[-1]
        if request.output:
            for stream in (1, 2):
                self.outputs[mine.add_pipe(theirs)] = stream
                self.theirs[stream] = theirs.all[-1]


def _memory_file(content: bytes) -> int:
    """A descriptor of a file that exists only as long as someone has it open."""
    descriptor = os.memfd_create("process", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return descriptor


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    """Where the runtime will send its terminal to, for as long as that takes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        try:
            listener.listen(1)
            listener.setblocking(False)
            yield listener
        finally:
            Path(path).unlink()


def _receive_terminal(listener: socket.socket) -> int:
    """The runtime sends it before it reports the pid, so it is here. Raises: BennuError."""
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
