"""A further process in a running container: what to run, and the process while it runs.

Such a process is the child of a waiting `crun exec`, whose end brings its exit code. It does not outlive its daemon's
interest: its streams are pipes (or a terminal) of ours.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bennu.kernel.descriptor_io import DescriptorWriter
from bennu.runtime.spec import HOME_ANNOTATION, capability_sets, has_variable, replace_env
from bennu.runtime.users import User

KEPT_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """What to run. Empty `user` and `cwd` mean the container's; `env` changes the container's variables."""

    args: Sequence[str]
    env: Sequence[str] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False  # else /dev/null
    output: bool = True  # else /dev/null
    privileged: bool = False
    console_size: tuple[int, int] = (0, 0)  # height, width


def plan_process(
    spec: Mapping[str, Any], request: ExecRequest, user: User | None, available: Sequence[str]
) -> dict[str, Any]:
    """Write the OCI process object, from the container's configuration. Pure. `user` None: the container's own."""
    base = spec["process"]
    changes = [*(("TERM=xterm",) if request.tty else ()), *request.env]
    env = replace_env(base["env"], changes)
    uid = base["user"]["uid"] if user is None else user.uid
    if user is not None and HOME_ANNOTATION in spec.get("annotations", {}) and not has_variable(request.env, "HOME"):
        env = replace_env(env, [f"HOME={user.home}"])
    bounding = list(available) if request.privileged else base["capabilities"]["bounding"]
    process = {
        "terminal": request.tty,
        "user": base["user"] if user is None else user_object(user),
        "args": list(request.args),
        "env": env,
        "cwd": request.cwd or base["cwd"],
        "capabilities": capability_sets(bounding, 0 if request.privileged else uid),
        "noNewPrivileges": base["noNewPrivileges"] and not request.privileged,
    }
    if "rlimits" in base:
        process["rlimits"] = base["rlimits"]
    if request.tty and any(request.console_size):
        process["consoleSize"] = {"height": request.console_size[0], "width": request.console_size[1]}
    return process


def user_object(user: User) -> dict[str, Any]:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}


class ExecProcess:
    """One process in a container, for one reader and one writer task; `pid` is the host's."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        pid: int,
        outputs: Mapping[int, int],
        stdin: int,
        signal_it: Callable[[int], None],
    ) -> None:
        """Take over one process. `outputs`: our descriptors → stream number (1, 2); a terminal is 1.

        `stdin`: ours, -1 for none. `signal_it(signum)` signals the process unless it has ended.
        """
        self.pid = pid
        self._outputs = dict(outputs)
        self._signal_it = signal_it
        self._terminal = stdin if stdin in outputs else -1
        self._writer = DescriptorWriter(stdin, PIECE_BYTES, owned=stdin not in outputs) if stdin >= 0 else None
        self._loop = asyncio.get_running_loop()
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._paused = False
        self._discarding = False
        self._arrived = asyncio.Event()
        self._exit = asyncio.ensure_future(process.wait())  # ends with the process
        for descriptor in self._outputs:
            self._loop.add_reader(descriptor, self._take, descriptor)
        self._exit.add_done_callback(lambda _: self._ended())

    # --- its streams ----------------------------------------------------------------------------------------------

    async def read(self) -> tuple[int, bytes] | None:
        """Wait for the next (stream, bytes). None: it has ended or closed its output, and there is no more."""
        while not self._kept:
            if not self._outputs:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        stream, data = self._kept.popleft()
        self._kept_bytes -= len(data)
        if self._paused and self._kept_bytes < KEPT_BYTES // 2:
            self._paused = False
            for descriptor in self._outputs:
                self._loop.add_reader(descriptor, self._take, descriptor)
        return stream, data

    async def write(self, data: bytes) -> None:
        """Write to its stdin; waits while it is full. Raises: OSError when it reads no more."""
        if self._writer is not None:
            await self._writer.write(data)

    async def close_stdin(self) -> None:
        """End its stdin; that of a terminal stays. Idempotent."""
        if self._writer is not None and self._terminal < 0:
            self._writer.close()
            self._writer = None

    def discard(self) -> None:
        """Drop its output from now on, so that it is not held up when nobody reads any more."""
        self._discarding = True
        self._kept.clear()
        self._kept_bytes = 0
        if self._paused:
            self._paused = False
            for descriptor in self._outputs:
                self._loop.add_reader(descriptor, self._take, descriptor)

    async def resize(self, height: int, width: int) -> None:
        """Set the size of its terminal; without one nothing happens."""
        if self._terminal >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _take(self, descriptor: int) -> bool:
        """Read once what is there. False: there was nothing."""
        try:
            data = os.read(descriptor, PIECE_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # how a terminal ends
                raise
            data = b""
        if not data:
            self._close_output(descriptor)
            return False
        if not self._discarding:
            self._kept.append((self._outputs[descriptor], data))
            self._kept_bytes += len(data)
            self._arrived.set()
            if self._kept_bytes >= KEPT_BYTES and not self._paused:
                self._paused = True
                for other in self._outputs:
                    self._loop.remove_reader(other)
        return True

    def _close_output(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        del self._outputs[descriptor]
        if descriptor == self._terminal:
            self._terminal = -1
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        os.close(descriptor)
        self._arrived.set()

    # --- its end --------------------------------------------------------------------------------------------------

    async def wait(self) -> int:
        """Wait for its exit code; 128+n if signal n killed it. All it wrote can then be read."""
        code = await asyncio.shield(self._exit)
        return code if code >= 0 else 128 - code

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Signal it. No error if it has ended."""
        self._signal_it(signum)

    def _ended(self) -> None:
        """Take what it left in the pipes. What it left running does not keep its streams open."""
        for descriptor in list(self._outputs):
            while self._take(descriptor):
                pass
            if descriptor in self._outputs:
                self._close_output(descriptor)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
