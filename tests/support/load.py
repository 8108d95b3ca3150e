"""Load on an HTTP server from a process of its own, every answer and every failure counted.

    with Load("127.0.0.1", 8080, workers=16) as load: …update the service…
    load.result.failures == []

`rate` is the most requests begun each second over all workers; a machine that gives less is measured, not failed.
A worker's next request begins when its last one was answered. With `keep_alive` a worker keeps its connection while
the server lets it. When a connection that was used before ends without a byte of the answer, the request is sent once
more over a new one, as every browser does; what happens to a request over a new connection is never forgiven.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

REQUEST_TIMEOUT_S = 15.0
KEPT_FAILURES = 40


@dataclass
class Result:
    """What came of it. `failures` are told with the second they happened in; `unfinished` were cut by the end."""

    requests: int = 0
    seconds: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    connections: int = 0
    repeated: int = 0  # requests sent again, because the connection they were to reuse had ended

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


class Load:
    """The generator's process; `result` is there after the block."""

    def __init__(
        self, host: str, port: int, *, workers: int = 16, rate: float = 1500, keep_alive: bool = False, path: str = "/"
    ) -> None:
        self._options = {"host": host, "port": port, "workers": workers, "rate": rate, "path": path}
        self._options["keep_alive"] = keep_alive
        self.result = Result()

    def __enter__(self) -> "Load":
        argv = [sys.executable, str(Path(__file__)), json.dumps(self._options)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has begun
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            out, _ = self._process.communicate(timeout=REQUEST_TIMEOUT_S * 2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        self.result = Result(**json.loads(out))


class Generator:
    """Inside the process: the workers and their count."""

    def __init__(self, host: str, port: int, workers: int, rate: float, keep_alive: bool, path: str) -> None:
        self._address = (host, port)
        self._workers = workers
        self._pause_s = workers / rate
        self._keep_alive = keep_alive
        connection = "keep-alive" if keep_alive else "close"
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n".encode()
        self._stopping = False
        self._answers: Counter[str] = Counter()
        self.result = Result()

    async def run(self) -> Result:
        """Until stdin closes."""
        print("go", flush=True)
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(number * self._pause_s / self._workers))
            await asyncio.to_thread(sys.stdin.read)
            self._stopping = True
        self.result.seconds = time.monotonic() - self._began
        self.result.answers = dict(self._answers)
        return self.result

    async def _work(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        link = Link(self._address)
        due = time.monotonic()
        while not self._stopping:
            began = time.monotonic()
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    answer = await link.ask(self._request)
                self._answers[answer] += 1
            except (OSError, EOFError, TimeoutError) as error:
                self._fail(began, error)
                link.close()
            taken = time.monotonic() - began
            self.result.requests += 1
            self.result.slowest_s = max(self.result.slowest_s, taken)
            if not self._keep_alive:
                link.close()
            due = max(due + self._pause_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
        link.close()
        self.result.connections += link.connected
        self.result.repeated += link.repeated

    def _fail(self, began: float, error: BaseException) -> None:
        self.result.failed += 1
        if len(self.result.failures) < KEPT_FAILURES:
            words = f"{began - self._began:.3f} s, after {time.monotonic() - began:.3f} s: {error!r}"
            self.result.failures.append(words)


class Link:
    """One connection at a time. Plain sockets: asyncio's streams would cost more than the server under test."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self.connected = 0
        self.repeated = 0

    async def ask(self, request: bytes) -> str:
        """The body of the answer. Raises: OSError, EOFError."""
        if self._socket is not None:
            try:
                return await self._ask(self._socket, request)
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
            except ConnectionError:
                pass
            self.repeated += 1
        self.close()
        self._socket = socket.socket()
        self._socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self._socket, self._address)
        self.connected += 1
        return await self._ask(self._socket, request)

    async def _ask(self, sock: socket.socket, request: bytes) -> str:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, request)
        answer = b""
        while (end := end_of(answer)) is None or len(answer) < end:
            more = await loop.sock_recv(sock, 65536)
            if not more:
                raise asyncio.IncompleteReadError(answer, end)
            answer += more
        head, _, body = answer[:end].decode().partition("\r\n\r\n")
        if " 200 " not in head.split("\r\n", 1)[0]:
            raise OSError(f"answered {head[:40]!r}")
        if "connection: close" in head.lower():
            self.close()
        return body

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def end_of(answer: bytes) -> int | None:
    """How many bytes an answer has, head and body; None while its head is not there."""
    head, found, _ = answer.partition(b"\r\n\r\n")
    if not found:
        return None
    return len(head) + 4 + int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(Generator(**json.loads(sys.argv[1])).run()))))
