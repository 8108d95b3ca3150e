"""Reads a terminal's size as clients send it (moby `api/server/router/container/container_routes.go`)."""

from aiohttp import web

from bennu.api.http.query import text
from bennu.errors import InvalidParameter

Size = tuple[int, int]  # height, width


def read_size(request: web.Request) -> Size:
    """Read `h` and `w`. Raises: InvalidParameter in the API's words."""
    return _dimension(request, "h", "height"), _dimension(request, "w", "width")


def _dimension(request: web.Request, name: str, word: str) -> int:
    value = text(request, name)
    digits = value.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal():
        raise InvalidParameter(f'invalid resize {word} "{value[:100]}": invalid syntax')
    if digits != value or len(digits) > 10 or int(digits) >= 2**32:
        raise InvalidParameter(f'invalid resize {word} "{value[:100]}": value out of range')
    return int(digits) & 0xFFFF  # as much as the kernel keeps


def terminal_size(console_size: list[int] | None) -> Size | None:
    """Read `ConsoleSize` of a body; None when it is absent, empty or out of range."""
    match console_size:
        case [int() as height, int() as width, *_] if 0 < height <= 65535 and 0 < width <= 65535:
            return height, width
    return None
