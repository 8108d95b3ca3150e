"""Streams progress as Docker does: one JSON object a line, errors included once the first line is out."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from aiohttp import web

from bennu.api.http.responses import json_line
from bennu.api.http.streams import open_chunks
from bennu.errors import BennuError
from bennu.go.units import human_size

BAR: Final = 50
Message = Mapping[str, Any]


async def stream_progress(
    request: web.Request, messages: AsyncGenerator[Message, None], *, errors_in_stream: bool = False
) -> web.StreamResponse:
    """Send messages as they come. A failure before the first is an HTTP error, unless `errors_in_stream`."""
    response: web.StreamResponse | None = None
    async with contextlib.aclosing(messages):
        try:
            async for message in messages:
                response = response or await open_chunks(request)
                await response.write(json_line(message))
        except BennuError as error:
            if response is None and not errors_in_stream:
                raise
            response = response or await open_chunks(request)
            await response.write(json_line(error_message(error)))
    return response or await open_chunks(request)


def error_message(error: BennuError) -> Message:
    """Make the last message of a failed stream; `code` is the exit code of the command that failed (a RUN), if any."""
    code: int | None = getattr(error, "code", None)
    detail = {"message": str(error)} if code is None else {"code": code, "message": str(error)}
    return {"errorDetail": detail, "error": str(error)}


def status(text: str, identifier: str = "", current: int = 0, total: int = 0) -> Message:
    """Make one message of `docker pull` and its like; with `total` bytes it has a bar for people."""
    message: dict[str, Any] = {"status": text}
    if current or total:
        message["progressDetail"] = {"current": current, "total": total} if total else {"current": current}
        message["progress"] = draw_bar(current, total)
    elif identifier:
        message["progressDetail"] = {}
    if identifier:
        message["id"] = identifier
    return message


def draw_bar(current: int, total: int) -> str:
    """Draw the bar of moby `pkg/jsonmessage/jsonmessage.go`, pinned by `test_progress.py`; sizes in bytes."""
    if total <= 0:
        return f"{human_size(current):>8}"
    filled = min(100, 100 * current // total) // 2
    figures = f"{human_size(current):>8}" + (f"/{human_size(total)}" if current <= total else "")
    return f"[{'=' * filled}>{' ' * (BAR - filled)}] {figures}"
