"""Where a registry can be reached: by TLS, checked with what lies in `certs.d`; an insecure one also without.

The rules are those of moby `registry/service_v2.go` and `registry/registry.go`.
"""

import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bennu.errors import InvalidParameter
from bennu.images.reference import HUB
from bennu.images.registries import Registries

HUB_URL: Final = "https://registry-1.docker.io"
CERTIFICATES: Final = (Path("/etc/docker/certs.d"), Path("/etc/bennu/certs.d"))


@dataclass(frozen=True, slots=True)
class RegistryEndpoint:
    """`url` has no slash at its end; `host` names the folder of its certificates."""

    url: str
    host: str
    is_insecure: bool = False
    is_mirror: bool = False

    @property
    def is_plain(self) -> bool:
        return self.url.startswith("http:")


async def endpoints_of(registries: Registries, domain: str, *, mirrors: bool) -> Sequence[RegistryEndpoint]:
    """List where to ask, one after the other. A login of Docker Hub must not go to mirrors: leave them out then."""
    if domain != HUB:
        return [one async for one in _both(registries, domain)]
    found = []
    for url in registries.mirrors if mirrors else ():
        host = urlsplit(url).netloc
        found.append(RegistryEndpoint(url.rstrip("/"), host, await registries.is_insecure(host), is_mirror=True))
    return [*found, RegistryEndpoint(HUB_URL, "")]


async def _both(registries: Registries, domain: str) -> AsyncIterator[RegistryEndpoint]:
    is_insecure = await registries.is_insecure(domain)
    yield RegistryEndpoint(f"https://{domain}", domain, is_insecure)
    if is_insecure:
        yield RegistryEndpoint(f"http://{domain}", domain, is_insecure)


def tls_context(endpoint: RegistryEndpoint, folders: Iterable[Path] = CERTIFICATES) -> ssl.SSLContext:
    """Make what checks the registry's certificate and shows ours. Blocking. Raises: InvalidParameter."""
    if endpoint.is_insecure:
        return _unchecked()
    places = [folder / endpoint.host for folder in folders if endpoint.host]
    files = [sorted(place.iterdir()) for place in places if place.is_dir()]
    if not any(files):
        return _system()
    context = ssl.create_default_context()
    for found in files:
        _load(context, found)
    return context


@lru_cache(maxsize=1)
def _system() -> ssl.SSLContext:
    return ssl.create_default_context()


@lru_cache(maxsize=1)
def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _load(context: ssl.SSLContext, files: Sequence[Path]) -> None:
    """Trust each `*.crt`; show each `*.cert` with its `*.key`."""
    names = {path.name for path in files}
    for path in files:
        try:
            match path.suffix:
                case ".crt":
                    context.load_verify_locations(path)
                case ".cert":
                    key = path.with_suffix(".key")
                    if key.name not in names:
                        raise InvalidParameter(
                            f"missing key {key.name} for client certificate {path.name}. "
                            "CA certificates must use the extension .crt"
                        )
                    context.load_cert_chain(path, key)
                case ".key" if path.with_suffix(".cert").name not in names:
                    raise InvalidParameter(
                        f"missing client certificate {path.with_suffix('.cert').name} for key {path.name}"
                    )
        except (OSError, ssl.SSLError) as error:
            raise InvalidParameter(f"{path}: {error}") from None
