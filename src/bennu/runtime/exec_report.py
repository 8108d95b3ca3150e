"""Reads what `crun exec` reports as it starts a process: the pid through one pipe, errors through another."""

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec

from bennu.kernel.descriptor_io import wait_readable
from bennu.runtime.bundle import read_pid


async def read_new_pid(pipe: int, file: Path | None) -> int:
    """Read the pid from the pipe, or from the file. 0: the runtime ended without one."""
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


def read_errors(log: int) -> str:
    """Read what the runtime logged as errors; warnings do not count."""
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
