"""The probing of a container: a command in it, or a request from the daemon in the container's network."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from bennu.engine.record import HealthProbe
from bennu.errors import BennuError
from bennu.lifecycle.health import TIMED_OUT, cut_output, timeout_text
from bennu.lifecycle.probe import (
    OUTPUT_BYTES,
    CommandProbe,
    HttpProbe,
    Probe,
    TcpProbe,
    http_request,
    is_whole,
    join_address,
    judge_answer,
)
from bennu.network.namespaces.netns import enter, in_own_thread
from bennu.runtime import ProbeExec, Runtime

PROBES_AT_ONCE: Final = 32
PLACE_S: Final = 1.0


class ProbePlaces:
    """The bound on the probes of all containers: at most `PROBES_AT_ONCE` hold a place, the others wait for one.

    A probe costs while it starts. One that takes longer than `PLACE_S` gives its place to the next: however many
    hang, they delay no other probe. Its counts are the source of the metrics.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(PROBES_AT_ONCE)
        self.waiting = 0
        self.running = 0
        self.slow = 0  # of those that run: their places are others' now
        self.finished = 0

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Hold a place for one probe, until its end."""
        slow = False
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

        def give_back() -> None:
            nonlocal slow
            slow = True
            self.slow += 1
            self._free.release()

        timer = asyncio.get_running_loop().call_later(PLACE_S, give_back)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self.finished += 1
            timer.cancel()
            if slow:
                self.slow -= 1
            else:
                self._free.release()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of a probe. Instants are wall clock. `exit_code` -1: it was not done in time, or could not be run."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str


def as_shown(result: ProbeResult) -> HealthProbe:
    """Make an entry of `State.Health.Log`."""
    return HealthProbe(
        start=local_time(result.start_ns),
        end=local_time(result.end_ns),
        exit_code=result.exit_code,
        output=result.output,
    )


def local_time(instant_ns: int) -> str:
    """Format an instant as dockerd does for probe times: RFC 3339, nine digits, in the daemon's own zone."""
    seconds, nanos = divmod(instant_ns, 10**9)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + f".{nanos:09d}{zone}"


class Prober:
    """The runner of one probe of one container run, repeated, once at a time."""

    def __init__(
        self, runtime: Runtime, container_id: str, pid: int, probe: Probe, *, timeout_ns: int, purpose: str
    ) -> None:
        """Prepare the probe. `pid`: the container's first process. `purpose`: a word unique among its probers."""
        self._runtime = runtime
        self._container_id = container_id
        self._pid = pid
        self._probe = probe
        self._timeout_ns = timeout_ns
        self._purpose = purpose
        self._command: ProbeExec | None = None

    async def run(self) -> ProbeResult:
        """Run the probe to its end or timeout; nothing of it is left then, nor after a cancellation. Raises nothing."""
        start_ns = time.time_ns()
        try:
            if isinstance(self._probe, CommandProbe):
                code, output = await self._run_command(self._probe)
            else:
                code, output = await self._ask(self._probe)
        except (BennuError, OSError) as error:
            code, output = TIMED_OUT, str(error)
        return ProbeResult(start_ns, time.time_ns(), code, output)

    async def _run_command(self, probe: CommandProbe) -> tuple[int, str]:
        if self._command is None:
            self._command = self._runtime.execs.prepare_probe(self._container_id, probe.args, name=self._purpose)
        try:
            ran = await self._command.run(self._timeout_ns / 1e9, keep_bytes=OUTPUT_BYTES)
        except TimeoutError:
            return TIMED_OUT, f"timed out starting health check for container {self._container_id}"
        if ran.exit_code is None:
            return TIMED_OUT, timeout_text(self._timeout_ns, cut_output(ran.output))
        return ran.exit_code, cut_output(ran.output)

    async def _ask(self, probe: HttpProbe | TcpProbe) -> tuple[int, str]:
        try:
            async with asyncio.timeout(self._timeout_ns / 1e9):
                with contextlib.closing(await _connect(self._pid, probe.host, probe.port)) as connection:
                    if isinstance(probe, TcpProbe):
                        return 0, f"connected to {join_address(probe.host, probe.port)}"
                    return await _request(connection, probe)
        except TimeoutError:
            return TIMED_OUT, timeout_text(self._timeout_ns, "")
        except OSError as error:
            return 1, os.strerror(error.errno) if error.errno else str(error)


async def _connect(pid: int, host: str, port: int) -> socket.socket:
    """Connect from inside the network namespace of a process. Raises: OSError."""

    def make() -> socket.socket:
        enter(f"/proc/{pid}/ns/net")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    connection = await in_own_thread(make)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (host, port))
    except BaseException:
        connection.close()
        raise
    return connection


async def _request(connection: socket.socket, probe: HttpProbe) -> tuple[int, str]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, http_request(probe))
    answer = b""
    while not is_whole(probe, answer) and (piece := await loop.sock_recv(connection, OUTPUT_BYTES)):
        answer += piece
    code, output = judge_answer(probe, answer)
    return code, cut_output(output)
