"""Turns errors into HTTP, here and nowhere else. The kinds are those of moby `api/server/httpstatus/status.go`."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from bennu.api.http.responses import error_response
from bennu.errors import (
    BennuError,
    Conflict,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotImplementedHere,
    NotModified,
    Unauthorized,
    Unavailable,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS_OF: Final[Mapping[type[BennuError], int]] = {
    BennuError: 500,
    NotModified: 304,
    InvalidParameter: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    NotImplementedHere: 501,
    Unavailable: 503,
}

log = logging.getLogger(__name__)


def status_of(error: BennuError) -> int:
    """Answer the HTTP status of an error: that of the nearest of its base classes that has one."""
    return next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)


@web.middleware
async def errors_to_http(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with `{"message": …}`; a bug is a 500, and its traceback goes to the log.

    Once the head of an answer is out, a failure breaks the connection off instead.
    """
    try:
        return await handler(request)
    except Exception as error:
        if isinstance(error, ConnectionError):
            return error_response("the client left", 400)  # nobody will read it
        if getattr(request.protocol, "answering", False):
            return _break_off(request, error)
        return _as_answer(request, error)


def _as_answer(request: web.Request, error: Exception) -> web.StreamResponse:
    if isinstance(error, BennuError):
        status = status_of(error)
        return web.Response(status=304) if status == 304 else error_response(str(error), status)
    if isinstance(error, web.HTTPException):
        return error if error.status < 400 else error_response(error.text or error.reason, error.status)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return error_response(f"internal error: {type(error).__name__}: {error}", 500)


def _break_off(request: web.Request, error: Exception) -> web.StreamResponse:
    log.error("%s %s failed after its head was sent", request.method, request.path, exc_info=error)
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
