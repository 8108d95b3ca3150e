"""Start failures: the one place where any error of a start becomes an error that clients and records can carry."""

import asyncio
import errno
import logging
from collections.abc import Iterator
from typing import Final

from bennu.errors import BennuError, InvalidParameter
from bennu.runtime import RuntimeFailure

START_FAILED: Final = 128
# The host has too little of something just now, which is not the container's fault.
SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC})
NO_THREAD: Final = "can't start new thread"  # Python does not tell this one by a number

log = logging.getLogger(__name__)


class StartFailure(BennuError):
    """A start that failed; `exit_code` is 126, 127 or 128 and goes into the container's state."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnstartableCommand(StartFailure, InvalidParameter):
    """The command itself cannot be run (126 or 127): Docker answers 400."""


def start_failure(error: BaseException) -> BennuError:
    """Convert an error of a start for clients and the certificate. Raises: the errors that end the task itself."""
    if ends_task(error):
        raise error
    if isinstance(error, RuntimeFailure) and error.exit_code in (126, 127):
        return UnstartableCommand(str(error), error.exit_code)
    if isinstance(error, BennuError):
        return error
    log.error("a start failed by what nobody has foreseen", exc_info=error)
    return StartFailure(describe(error), START_FAILED)


def describe(error: BaseException) -> str:
    """Describe an unforeseen error in words."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}"
    return f"internal error: {type(error).__name__}: {error}"


def start_failure_code(error: BennuError) -> int:
    """Return the exit code for the state of a container whose start failed: 126, 127 or 128."""
    return error.exit_code if isinstance(error, StartFailure | RuntimeFailure) else START_FAILED


def is_shortage(error: BaseException) -> bool:
    """Tell whether the host lacked a resource, even if the error has been reworded since."""
    return any(
        one.errno in SHORTAGES if isinstance(one, OSError) else isinstance(one, RuntimeError) and str(one) == NO_THREAD
        for one in _origins(error)
    )


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def ends_task(error: BaseException) -> bool:
    """Tell whether this task has to end: it was cancelled itself, or the process ends.

    The cancellation of an awaited task is a failure like any other.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return not isinstance(error, Exception)
