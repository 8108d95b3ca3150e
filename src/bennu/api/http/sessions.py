"""Joins a client's connection with a process's standard streams, for attach and exec alike."""

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from bennu.api.http.detach_keys import DetachKeyMatcher
from bennu.api.http.streams import STDERR, frame

LAST_INPUT_S: Final = 10  # for a process to take what a client that is gone had sent


class StreamClient(Protocol):
    """The client's side: a hijacked connection, or a web socket."""

    gone: asyncio.Event

    async def read(self) -> bytes | None:
        """Wait for what the client sends; None when it will send no more."""
        ...

    async def write(self, data: bytes) -> None:
        """Send to the client. Raises: ConnectionError once it is gone."""
        ...


class ProcessStreams(Protocol):
    """The process's side."""

    async def read(self) -> tuple[int, bytes] | None:
        """Wait for the next (stream, bytes): 1 is stdout or the terminal, 2 stderr; None at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Write to the process's stdin. Raises: OSError when the process is gone."""
        ...

    async def close_stdin(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """What the client asked for. `framed`: output is multiplexed; else both streams come as they are."""

    framed: bool
    stdin: bool
    stdout: bool
    stderr: bool
    keys: bytes | None = None  # that leave the session; None: there are none
    leave_at_end_of_input: bool = False  # else the end of input closes the process's stdin and output goes on


class SessionEnd(Enum):
    """Why a session ended."""

    OUTPUT = "the process has no more output"
    DETACHED = "the client left by its keys"
    LEFT = "the client closed its input, or is gone"


async def join(connection: StreamClient, process: ProcessStreams, options: AttachOptions) -> SessionEnd:
    """Carry bytes both ways until one side ends. The connection stays open; no task is left running."""
    output = asyncio.ensure_future(_carry_output(connection, process, options))
    gone = asyncio.ensure_future(connection.gone.wait())
    waiting: set[asyncio.Future[Any]] = {output, gone}
    entry = asyncio.ensure_future(_carry_input(connection, process, options)) if options.stdin else None
    if entry:
        waiting.add(entry)
    try:
        while True:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if output in done:
                return output.result()
            if entry in done and entry is not None and (reason := entry.result()) is not None:
                return reason
            if gone in done:
                await _finish_input(entry)
                return SessionEnd.LEFT
    finally:
        for task in (output, gone, entry):
            if task is not None:
                task.cancel()
        await asyncio.wait([task for task in (output, gone, entry) if task is not None])


async def _finish_input(entry: asyncio.Future[SessionEnd | None] | None) -> None:
    """Carry on what a client had sent before it went, for at most LAST_INPUT_S."""
    if entry is not None:
        await asyncio.wait([entry], timeout=LAST_INPUT_S)


async def _carry_output(connection: StreamClient, process: ProcessStreams, options: AttachOptions) -> SessionEnd:
    try:
        while (item := await process.read()) is not None:
            stream, data = item
            if options.stderr if stream == STDERR else options.stdout:
                await connection.write(frame(stream, data) if options.framed else data)
    except ConnectionError:
        return SessionEnd.LEFT
    return SessionEnd.OUTPUT


async def _carry_input(connection: StreamClient, process: ProcessStreams, options: AttachOptions) -> SessionEnd | None:
    """Carry the client's input to the process. None: the input has ended, and the output may go on."""
    watch = DetachKeyMatcher(options.keys) if options.keys else None
    while (data := await connection.read()) is not None:
        left = False
        if watch:
            data, left = watch.feed(data)
        try:
            if data:
                await process.write(data)
        except OSError:
            return None  # the process reads no more; its output tells the rest
        if left:
            return SessionEnd.DETACHED
    if options.leave_at_end_of_input:
        return SessionEnd.LEFT
    with contextlib.suppress(OSError):
        await process.close_stdin()
    return None
