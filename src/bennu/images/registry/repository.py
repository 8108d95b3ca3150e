"""A repository of a registry: its manifests, tags and blobs, at one endpoint. The OCI distribution specification."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode, urljoin

import msgspec

from bennu.images.registry.connection import FAILURES, IDLE_S, RegistryConnection, expect_success
from bennu.images.registry.endpoints import RegistryEndpoint
from bennu.images.registry.logins import Auth
from bennu.images.registry.refusals import RegistryError, of_connection

MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFESTS: Final = (
    *(OCI_MANIFEST, OCI_INDEX, MANIFEST_LIST, MANIFEST),
    *("application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json"),
)
OCTETS: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a tag stands for, as far as the registry's headers tell."""

    media_type: str
    digest: str
    size: int


class Tags(msgspec.Struct):
    tags: list[str] | None = None


class Repository:
    """`async with`; `actions` are what the login is to allow: `pull`, `push`."""

    def __init__(self, endpoint: RegistryEndpoint, path: str, auth: Auth, *actions: str) -> None:
        self.path = path
        self.connection = RegistryConnection(endpoint, auth, [scope_of(path, *actions)])

    async def __aenter__(self) -> Self:
        """Connect. Raises: RegistryError, InvalidParameter."""
        await self.connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.__aexit__(kind, error, trace)

    # --- reading --------------------------------------------------------------------------------------------------

    async def find(self, tag: str) -> Tagged | None:
        """Ask what a tag stands for, without its manifest; None when the registry does not tell it that way."""
        path = f"{self.path}/manifests/{tag}"
        async with self.connection.request("HEAD", path, headers={"Accept": MANIFESTS}, seconds=IDLE_S) as answer:
            digest = answer.headers.get("Docker-Content-Digest", "")
            if not 200 <= answer.status < 400 or not digest:
                return None
            return Tagged(answer.headers.get("Content-Type", ""), digest, answer.content_length or 0)

    async def manifest(self, tag_or_digest: str) -> tuple[bytes, str]:
        """Read a manifest or a list of manifests, byte for byte, and its media type. Raises: RegistryError."""
        path = f"{self.path}/manifests/{tag_or_digest}"
        body, headers = await self.connection.ask("GET", path, headers={"Accept": MANIFESTS})
        return body, headers.get("Content-Type", "")

    async def tags(self) -> list[str]:
        """List all tags. Raises: RegistryError."""
        found: list[str] = []
        path = f"{self.path}/tags/list"
        while path:
            body, headers = await self.connection.ask("GET", path)
            try:
                found += msgspec.json.decode(body, type=Tags).tags or []
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RegistryError(str(error), spoken=True) from None
            link = headers.get("Link", "").partition(";")[0].strip("<> ")
            path = urljoin(f"{self.connection.endpoint.url}/v2/{path}", link) if link else ""
        return found

    async def document(self, digest: str) -> bytes:
        """Read a short blob whole; the caller checks it. Raises: RegistryError."""
        body, _ = await self.connection.ask("GET", f"{self.path}/blobs/{digest}")
        return body

    async def blob(self, digest: str, start: int) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes as they come, from byte `start` on; the caller checks it. Raises: RegistryError."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self.connection.request("GET", f"{self.path}/blobs/{digest}", headers=headers) as answer:
            if start and answer.status == 416:
                return  # there is nothing behind what we have
            await expect_success(answer)
            skip = start if answer.status != 206 else 0
            try:
                async for part in answer.content.iter_any():
                    if skip >= len(part):
                        skip -= len(part)
                        continue
                    yield part[skip:] if skip else part
                    skip = 0
            except FAILURES as error:
                raise RegistryError(of_connection(error, answer.url.authority), spoken=True) from error

    # --- writing --------------------------------------------------------------------------------------------------

    async def blob_size(self, digest: str) -> int | None:
        """Answer a blob's size; None when the repository does not have it."""
        async with self.connection.request("HEAD", f"{self.path}/blobs/{digest}", seconds=IDLE_S) as answer:
            return answer.content_length or 0 if answer.status == 200 else None

    async def mount(self, digest: str, source: str) -> bool:
        """Ask for a blob that another repository of the registry has. Tell whether it is here now."""
        path = f"{self.path}/blobs/uploads/?{urlencode({'mount': digest, 'from': source})}"
        scopes = [scope_of(source, "pull")]
        async with self.connection.request("POST", path, more_scopes=scopes, seconds=IDLE_S) as answer:
            if answer.status == 202 and (location := answer.headers.get("Location")):
                await self._cancel(urljoin(str(answer.url), location))
            return answer.status == 201

    async def _cancel(self, upload: str) -> None:
        with contextlib.suppress(RegistryError):
            await self.connection.ask("DELETE", upload)

    async def upload(self, data: AsyncIterable[bytes]) -> "Upload":
        """Send a blob whose digest its end will tell; `Upload.commit` keeps it. Raises: RegistryError."""
        async with self.connection.request("POST", f"{self.path}/blobs/uploads/", seconds=IDLE_S) as answer:
            await expect_success(answer)
            place = urljoin(str(answer.url), answer.headers.get("Location", ""))
        headers = {"Content-Type": OCTETS}
        async with self.connection.request("PATCH", place, headers=headers, body=data) as answer:
            await expect_success(answer)
            return Upload(self.connection, urljoin(place, answer.headers.get("Location", "")))

    async def put_manifest(self, tag: str, manifest: bytes, media_type: str) -> None:
        """Give a tag its manifest. Raises: RegistryError."""
        headers = {"Content-Type": media_type}
        await self.connection.ask("PUT", f"{self.path}/manifests/{tag}", headers=headers, body=manifest)


@dataclass(frozen=True, slots=True)
class Upload:
    """A blob that was sent and is not kept yet."""

    connection: RegistryConnection
    place: str

    async def commit(self, digest: str) -> None:
        """Have the registry check it and keep it. Raises: RegistryError."""
        url = f"{self.place}{'&' if '?' in self.place else '?'}{urlencode({'digest': digest})}"
        await self.connection.ask("PUT", url, seconds=300.0)


def scope_of(path: str, *actions: str) -> str:
    return f"repository:{path}:{','.join(actions)}"


class Fallbacks:
    """Which endpoint is asked next: none without TLS after the same host has spoken TLS."""

    def __init__(self, endpoints: Sequence[RegistryEndpoint]) -> None:
        self._left = list(endpoints)
        self._spoken: set[str] = set()

    def next(self) -> RegistryEndpoint | None:
        while self._left:
            endpoint = self._left.pop(0)
            if not endpoint.is_plain or endpoint.host not in self._spoken:
                return endpoint
        return None

    def note(self, endpoint: RegistryEndpoint, error: RegistryError) -> None:
        """Learn from a failure."""
        if error.spoken and not endpoint.is_plain:
            self._spoken.add(endpoint.host)
