"""Answers of the common kinds: JSON, nothing, and an error's message."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from bennu.pace import paced

Item = TypeVar("Item")

_encode = msgspec.json.Encoder().encode


def json_response(value: Any, status: int = 200) -> web.Response:
    """`value` as JSON, ended by a newline as dockerd does."""
    return web.Response(body=_encode(value) + b"\n", status=status, content_type="application/json")


async def json_list_response(items: Iterable[Item], shape: Callable[[Item], Any]) -> web.Response:
    """A list of what `shape` makes of each item. However long it is, others are answered meanwhile.

    The items must be the caller's own: what they come from may change before this returns.
    """
    parts = [_encode(shape(item)) async for item in paced(items)]
    return web.Response(body=b"[" + b",".join(parts) + b"]\n", content_type="application/json")


def no_content_response() -> web.Response:
    return web.Response(status=204)


def empty_response(status: int = 200) -> web.Response:
    """Just the status, and a `Content-Length: 0` that keeps the connection in use."""
    return web.Response(status=status, body=b"")


def error_response(message: str, status: int) -> web.Response:
    return json_response({"message": message}, status)


def json_line(value: Any) -> bytes:
    """One JSON object a line, as streams send them."""
    return _encode(value) + b"\n"
