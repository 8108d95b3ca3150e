"""Reads bodies: JSON as Go reads it (`bennu.decoding`), within bounds.

No string of a client holds a NUL character: nothing the kernel takes from us (a path, an argument, a name) could be
made of one, so they are refused here once and not wherever one might lead.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final, TypeVar

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from bennu.decoding import decode
from bennu.errors import InvalidParameter

Body = TypeVar("Body")

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
ESCAPED_NUL: Final = rb"\u0000"  # the only way to write one in JSON, unless its backslash is escaped itself
TRUE_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
LARGE_BYTES: Final = 256 * 1024
JSON_TYPE: Final = "application/json"
PEEKED: Final = "peeked body"  # of a request: what was read of its body before anybody took it
MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?\s*(;.*)?\Z")
NOTHING: Final = "invalid JSON: got EOF while reading request body"


async def read_body(request: web.Request, shape: type[Body]) -> Body:
    """Decode the body as `shape`; an empty body is `shape()`. Raises: InvalidParameter in the API's words."""
    found = await read_body_or_none(request, shape)
    return shape() if found is None else found


async def read_body_or_none(request: web.Request, shape: type[Body]) -> Body | None:
    """Decode the body as `shape`; None for an absent body and for a plain `null`. Raises: InvalidParameter."""
    check_content_type(request)
    raw = await read_bounded(request)
    if not raw and not has_body(request):
        return None
    if not raw.strip():
        raise InvalidParameter(NOTHING)
    return await decode_beside(raw, shape)


async def decode_beside(raw: bytes, shape: type[Body]) -> Body | None:
    """Decode as `decode_clean`, a large text in a thread so that others are served meanwhile.

    Raises: InvalidParameter.
    """
    if len(raw) < LARGE_BYTES:
        return decode_clean(raw, shape)
    return await asyncio.to_thread(decode_clean, raw, shape)


def has_body(request: web.Request) -> bool:
    """Tell whether the client said that a body comes, be it an empty one in chunks."""
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def check_content_type(request: web.Request) -> None:
    """Refuse what is not declared as JSON, as moby `api/server/httputils/httputils.go`. Raises: InvalidParameter."""
    given = request.headers.get("Content-Type", "")
    if not given and not has_body(request):
        return
    if not MEDIA_TYPE.match(given):
        raise InvalidParameter(f"malformed Content-Type header ({given[:100]}): mime: no media type")
    if given.partition(";")[0].strip().lower() != JSON_TYPE:
        raise InvalidParameter(f"unsupported Content-Type header ({given[:100]}): must be '{JSON_TYPE}'")


async def read_bounded(request: web.Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Read the whole body. Raises: InvalidParameter when it is larger than `limit` bytes."""
    if (request.content_length or 0) > limit:
        raise InvalidParameter(f"request body too large: more than {limit} bytes")
    parts: list[bytes] = []
    size = 0
    async for part in body_of(request):
        size += len(part)
        if size > limit:
            raise InvalidParameter(f"request body too large: more than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


async def body_of(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body in pieces as they come. Raises: InvalidParameter when it breaks off or is framed wrongly."""
    if peeked := request.pop(PEEKED, b""):
        yield peeked
    try:
        async for part in request.content.iter_any():
            yield part
    except (ConnectionError, web.HTTPException) as error:
        raise InvalidParameter(f"the client left in the middle of its data: {error}") from None
    except RequestPayloadError as error:
        raise InvalidParameter(f"malformed request body: {error}") from None


def decode_clean(raw: bytes, shape: type[Body]) -> Body | None:
    """Decode JSON as Go does; None for `null`. Raises: InvalidParameter, also for a NUL character in a string."""
    decoded = decode(raw, shape)
    if ESCAPED_NUL in raw and TRUE_NUL.search(raw):  # the expression alone takes a hundred times as long
        raise InvalidParameter("invalid JSON: a NUL character in a string")
    return decoded
