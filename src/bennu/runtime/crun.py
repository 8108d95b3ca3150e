"""The OCI runtime, one process a call, each run to its end. No policy, no state, no retries: the caller decides.

crun is preferred; runc knows the same verbs and takes its place where crun is missing.
"""

import fcntl
import functools
import os
import shutil
from pathlib import Path
from typing import Final

from bennu.errors import BennuError
from bennu.process import Done, run
from bennu.runtime.failures import NotAlive, last_line

CALL_TIMEOUT_S: Final = 60
MFD_EXEC: Final = 0x10  # Linux 6.3; older kernels let everything in memory be run, and refuse the flag
_GONE: Final = (
    "does not exist",
    "no such process",
    "not running",
    "container not running",
    "process already finished",
    "no such file or directory",
)


def find_runtime(preferred: str) -> str:
    """Find the path of the runtime asked for, else of one that can stand in. Raises: BennuError."""
    for name in dict.fromkeys((preferred, "crun", "runc")):
        if path := shutil.which(name):
            return path
    raise BennuError("no OCI runtime is installed: neither crun nor runc was found")


@functools.cache
def sealed_copy(program: str) -> str:
    """Copy the program to memory that nobody can change; the answered path runs it as long as this process lives.

    A container must not get at crun's own file. So unless crun finds itself in such a copy it makes one each time and
    begins anew from there, which is a quarter of all that a probe costs. Answers `program` itself where the host does
    not run what is in memory.
    """
    content = Path(program).read_bytes()
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create("crun", flags | MFD_EXEC)
    except OSError:
        copy = os.memfd_create("crun", flags)
    with open(copy, "wb", closefd=False) as file:
        file.write(content)
    fcntl.fcntl(
        copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )
    path = f"/proc/{os.getpid()}/fd/{copy}"
    if os.access(path, os.X_OK):
        return path
    os.close(copy)
    return program


class OciRuntime:
    """`root` holds the runtime's own state, so that two engines on a host do not meet."""

    def __init__(self, program: str, root: Path) -> None:
        self.program = program
        self.root = root
        self.is_crun = Path(program).name == "crun"

    @property
    def command(self) -> list[str]:
        """The program with its global options; for calls that this daemon makes itself."""
        return [sealed_copy(self.program) if self.is_crun else self.program, *self.options]

    @property
    def command_for_others(self) -> list[str]:
        """The same for a process that may outlive this daemon."""
        return [self.program, *self.options]

    @property
    def options(self) -> list[str]:
        return [f"--root={self.root}", *(["--cgroup-manager=cgroupfs"] if self.is_crun else [])]

    async def start(self, container_id: str) -> None:
        """Let a created container run. Raises: NotAlive, BennuError."""
        await self._call("start", container_id)

    async def kill(self, container_id: str, signum: int) -> None:
        """Signal the container's first process. Raises: NotAlive, BennuError."""
        await self._call("kill", container_id, str(signum))

    async def delete(self, container_id: str) -> None:
        """Kill what lives and forget the container. A container that is not known is no error. Raises: BennuError."""
        done = await run([*self.command, "delete", "--force", container_id], timeout_s=CALL_TIMEOUT_S)
        if done.exit_code != 0 and not _means_gone(done):
            raise _failure("delete", done)

    async def update(self, container_id: str, resources: bytes) -> None:
        """Change the limits of a living container; `resources` is the OCI `linux.resources` object as JSON."""
        done = await run(
            [*self.command, "update", "--resources=-" if not self.is_crun else "--resources=/dev/stdin", container_id],
            timeout_s=CALL_TIMEOUT_S,
            stdin=resources,
        )
        if done.exit_code != 0:
            raise _failure("update", done)

    async def _call(self, verb: str, *arguments: str) -> None:
        done = await run([*self.command, verb, *arguments], timeout_s=CALL_TIMEOUT_S)
        if done.exit_code == 0:
            return
        raise NotAlive(_said(done)) if _means_gone(done) else _failure(verb, done)


def _said(done: Done) -> str:
    return last_line(done.stderr.decode(errors="replace"))


def _means_gone(done: Done) -> bool:
    said = _said(done).lower()
    return any(words in said for words in _GONE)


def _failure(verb: str, done: Done) -> BennuError:
    return BennuError(f"OCI runtime {verb} failed: {_said(done) or f'exit status {done.exit_code}'}")
