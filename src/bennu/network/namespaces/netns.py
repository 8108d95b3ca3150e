"""Network namespaces as pinned files, and threads that enter them (network_namespaces(7), setns(2)).

A namespace is a property of a thread, and a thread that has entered one must never do other work: each call that
enters runs in a thread of its own, which ends with the call. The daemon's other threads never leave its namespace.
"""

import _thread
import asyncio
import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

Result = TypeVar("Result")

CLONE_NEWNET: Final = 0x40000000
OWN: Final = Path("/proc/self/ns/net")  # of the daemon
MS_BIND: Final = 4096
MNT_DETACH: Final = 2
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


async def in_own_thread(work: Callable[[], Result]) -> Result:
    """Run blocking work in a new thread. A cancellation is raised only after the work ended, so it can be undone."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def body() -> None:
        try:
            result = work()
        except BaseException as error:  # handed to the waiter, whatever it is
            _call_soon(loop, _fail, future, error)
        else:
            _call_soon(loop, _succeed, future, result)

    _thread.start_new_thread(body, ())  # a `Thread` would hold up the loop until it runs, long on a busy machine
    return await finish(future)


def run_in_own_thread(work: Callable[[], Result]) -> Result:
    """Run work in a new thread and block until it ends. Raises: whatever the work raises."""
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed to the caller, whatever it is
            failure.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


async def finish(future: "asyncio.Future[Result]") -> Result:
    """Wait until the future is done, even if cancelled meanwhile; the cancellation is raised afterwards."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.done():
            await asyncio.wait([future])
        raise


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *args)


def _succeed(future: "asyncio.Future[Result]", result: Result) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Result]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def enter_new() -> None:
    """Move this thread into a new network namespace. Only in a thread of its own. Raises: OSError."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare")


def enter_own() -> None:
    """Move this thread back into the daemon's namespace. Raises: OSError."""
    enter(OWN)


def enter(path: str | Path) -> None:
    """Move this thread into the namespace behind `path`. Only in a thread of its own. Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(fd)


def pin(path: Path, source: str = "/proc/thread-self/ns/net") -> None:
    """Bind-mount this thread's namespace, or the one behind `source`, on the file `path`, which must not exist.

    The namespace lives as long as the mount. Raises: OSError; then no file is left.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        _check(_libc.mount(os.fsencode(source), os.fsencode(path), b"none", MS_BIND, None), f"mount {path}")
    except BaseException:
        path.unlink()
        raise


def unpin(path: Path) -> None:
    """Unmount and delete the file; the namespace ends with its last process. Idempotent. Raises: OSError."""
    while _libc.umount2(os.fsencode(path), MNT_DETACH) == 0:
        pass  # several mounts may be stacked on it
    path.unlink(missing_ok=True)


@functools.cache
def _device() -> int:
    """Return the device number of nsfs."""
    return OWN.stat().st_dev


def is_pinned(path: str | Path) -> bool:
    """Check that a namespace is mounted on the file; after a reboot the file may be empty or missing."""
    try:
        return Path(path).stat().st_dev == _device()
    except OSError:
        return False


def find_in_group(container_id: str) -> str:
    """Find the network namespace of a container's first process, as a /proc path; "" if it has none of its own.

    The control group of its processes has the container's id in its name. Processes may have made namespaces of their
    own, so the oldest process counts. Slow: reads all of /proc.
    """
    own = OWN.stat().st_ino
    found: list[tuple[int, str]] = []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdigit() and f"/{container_id}" in Path(entry, "cgroup").read_text():
                namespace = f"{entry.path}/ns/net"
                started = Path(entry, "stat").read_text().rpartition(")")[2].split()[19]
                if Path(namespace).stat().st_ino != own:
                    found.append((int(started), namespace))
    return min(found)[1] if found else ""
