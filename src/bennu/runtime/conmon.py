"""Starts conmon, the small process that stays with a container: it owns its streams and records its end.

conmon forks away at once and belongs to nobody afterwards: its own session, its own control group, none of our
descriptors. It reports through a pipe whether the container could be created; it then waits, stopped at its own
entry, for `start`.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from bennu.errors import BennuError
from bennu.kernel.descriptor_io import wait_readable
from bennu.process import HelperTimeout
from bennu.runtime.descriptors import Descriptors

# The container's standard input is a named pipe of ours instead of conmon's: conmon would close its own at the end of
# any attached client, and at the end of this daemon too.
FEED_STDIN: Final = 'stdin=$1; shift; exec "$@" <"$stdin"'
CREATE_TIMEOUT_S: Final = 120


class ConmonReport(msgspec.Struct):
    """What conmon reports of a creation: the container's pid, or a negative number and the runtime's error."""

    data: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class ConmonRequest:
    """`runtime` is the OCI runtime's command with its global options. `log`: where its lines go; None: nowhere."""

    container_id: str
    bundle: Path
    pid_file: Path
    conmon_pid_file: Path
    exit_dir: Path
    runtime: Sequence[str]
    log: Path | None
    tty: bool
    stdin: Path | None


def conmon_argv(program: str, request: ConmonRequest) -> list[str]:
    """Build the command line. Pure."""
    runtime, *arguments = request.runtime
    if request.stdin is not None:
        arguments = ["-c", FEED_STDIN, "sh", str(request.stdin), runtime, *arguments]
        runtime = "/bin/sh"
    log = "none" if request.log is None else f"k8s-file:{request.log}"
    argv = [
        program,
        "--api-version",
        f"--cid={request.container_id}",
        f"--cuuid={request.container_id}",
        f"--name={request.container_id}",
        f"--bundle={request.bundle}",
        f"--container-pidfile={request.pid_file}",
        f"--conmon-pidfile={request.conmon_pid_file}",
        f"--exit-dir={request.exit_dir}",
        f"--log-path={log}",
        f"--runtime={runtime}",
        *(f"--runtime-arg={argument}" for argument in arguments),
        "--full-attach",
        "--no-sync-log",
    ]
    return [*argv, "--terminal"] if request.tty else argv


class Enter(Protocol):
    """Moves a process to its control group before it does anything."""

    async def __call__(self, pid: int) -> None: ...


async def run_conmon(request: ConmonRequest, *, enter: Enter, keep_fds: Sequence[int] = ()) -> ConmonReport:
    """Start conmon and wait until the container is created, or cannot be.

    `enter(pid)` is called before conmon forks; `keep_fds` stay open in conmon under the same numbers. After a
    cancellation or a timeout conmon may live: the caller ends it by its pid file.

    Raises: HelperTimeout; BennuError if conmon itself failed; OSError.
    """
    with Descriptors() as ours, Descriptors() as theirs:
        report = ours.add_pipe(theirs)
        gate = ours.add_pipe(theirs, readers_are_theirs=True)
        report_write, gate_read = theirs.all
        process = await _start(request, report_write, gate_read, keep_fds)
        try:
            theirs.close()
            await enter(process.pid)
            os.write(gate, b"\0")
            async with asyncio.timeout(CREATE_TIMEOUT_S):
                _, stderr = await process.communicate()
                return await _read_report(report, stderr)
        except TimeoutError:
            raise HelperTimeout(f"conmon did not create the container within {CREATE_TIMEOUT_S} s") from None
        finally:
            if process.returncode is None:
                # It may still wait at the gate, which opens when we close it.
                with contextlib.suppress(ProcessLookupError):
                    process.kill()


async def _start(request: ConmonRequest, report: int, gate: int, keep_fds: Sequence[int]) -> asyncio.subprocess.Process:
    """Start conmon, which waits at its `gate`; `report` is the pipe for its answer."""
    program = shutil.which("conmon")
    if program is None:
        raise BennuError("conmon is not installed")
    return await asyncio.create_subprocess_exec(
        *conmon_argv(program, request),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={
            **_temporary_folder(request.bundle),
            "PATH": os.environ.get("PATH", os.defpath),
            "_OCI_SYNCPIPE": str(report),
            "_OCI_STARTPIPE": str(gate),
        },
        cwd=request.bundle,
        pass_fds=(report, gate, *keep_fds),
        start_new_session=True,
    )


async def _read_report(descriptor: int, stderr: bytes) -> ConmonReport:
    """Read conmon's answer, one line: conmon keeps the pipe open for life."""
    got = b""
    while b"\n" not in got:
        try:
            piece = os.read(descriptor, 65536)
        except BlockingIOError:
            await wait_readable(descriptor)
            continue
        if not piece:
            break
        got += piece
    try:
        return msgspec.json.decode(got, type=ConmonReport)
    except msgspec.DecodeError:
        said = (stderr or got).decode(errors="replace").strip()
        raise BennuError(f"conmon failed: {said or 'it gave no reason'}") from None


def _temporary_folder(bundle: Path) -> dict[str, str]:
    """Put conmon's socket for the terminal into the bundle, if its path is not too long for a socket there."""
    return {"TMPDIR": str(bundle)} if len(str(bundle)) < 80 else {}
