"""What bennud's options say of registries: which may be spoken to without TLS, and who stands in for Docker Hub.

The rules, and the words of what is wrong, are those of moby `registry/config.go`.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bennu.errors import InvalidParameter
from bennu.images.reference import DOMAIN, HUB

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK: Final[tuple[Network, ...]] = (ipaddress.ip_network("::1/128"), ipaddress.ip_network("127.0.0.0/8"))
DOWNLOADS: Final = 3  # at a time, as dockerd
UPLOADS: Final = 5
ATTEMPTS: Final = 5  # of a download that breaks off
RESOLVE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Registries:
    """`mirrors` are URLs that end in a slash; `hosts` are `host[:port]`, as in a reference."""

    mirrors: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = LOOPBACK
    downloads: int = DOWNLOADS  # of layers at a time, in each pull
    uploads: int = UPLOADS  # and in each push
    attempts: int = ATTEMPTS  # to download a layer

    async def is_insecure(self, domain: str) -> bool:
        """Tell whether a registry may speak plain HTTP, or show a certificate that nobody knows.

        A name counts as the addresses it stands for.
        """
        if domain in self.hosts:
            return True
        if domain == HUB:
            return False
        host = domain if domain.endswith("]") else domain.rsplit(":", 1)[0]
        try:
            found = [ipaddress.ip_address(host.strip("[]"))]
        except ValueError:
            found = await _resolve(host)
        return any(address in network for address in found for network in self.networks)


async def _resolve(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Answer the addresses of a name; none where it has none, or nobody says in time."""
    if host == "localhost":
        return [ipaddress.ip_address("127.0.0.1")]
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def parse_registries(
    mirrors: Iterable[str],
    insecure: Iterable[str],
    downloads: int = DOWNLOADS,
    uploads: int = UPLOADS,
    attempts: int = ATTEMPTS,
) -> Registries:
    """Check the options. Raises: InvalidParameter."""
    hosts: dict[str, None] = {}
    networks: dict[Network, None] = {}
    for entry in insecure:
        found = _parse_insecure(entry)
        if isinstance(found, str):
            hosts[found] = None
        else:
            networks[found] = None
    networks |= dict.fromkeys(LOOPBACK)
    unique = dict.fromkeys(parse_mirror(mirror) for mirror in mirrors)
    return Registries(tuple(unique), tuple(hosts), tuple(networks), downloads, uploads, attempts)


def parse_mirror(url: str) -> str:
    """Check the URL of a mirror and end it with a slash. Raises: InvalidParameter."""
    usable = "must use either 'https://' or 'http://'"
    scheme, found, _ = url.partition("://")
    if not found or not scheme:
        raise InvalidParameter(f'invalid mirror: no scheme specified for "{url}": {usable}')
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise InvalidParameter(f'invalid mirror: "{url}" is not a valid URI') from None
    if parts.scheme not in ("http", "https"):
        raise InvalidParameter(f'invalid mirror: unsupported scheme "{parts.scheme}" in "{url}": {usable}')
    if parts.query or parts.fragment:
        raise InvalidParameter(f'invalid mirror: query or fragment at end of the URI "{url}"')
    if parts.username is not None:
        masked = parts._replace(netloc=f"{parts.username}:xxxxx@{parts.netloc.rpartition('@')[2]}").geturl()
        raise InvalidParameter(f'invalid mirror: username/password not allowed in URI "{masked}"')
    if not host or not DOMAIN.match(parts.netloc):
        raise InvalidParameter(f'invalid mirror: "{url}" is not a valid URI')
    return url.removesuffix("/") + "/"


def _parse_insecure(entry: str) -> str | Network:
    if entry.startswith("-") or entry.endswith("-"):
        raise InvalidParameter(f"invalid index name ({entry}). Cannot begin or end with a hyphen")
    bare = entry
    for scheme in ("http://", "https://"):
        if bare.lower().startswith(scheme):
            bare = bare[len(scheme) :]
    if "://" in bare:
        raise InvalidParameter(f"insecure registry {entry} should not contain '://'")
    if "/" in bare:
        try:
            return ipaddress.ip_network(bare, strict=False)
        except ValueError:
            pass
    port = bare.rpartition(":")[2] if ":" in bare and not bare.endswith("]") else ""
    if not DOMAIN.match(bare):
        raise InvalidParameter(f'insecure registry {bare} is not valid: invalid host "{bare}"')
    if port and int(port) > 65535:
        raise InvalidParameter(f'insecure registry {bare} is not valid: invalid port "{port}"')
    return bare
