"""Speaks with registries through skopeo alone.

Blobs come through `skopeo experimental-image-proxy`, which hands out pipes, so that progress is exact and the bytes are
checked here. Manifests are read raw, because the proxy would turn them into OCI's form and lose the health check.
Nothing of root's own registry logins is used: only what a request brings along.
"""

import array
import asyncio
import base64
import contextlib
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from bennu.decoding import decode
from bennu.errors import BennuError, InvalidParameter, NotFound, Unavailable
from bennu.images.reference import HUB, Reference
from bennu.images.registries import Registries
from bennu.process import run, started

TIMEOUT_S: Final = 300.0
IDLE_S: Final = 60.0  # without a byte of a blob
ESCAPED_NUL: Final = rb"\u0000"  # what is in a header ends among the arguments of a program
PIPE_BYTES: Final = 1 << 20
FATAL: Final = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*")')
CORRUPTED: Final = re.compile(r"corrupted blob, expecting (sha256:[0-9a-f]{64})")
DENIED: Final = "denied: requested access to the resource is denied"
MISSING: Final = "skopeo is not installed: apt-get install skopeo"


class Auth(msgspec.Struct):
    """A login, as clients send it in `X-Registry-Auth`."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
    serveraddress: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.username or self.auth or self.identitytoken or self.registrytoken)


def parse_auth(header: str) -> Auth:
    """Read `X-Registry-Auth`, base64 of JSON; a broken one is no login, as for dockerd."""
    return _decode_header(header, Auth) or Auth()


def parse_logins(header: str) -> dict[str, Auth]:
    """Read `X-Registry-Config`: the logins of a build, by registry."""
    return _decode_header(header, dict[str, Auth]) or {}


def login_for(reference: Reference, logins: Mapping[str, Auth]) -> Auth:
    """Choose the login of a build that is meant for this image's registry."""
    keys = ("https://index.docker.io/v1/", HUB) if reference.domain == HUB else (reference.domain,)
    return next((logins[key] for key in keys if key in logins), Auth())


def _decode_header(header: str, shape: Any) -> Any:
    try:
        raw = base64.urlsafe_b64decode(header.replace("+", "-").replace("/", "_") + "==")
        return decode(raw, shape) if raw and ESCAPED_NUL not in raw else None
    except (ValueError, InvalidParameter):
        return None


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image is, in skopeo's words, and how to get in."""

    location: str
    options: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    reference: Reference | None = None  # for a registry: what the errors speak of


@contextlib.asynccontextmanager
async def registry_source(reference: Reference, auth: Auth, tmp: Path, registries: Registries) -> AsyncIterator[Source]:
    """Give an image in its registry; a login lies in a private file during the block."""
    options = ["--tls-verify=false"] if await registries.is_insecure(reference.domain) else []
    tag = f"@{reference.digest}" if reference.digest else f":{reference.tagged().tag}"
    location = f"docker://{reference.full_name}{tag}"
    if auth.registrytoken:
        yield Source(location, [*options, f"--registry-token={auth.registrytoken}"], None, reference)
        return
    if auth.is_empty:
        yield Source(location, [*options, "--no-creds"], None, reference)
        return
    path = tmp / f"auth-{os.urandom(8).hex()}"
    try:
        path.touch(mode=0o600)
        path.write_text(json.dumps(_auth_file(reference.domain, auth)))
        yield Source(location, [*options, f"--authfile={path}"], None, reference)
    finally:
        path.unlink(missing_ok=True)


def _auth_file(domain: str, auth: Auth) -> dict[str, Any]:
    pair = auth.auth or base64.b64encode(f"{auth.username or '<token>'}:{auth.password}".encode()).decode()
    entry = {"auth": pair} | ({"identitytoken": auth.identitytoken} if auth.identitytoken else {})
    return {"auths": {domain: entry}}


def mirror_location(mirror: str, reference: Reference) -> str:
    """Answer where a mirror has a repository of Docker Hub, in skopeo's words."""
    return f"docker://{urlsplit(mirror).netloc}/{reference.path}"


def mirror_source(mirror: str, reference: Reference) -> Source:
    """Give an image of Docker Hub in a mirror of it, whose URL says whether it speaks TLS. No login goes there."""
    options = ["--no-creds"] + (["--tls-verify=false"] if mirror.startswith("http:") else [])
    tag = f"@{reference.digest}" if reference.digest else f":{reference.tagged().tag}"
    return Source(mirror_location(mirror, reference) + tag, options, None, reference)


async def read_manifest(source: Source) -> bytes:
    """Read the manifest or list of manifests, byte for byte. Raises: BennuError in Docker's words."""
    return await skopeo(["inspect", "--raw", *source.options, source.location], source)


async def list_tags(source: Source, reference: Reference) -> list[str]:
    """List all tags of a repository. Raises: BennuError in Docker's words."""
    found = await skopeo(["list-tags", *source.options, f"docker://{reference.full_name}"], source)
    return list(msgspec.json.decode(found)["Tags"] or [])


async def skopeo(arguments: Sequence[str], source: Source) -> bytes:
    """Run skopeo to its end; answer its output. Raises: BennuError in Docker's words."""
    env = None if source.env is None else {**os.environ, **source.env}
    try:
        done = await run(["skopeo", *arguments], timeout_s=TIMEOUT_S, env=env)
    except FileNotFoundError:
        raise Unavailable(MISSING) from None
    if done.exit_code != 0:
        raise failure(done.stderr.decode(errors="replace"), source.reference)
    return done.stdout


def failure(stderr: str, reference: Reference | None) -> BennuError:
    """Translate skopeo's last words into dockerd's; pinned by `test_skopeo.py`."""
    match = FATAL.search(stderr)
    words = stderr.strip()
    if match:
        with contextlib.suppress(json.JSONDecodeError):
            words = json.loads(match[1])
    return explain(words, reference)


def explain(words: str, reference: Reference | None) -> BennuError:
    if reference is None:
        return BennuError(words)
    name = reference.familiar_name
    if corrupted := CORRUPTED.search(words):
        return BennuError(f"filesystem layer verification failed for digest {corrupted[1]}")
    if "manifest unknown" in words:
        return NotFound(f"manifest for {reference} not found: manifest unknown: manifest unknown")
    if "name unknown" in words:
        return NotFound(f"repository {name} not found: name unknown: repository name not known to registry")
    if "access to the resource is denied" in words or (
        reference.domain == HUB and ("unauthorized" in words or "authentication required" in words)
    ):
        return NotFound(
            f"pull access denied for {name}, repository does not exist or may require 'docker login': {DENIED}"
        )
    if "unauthorized" in words or "authentication required" in words or "invalid username/password" in words:
        return BennuError(f"unauthorized: authentication required ({name})")
    reached = re.search(r'((?:Get|Head|Post|Put|Patch) \\?"?https?://.*)', words)
    return BennuError(reached[1].replace('\\"', '"') if reached else words)


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
        argv = ["skopeo", "experimental-image-proxy", *self._source.options]
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
            raise explain(str(answer.get("error")), self._source.reference)
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
