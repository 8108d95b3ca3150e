"""Makes the common answers: JSON, nothing, and the message of an error."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from bennu.pace import paced

Item = TypeVar("Item")

_encode = msgspec.json.Encoder().encode


def json_response(value: Any, status: int = 200) -> web.Response:
    """Answer `value` as JSON, ended by a newline as dockerd does."""
    return web.Response(body=_encode(value) + b"\n", status=status, content_type="application/json")


async def json_list_response(items: Iterable[Item], shape: Callable[[Item], Any]) -> web.Response:
    """Answer a list of what `shape` makes of each item; others are served between the items, however many.

    The items must be the caller's own: what they come from may change before this returns.
    """
    parts = [_encode(shape(item)) async for item in paced(items)]
    return web.Response(body=b"[" + b",".join(parts) + b"]\n", content_type="application/json")


def no_content_response() -> web.Response:
    """Answer 204."""
    return web.Response(status=204)


def empty_response(status: int = 200) -> web.Response:
    """Answer a status with `Content-Length: 0`, which keeps the connection in use."""
    return web.Response(status=status, body=b"")


def error_response(message: str, status: int) -> web.Response:
    """Answer `{"message": …}`."""
    return json_response({"message": message}, status)


def json_line(value: Any) -> bytes:
    """Encode one JSON object and a newline, as streams send them."""
    return _encode(value) + b"\n"
