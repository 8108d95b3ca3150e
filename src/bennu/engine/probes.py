"""Running one health probe: a command in the container, or a request from the daemon in the container's network."""

import asyncio
import contextlib
import os
import socket
import time
from dataclasses import dataclass
from typing import Final

from bennu.errors import BennuError
from bennu.lifecycle.health import (
    OUTPUT_BYTES,
    TIMED_OUT,
    CommandProbe,
    HttpProbe,
    Probe,
    TcpProbe,
    cut_output,
    timeout_text,
)
from bennu.network.netns import enter, in_own_thread
from bennu.runtime import ExecProcess, ExecRequest, Runtime

START_TIMEOUT_S: Final = 30  # for the setting up of an exec, before the probe's own clock begins; dockerd's


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Instants are wall clock. `exit_code` -1: it was not done in time, or could not be run."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str


async def run_probe(runtime: Runtime, container_id: str, pid: int, probe: Probe, timeout_ns: int) -> ProbeResult:
    """Run it to its end or its timeout; then nothing of it is left, also after a cancellation. Never raises."""
    start_ns = time.time_ns()
    try:
        if isinstance(probe, CommandProbe):
            code, output = await _run_command(runtime, container_id, probe, timeout_ns)
        else:
            async with asyncio.timeout(timeout_ns / 1e9):
                code, output = await _ask(pid, probe)
    except TimeoutError:
        code, output = TIMED_OUT, timeout_text(timeout_ns, "")
    except BennuError as error:
        code, output = TIMED_OUT, str(error)
    except OSError as error:
        code, output = 1, os.strerror(error.errno) if error.errno else str(error)
    return ProbeResult(start_ns, time.time_ns(), code, output)


async def _run_command(runtime: Runtime, container_id: str, probe: CommandProbe, timeout_ns: int) -> tuple[int, str]:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            process = await runtime.exec(container_id, ExecRequest(args=probe.args, contained=True))
    except TimeoutError:
        return TIMED_OUT, f"timed out starting health check for container {container_id}"
    output = bytearray()

    async def collect() -> int:
        while (piece := await process.read()) is not None:
            if len(output) <= OUTPUT_BYTES:
                output.extend(piece[1])
        return await process.wait()

    try:
        async with asyncio.timeout(timeout_ns / 1e9):
            return await collect(), cut_output(bytes(output))
    except TimeoutError:
        return TIMED_OUT, timeout_text(timeout_ns, cut_output(bytes(output)))
    finally:
        # Also after a success: what the probe left in the background must not add up.
        await asyncio.shield(_end(process))


async def _end(process: ExecProcess) -> None:
    await process.kill()
    await process.wait()
    process.discard()


async def _ask(pid: int, probe: HttpProbe | TcpProbe) -> tuple[int, str]:
    connection = await _connect(pid, probe.host, probe.port)
    with contextlib.closing(connection):
        if isinstance(probe, TcpProbe):
            return 0, f"connected to {probe.host}:{probe.port}"
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            return await _request(reader, writer, probe)
        finally:
            writer.close()


async def _connect(pid: int, host: str, port: int) -> socket.socket:
    """A connection from inside the network namespace of a process. Raises: OSError."""

    def make() -> socket.socket:
        enter(f"/proc/{pid}/ns/net")
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    connection = await in_own_thread(make)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (host, port))
    except BaseException:
        connection.close()
        raise
    return connection


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, probe: HttpProbe) -> tuple[int, str]:
    """One request on a connection of its own; only the status line decides."""
    headers = {"Host": f"{probe.host}:{probe.port}", "User-Agent": "bennu-health", "Connection": "close"}
    headers |= dict(probe.headers)
    lines = [f"{probe.method} {probe.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = bytearray()
    while len(answer) <= OUTPUT_BYTES and (piece := await reader.read(OUTPUT_BYTES)):
        answer += piece
    words = bytes(answer).partition(b"\r\n")[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return 1, "the answer is not HTTP"
    status = int(words[1])
    fits = any(first <= status <= last for first, last in probe.expected)
    body = bytes(answer).partition(b"\r\n\r\n")[2]
    return (0 if fits else 1), cut_output(f"HTTP {status}: ".encode() + body)
