"""Fetches what `docker import` is given as a URL, from where bennud is, as dockerd does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import TCPConnector

from bennu.errors import BennuError, Forbidden, InvalidParameter, NotFound, Unauthorized
from bennu.images.pacing import Paced
from bennu.images.registry.connection import FAILURES, get, new_session, read_answer
from bennu.images.registry.endpoints import RegistryEndpoint, tls_context
from bennu.images.registry.refusals import NO_HOST, RegistryError, of_connection, status_line

KINDS: Final[dict[int, type[BennuError]]] = {
    400: InvalidParameter,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
}
SHOWN_BYTES: Final = 64 << 10  # of what a server says about its refusal


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is coming; `size` in bytes, 0 where the server does not tell."""

    url: str
    size: int
    parts: AsyncIterator[bytes]


def with_scheme(url: str) -> str:
    """Complete a URL that is a mere host and path. Raises: InvalidParameter."""
    full = url if "://" in url else f"http://{url}"
    try:
        host = urlsplit(full).hostname
    except ValueError as error:
        raise InvalidParameter(f'parse "{full}": {error}') from None
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in full):
        raise InvalidParameter(f'parse "{full}": net/url: invalid control character in URL')
    if not host and urlsplit(full).scheme in ("http", "https"):
        raise BennuError(f'Get "{full}": http: no Host in request URL')
    return full


@contextlib.asynccontextmanager
async def download(url: str, tell: Callable[[int, int], None]) -> AsyncIterator[Download]:
    """Open a URL; `tell` hears of the bytes that are behind, and of all. Raises: BennuError in Docker's words."""
    context = await asyncio.to_thread(tls_context, RegistryEndpoint(url, ""))
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(new_session(TCPConnector(ssl=context)))
        try:
            answer = await stack.enter_async_context(get(session, url))
            if answer.status >= 400:
                body = await read_answer(answer, SHOWN_BYTES)
                status = status_line(answer.status, answer.reason)
                words = f"failed to GET {url} with status {status}: {body.decode(errors='replace').strip()}"
                raise KINDS.get(answer.status, BennuError)(words)
        except RegistryError as error:
            raise (NotFound if NO_HOST in str(error) else BennuError)(str(error)) from error
        size = answer.content_length or 0
        paced = Paced(lambda count: tell(count, size), size)

        async def parts() -> AsyncIterator[bytes]:
            count = 0
            try:
                async for part in answer.content.iter_any():
                    count += len(part)
                    paced.count(count)
                    yield part
            except FAILURES as error:
                raise BennuError(of_connection(error, answer.url.authority)) from error

        yield Download(url, size, parts())
