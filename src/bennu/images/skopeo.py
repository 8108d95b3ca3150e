"""Takes images to buildah's storage and from it, through skopeo.

Blobs come through `skopeo experimental-image-proxy`, which hands out pipes, and are checked here. Manifests are read
raw, because the proxy would turn them into OCI's form and lose the health check.
"""

import array
import asyncio
import contextlib
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from bennu.errors import BennuError, Unavailable
from bennu.process import run, started

TIMEOUT_S: Final = 300.0
IDLE_S: Final = 60.0  # without a byte of a blob
PIPE_BYTES: Final = 1 << 20
FATAL: Final = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*")')
MISSING: Final = "skopeo is not installed: apt-get install skopeo"


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image is, in skopeo's words."""

    location: str
    env: Mapping[str, str] | None = None


async def read_manifest(source: Source) -> bytes:
    """Read the manifest or list of manifests, byte for byte. Raises: BennuError."""
    return await skopeo(["inspect", "--raw", source.location], source)


async def skopeo(arguments: Sequence[str], source: Source) -> bytes:
    """Run skopeo to its end; answer its output. Raises: BennuError, Unavailable."""
    env = None if source.env is None else {**os.environ, **source.env}
    try:
        done = await run(["skopeo", *arguments], timeout_s=TIMEOUT_S, env=env)
    except FileNotFoundError:
        raise Unavailable(MISSING) from None
    if done.exit_code != 0:
        raise failure(done.stderr.decode(errors="replace"))
    return done.stdout


def failure(stderr: str) -> BennuError:
    """Make an error of skopeo's last words; pinned by `test_skopeo.py`."""
    match = FATAL.search(stderr)
    words = stderr.strip()
    if match:
        with contextlib.suppress(json.JSONDecodeError):
            words = json.loads(match[1])
    return BennuError(words)


class ImageProxy:
    """One open image: `async with`. Calls may overlap; they are sent one after the other."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stack = contextlib.AsyncExitStack()
        self._turn = asyncio.Lock()
        self._image = 0

    async def __aenter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._stack.callback(ours.close)
        env = None if self._source.env is None else {**os.environ, **self._source.env}
        argv = ["skopeo", "experimental-image-proxy"]
        try:
            with theirs:
                await self._stack.enter_async_context(
                    started(
                        argv,
                        stdin=theirs.fileno(),
                        stdout=asyncio.subprocess.DEVNULL,
                        stderr=asyncio.subprocess.DEVNULL,
                        env=env,
                    )
                )
            await self._call("Initialize")
            self._image, _, _ = await self._call("OpenImage", self._source.location)
        except FileNotFoundError:
            await self._stack.aclose()
            raise Unavailable(MISSING) from None
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def blob(self, digest: str, size: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a blob as they come; the caller checks the digest. Raises: BennuError.

        The proxy closes its end of the pipe only when it is told that we have all, and tells its errors only then: so
        that is said when `size` bytes are here, or when nothing came for a while.
        """
        _, pipe, pipe_id = await self._call("GetBlob", self._image, digest, size)
        reader = asyncio.StreamReader(limit=PIPE_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
        )
        left = size
        try:
            while left > 0:
                try:
                    async with asyncio.timeout(IDLE_S):
                        data = await reader.read(min(left, PIPE_BYTES))
                except TimeoutError:
                    break
                if not data:
                    break
                left -= len(data)
                yield data
            await self._call("FinishPipe", pipe_id)
            while data := await reader.read(PIPE_BYTES):
                yield data
        finally:
            transport.close()

    async def _call(self, method: str, *arguments: Any) -> tuple[Any, int, int]:
        """Call a method; answer its value, a descriptor and the descriptor's id. Raises: BennuError."""
        async with self._turn:
            request = json.dumps({"method": method, "args": arguments}).encode()
            reply, descriptors = await asyncio.to_thread(self._exchange, request)
        if not reply:
            raise BennuError(f"skopeo ended during {method}")
        answer = json.loads(reply)
        if not answer.get("success"):
            for descriptor in descriptors:
                os.close(descriptor)
            raise BennuError(str(answer.get("error")))
        return answer.get("value"), descriptors[0] if descriptors else -1, int(answer.get("pipeid") or 0)

    def _exchange(self, request: bytes) -> tuple[bytes, list[int]]:
        """Send a request and read its answer. Blocking; skopeo's end closes the socket, which ends it."""
        self._socket.settimeout(TIMEOUT_S)
        try:
            self._socket.send(request)
            reply, ancillary, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(16))
        except TimeoutError:
            raise BennuError("the registry did not answer in time") from None
        except OSError:
            return b"", []
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        return reply, list(descriptors)
