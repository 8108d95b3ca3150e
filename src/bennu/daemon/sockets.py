"""The sockets bennud answers on, and the locks that keep a second bennud off its roots."""

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.daemon.hosts import split_tcp
from bennu.descriptors import EXHAUSTED, FOR_ENDS, reserve
from bennu.errors import BennuError, Conflict

SOCKET_MODE: Final = 0o660
# What containers put below the roots has their owners and modes, setuid programs too: no other user gets there.
ROOT_MODE: Final = 0o710
FIRST_PASSED_FD: Final = 3


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket; `path` is the file it made, if it made one."""

    socket: socket.socket
    path: Path | None = None

    def close(self) -> None:
        """Close the socket and remove its file, so that clients are told at once that nobody listens. Idempotent."""
        self.socket.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class LocalListener(socket.socket):
    """A unix socket that hears a client even when the daemon has opened all it may: it may want to end something."""

    _was_exhausted = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; without a free descriptor, raise that error once, and then say that nobody waits.

        asyncio pauses a second for the first, but goes on asking as often as clients may wait, and logs each time.
        """
        if self._was_exhausted:
            self._was_exhausted = False
            raise BlockingIOError
        try:
            with reserve(leave=FOR_ENDS):
                return super().accept()
        except OSError as error:
            self._was_exhausted = error.errno in EXHAUSTED
            raise


def open_listeners(hosts: tuple[str, ...], group: str, *, exec_root: Path, has_tls: bool) -> list[Listener]:
    """Open one or more listeners for each host; users who may use a socket in `exec_root` can reach it there.

    Raises: BennuError; then none is left open.
    """
    listeners: list[Listener] = []
    try:
        for host in hosts:
            if host.startswith("fd:"):
                listeners += [Listener(passed) for passed in passed_sockets()]
            elif host.startswith("tcp:"):
                listeners.append(listen_tcp(*split_tcp(host)))
            else:
                path = Path(host.removeprefix("unix://"))
                listeners.append(listen_unix(path, group))
                if group and path.is_relative_to(exec_root):
                    os.chown(exec_root, -1, find_group(group))
        if not has_tls and any(listener.socket.family != socket.AF_UNIX for listener in listeners):
            raise BennuError("a socket that was passed is no unix socket: that needs --tlsverify")
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def listen_tcp(address: str, port: int) -> Listener:
    """Listen on TCP; `address` "::" is every address, of both families where the host has both. Raises: BennuError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    both = address == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((address, port), family=family, backlog=1024, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BennuError(f"cannot listen on tcp://{address}:{port}: {why.partition(' (')[0]}") from error
    listener.setblocking(False)
    return Listener(listener)


def listen_unix(path: Path, group: str) -> Listener:
    """Listen on a new socket at `path`, mode 0660; it replaces one without a listener. Raises: BennuError."""
    gid = find_group(group) if group else -1
    try:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        remove_stale(path)
        listener = LocalListener(socket.AF_UNIX, socket.SOCK_STREAM)
        former = os.umask(0o777 & ~SOCKET_MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(former)
        os.chown(path, -1, gid)
    except OSError as error:
        raise BennuError(f"cannot listen on unix://{path}: {error.strerror or error}") from error
    listener.listen(1024)
    listener.setblocking(False)
    return Listener(listener, path)


def remove_stale(path: Path) -> None:
    """Take away the socket of a process that is gone. Raises: Conflict if somebody listens, or it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"cannot listen on unix://{path}: the file exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        refused = probe.connect_ex(str(path))
    if refused not in (errno.ECONNREFUSED, errno.ENOENT):
        raise Conflict(f"cannot listen on unix://{path}: another process listens there")
    path.unlink(missing_ok=True)


def find_group(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise BennuError(f"group {group} not found") from None


def passed_sockets() -> list[socket.socket]:
    """Take the sockets that the service manager opened for us (`fd://`). Raises: BennuError when there is none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise BennuError("no sockets found via socket activation: make sure the service was started by systemd")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    passed = [socket.socket(fileno=fd) for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + count)]
    for listener in passed:
        listener.setblocking(False)
        os.set_inheritable(listener.fileno(), False)
    return passed


@contextlib.contextmanager
def hold_roots(*roots: Path) -> Iterator[None]:
    """Own these folders as long as the block runs; the kernel lets go when the process dies, however it dies.

    They are made if they are missing, and closed to other users whatever they were.
    Raises: Conflict naming the process that owns one of them.
    """
    with contextlib.ExitStack() as stack:
        for root in dict.fromkeys(roots):
            try:
                root.mkdir(mode=ROOT_MODE, parents=True, exist_ok=True)
                os.chown(root, 0, 0)
                root.chmod(ROOT_MODE)
                lock = stack.enter_context((root / "lock").open("a+"))
            except OSError as error:
                raise BennuError(f"cannot use {root}: {error.strerror}") from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read(20).strip() or "unknown"
                raise Conflict(f"{root} is in use by another bennud (pid {holder})") from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        yield
