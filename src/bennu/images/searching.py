"""`docker search`: asks an index, Docker Hub's or one that a registry has, in the old protocol that indices speak.

The rules and words are those of moby `registry/search.go`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec
from aiohttp import BasicAuth, ClientSession, TCPConnector

from bennu.errors import BennuError, InvalidParameter
from bennu.images.reference import DOMAIN, HUB
from bennu.images.registries import Registries
from bennu.images.registry.connection import RegistryConnection, get, new_session, read_answer
from bennu.images.registry.endpoints import RegistryEndpoint, tls_context
from bennu.images.registry.logins import Auth
from bennu.images.registry.refusals import RegistryError

HUB_INDEX: Final = "https://index.docker.io"
DEFAULT_LIMIT: Final = 25
MAX_LIMIT: Final = 100
STANDALONE: Final = "X-Docker-Registry-Standalone"
SCOPE: Final = "registry:catalog:search"
log = logging.getLogger(__name__)


class SearchResult(msgspec.Struct):
    """An entry of an index's answer, and of ours."""

    star_count: int = 0
    is_official: bool = False
    name: str = ""
    is_automated: bool = False
    description: str = ""


class SearchResults(msgspec.Struct):
    results: list[SearchResult] | None = None


async def search(
    registries: Registries, term: str, limit: int, auth: Auth, *, is_official: bool | None = None, least_stars: int = 0
) -> Sequence[SearchResult]:
    """Ask the index that the term names for what it has. Raises: InvalidParameter, BennuError in Docker's words."""
    if "://" in term:
        raise InvalidParameter(f"invalid repository name: repository name ({term}) should not have a scheme")
    domain, name = _split(term)
    async with _index(registries, domain, auth) as (session, url, headers):
        if not 1 <= (limit or DEFAULT_LIMIT) <= MAX_LIMIT:
            raise InvalidParameter(f"limit {limit} is outside the range of [1, {MAX_LIMIT}]")
        asked = urlencode({"q": name, "n": limit or DEFAULT_LIMIT})
        try:
            async with get(session, f"{url}/v1/search?{asked}", {"X-Docker-Token": "true"}, headers) as answer:
                body = await read_answer(answer)
        except RegistryError as error:
            raise BennuError(str(error)) from error
        if answer.status != 200:
            raise BennuError(f"Unexpected status code {answer.status}")
    try:
        found = msgspec.json.decode(body, type=SearchResults).results or []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BennuError(f"error decoding registry search results: {error}") from None
    for result in found:
        result.is_automated = False
    return [
        result for result in found if result.star_count >= least_stars and is_official in (None, result.is_official)
    ]


def _split(term: str) -> tuple[str, str]:
    """Split off the index; without one it is Docker Hub's. Raises: InvalidParameter."""
    first, slash, rest = term.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return HUB, term.removeprefix("library/")
    if first in (HUB, "index.docker.io"):
        return HUB, rest.removeprefix("library/")
    if not DOMAIN.match(first):
        raise InvalidParameter(f'invalid host "{first}"')
    return first, rest


@contextlib.asynccontextmanager
async def _index(
    registries: Registries, domain: str, auth: Auth
) -> AsyncIterator[tuple[ClientSession, str, dict[str, str]]]:
    """Give a client for an index, where it is, and the login in the form in which the index takes it."""
    is_hub = domain == HUB
    is_insecure = not is_hub and await registries.is_insecure(domain)
    endpoint = RegistryEndpoint(HUB_INDEX if is_hub else f"https://{domain}", "" if is_hub else domain, is_insecure)
    context = await asyncio.to_thread(tls_context, endpoint)
    async with new_session(TCPConnector(ssl=context)) as session:
        takes_basic = is_hub
        if not is_hub:
            endpoint, takes_basic = await _reach(session, endpoint)
        yield session, endpoint.url, await _login(endpoint, auth, takes_basic=takes_basic)


async def _login(endpoint: RegistryEndpoint, auth: Auth, *, takes_basic: bool) -> dict[str, str]:
    name, password = auth.pair
    if auth.identitytoken and name:
        try:
            async with RegistryConnection(endpoint, auth, [SCOPE]) as connection:
                return await connection.authorization()
        except RegistryError as error:
            raise BennuError(str(error)) from error
    return {"Authorization": BasicAuth(name, password, "utf-8").encode()} if takes_basic and name else {}


async def _reach(session: ClientSession, endpoint: RegistryEndpoint) -> tuple[RegistryEndpoint, bool]:
    """Find out whether the index speaks TLS, and whether it wants each request with the login.

    Raises: InvalidParameter.
    """
    try:
        return endpoint, await _ping(session, endpoint.url)
    except RegistryError as error:
        host, secure = endpoint.host, error
    if not endpoint.is_insecure:
        raise InvalidParameter(
            f"invalid registry endpoint {endpoint.url}/v1/: {secure}. If this private registry supports only HTTP or "
            f"HTTPS with an unknown CA certificate, please add `--insecure-registry {host}` to the daemon's arguments. "
            "In the case of HTTPS, if you have access to the registry's CA certificate, no need for the flag; simply "
            f"place the CA certificate at /etc/docker/certs.d/{host}/ca.crt"
        )
    plain = RegistryEndpoint(f"http://{host}", host, is_insecure=True)
    try:
        await _ping(session, plain.url)
    except RegistryError as error:
        raise InvalidParameter(
            f'invalid registry endpoint "{plain.url}/v1/". HTTPS attempt: {secure}. HTTP attempt: {error}'
        ) from None
    return plain, False


async def _ping(session: ClientSession, url: str) -> bool:
    """Ask an index whether it is there; tell whether it stands alone. Raises: RegistryError."""
    async with get(session, f"{url}/v1/_ping") as answer:
        if told := answer.headers.get(STANDALONE, ""):
            return told == "1" or told.lower() == "true"
        try:
            found = msgspec.json.decode(await read_answer(answer), type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return True
        return found.get("standalone", True) is not False
