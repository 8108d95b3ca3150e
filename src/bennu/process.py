"""The one place that starts helper programs: a list of arguments, never a shell, standard input closed."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bennu.errors import BennuError


@dataclass(frozen=True, slots=True)
class Done:
    """How a helper program ended. `exit_code` is negative for a death by that signal, as subprocess has it."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class HelperTimeout(BennuError):
    """A helper program did not end in its time and was killed."""


async def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Done:
    """Run a program to its end. On a timeout or a cancellation it is killed with its process group, and reaped.

    Raises: HelperTimeout; OSError if the program cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=cwd,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError:
        raise HelperTimeout(f"{Path(argv[0]).name} did not end within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            signal_group(process, signal.SIGKILL)
            await asyncio.shield(process.wait())
    assert process.returncode is not None
    return Done(process.returncode, stdout, stderr)


@contextlib.asynccontextmanager
async def started(
    argv: Sequence[str | Path],
    *,
    stdin: int | None = None,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    line_limit: int = 1 << 20,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program that talks while it runs. Leaving the block, however, kills its process group and reaps it.

    `stdin`, `stdout` and `stderr` are descriptors or asyncio's marks. Raises: OSError if it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        limit=line_limit,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            signal_group(process, signal.SIGKILL)
            await asyncio.shield(process.wait())


def signal_group(process: asyncio.subprocess.Process, signum: int) -> None:
    """Signal a child that leads a group, and all in that. Without effect once the child has been reaped.

    Until then its number is nobody else's; whether it has been is not asked of asyncio, which hears of it later.
    """
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.killpg(process.pid, signum)
