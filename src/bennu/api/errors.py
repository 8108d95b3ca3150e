"""Errors become HTTP here and nowhere else."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from bennu.api.answer import error_answer
from bennu.errors import (
    BennuError,
    Conflict,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotImplementedHere,
    NotModified,
    Unavailable,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS_OF: Final[Mapping[type[BennuError], int]] = {
    BennuError: 500,
    NotModified: 304,
    InvalidParameter: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    NotImplementedHere: 501,
    Unavailable: 503,
}

log = logging.getLogger(__name__)


def status_of(error: BennuError) -> int:
    """The status of the nearest kind in its family."""
    return next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)


@web.middleware
async def errors_to_http(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure leaves as `{"message": …}`; a bug as a 500 whose traceback is in the log."""
    try:
        return await handler(request)
    except BennuError as error:
        status = status_of(error)
        return web.Response(status=304) if status == 304 else error_answer(str(error), status)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return error_answer(error.text or error.reason, error.status)
    except ConnectionError:
        return error_answer("the client left", 400)  # nobody will read it
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        return error_answer(f"internal error: {type(error).__name__}: {error}", 500)
