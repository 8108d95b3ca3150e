"""Holds processes that are not our children by descriptors, and waits for their end without a thread or polling."""

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator

from bennu.descriptors import reserve
from bennu.kernel.descriptor_io import wait_readable
from bennu.kernel.procfs import cmdline_of


def open_pidfd(pid: int) -> int:
    """Open a descriptor of the process, or of the zombie it has become. Raises: ProcessLookupError; OSError.

    While others are in the session or group that bore the number of one that is gone, older kernels answer EINVAL.
    """
    try:
        with reserve():  # to see somebody end
            return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.EINVAL and pid > 0:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        raise


@contextlib.contextmanager
def held(pid: int, is_it: Callable[[int], bool]) -> Iterator[int]:
    """Hold a descriptor of the process of this number, if it is the one that is meant.

    It is looked at once it is held, so that its number cannot go to another in between.
    Raises: ProcessLookupError if it is not; OSError.
    """
    pidfd = open_pidfd(pid)
    try:
        if not is_it(pid):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        yield pidfd
    finally:
        os.close(pidfd)


async def wait_gone(pid: int) -> None:
    """Return once the process has ended (a zombie has ended). Cancel-safe; returns at once if there is none."""
    with contextlib.suppress(ProcessLookupError), held(pid, lambda _: True) as pidfd:
        await wait_readable(pidfd)


async def kill_by_argument(pid: int, word: str) -> None:
    """Kill the process if it has this argument, and wait until it is gone. Another of that number is left alone."""
    with contextlib.suppress(ProcessLookupError), held(pid, lambda pid: word in cmdline_of(pid)) as pidfd:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await wait_readable(pidfd)
