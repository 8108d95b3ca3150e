"""Reads JSON bodies as Go does: null means "not given", unknown fields are passed over, errors have the API's texts.

No string of a client holds a NUL character: nothing the kernel takes from us (a path, an argument, a name) could be
made of one, so they are refused here once and not wherever one might lead.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from bennu.errors import InvalidParameter

Body = TypeVar("Body")

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
ESCAPED_NUL: Final = rb"\u0000"  # the only way to write one in JSON
LARGE_BYTES: Final = 256 * 1024
BIG_NUMBER: Final = re.compile(rb"[0-9]{19}")
JSON_TYPE: Final = "application/json"
PEEKED: Final = "peeked body"  # of a request: what was read of its body before anybody took it
MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?\s*(;.*)?\Z")


async def read_body(request: web.Request, shape: type[Body]) -> Body:
    """Decode the body as `shape`; an empty body is `shape()`. Raises: InvalidParameter in the API's words."""
    found = await read_body_or_none(request, shape)
    return shape() if found is None else found


async def read_body_or_none(request: web.Request, shape: type[Body]) -> Body | None:
    """Decode the body as `shape`; None for an absent body and for a plain `null`. Raises: InvalidParameter."""
    check_content_type(request)
    raw = await read_bounded(request)
    if not raw:
        return None
    if not raw.strip():
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    return await decode_beside(raw, shape)


async def decode_beside(raw: bytes, shape: type[Body]) -> Body | None:
    """Decode as `decode`, a large text in a thread so that others are served meanwhile. Raises: InvalidParameter."""
    if len(raw) < LARGE_BYTES:
        return decode(raw, shape)
    return await asyncio.to_thread(decode, raw, shape)


def check_content_type(request: web.Request) -> None:
    """Refuse what is not declared as JSON, as moby `api/server/httputils/httputils.go`. Raises: InvalidParameter."""
    given = request.headers.get("Content-Type", "")
    if not given and not request.can_read_body:
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


def decode(raw: bytes, shape: type[Body]) -> Body | None:
    """Decode JSON as `shape`; None for `null`. Raises: InvalidParameter in the API's words."""
    try:
        return _decode(raw, shape)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from None
    except msgspec.DecodeError as error:
        words = str(error)
        if "trailing characters" in words:
            raise InvalidParameter("unexpected content after JSON") from None
        if "truncated" in words:
            raise InvalidParameter("invalid JSON: unexpected EOF") from None
        raise InvalidParameter(f"invalid JSON: {words}") from None
    except (RecursionError, UnicodeDecodeError):
        raise InvalidParameter("invalid JSON: nested too deep or not UTF-8") from None


def _decode(raw: bytes, shape: type[Body]) -> Body | None:
    if ESCAPED_NUL in raw and _holds_nul(msgspec.json.decode(raw)):
        raise InvalidParameter("invalid JSON: a NUL character in a string")
    if not BIG_NUMBER.search(raw):
        try:
            return msgspec.json.decode(raw, type=shape)
        except msgspec.ValidationError:
            pass  # a null where Go would see "not given"? Look closer
    tree = msgspec.json.decode(raw)
    _check_numbers(tree)
    if tree is None:
        return None
    return msgspec.convert(_without_nulls(tree, msgspec.inspect.type_info(shape)), type=shape)


def _holds_nul(tree: Any) -> bool:
    if isinstance(tree, dict):
        return any("\0" in key or _holds_nul(value) for key, value in tree.items())
    if isinstance(tree, list):
        return any(map(_holds_nul, tree))
    return isinstance(tree, str) and "\0" in tree


def _check_numbers(tree: Any) -> None:
    if isinstance(tree, dict):
        for value in tree.values():
            _check_numbers(value)
    elif isinstance(tree, list):
        for value in tree:
            _check_numbers(value)
    elif isinstance(tree, int) and not -(2**63) <= tree < 2**63:
        raise InvalidParameter("invalid JSON: number out of range for int64")


def _without_nulls(value: Any, kind: msgspec.inspect.Type) -> Any:
    """Drop the nulls of struct fields that cannot hold one; entries of maps and lists stay as they are."""
    match kind:
        case msgspec.inspect.UnionType(types=types):
            fitting = next((item for item in types if _may_be(value, item)), None)
            return value if fitting is None else _without_nulls(value, fitting)
        case msgspec.inspect.StructType(fields=fields) if isinstance(value, dict):
            known = {field.encode_name: field for field in fields}
            return {
                key: _without_nulls(entry, known[key].type)
                for key, entry in value.items()
                if key in known and (entry is not None or _accepts_null(known[key].type))
            }
        case msgspec.inspect.DictType(value_type=value_type) if isinstance(value, dict):
            return {key: _without_nulls(entry, value_type) for key, entry in value.items()}
        case msgspec.inspect.ListType(item_type=item_type) if isinstance(value, list):
            return [_without_nulls(entry, item_type) for entry in value]
    return value


def _may_be(value: Any, kind: msgspec.inspect.Type) -> bool:
    if isinstance(value, dict):
        return isinstance(kind, msgspec.inspect.StructType | msgspec.inspect.DictType)
    return isinstance(value, list) and isinstance(kind, msgspec.inspect.ListType)


def _accepts_null(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return kind.includes_none
    return isinstance(kind, msgspec.inspect.NoneType | msgspec.inspect.AnyType)
