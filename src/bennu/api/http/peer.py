"""Tells who is at the other end of a connection, for the death certificate: process and user, or TLS certificate.

Apart from its only user, `routes/containers.py`, because it asks the kernel and /proc and not the engine.
"""

import contextlib
import socket
import struct
from pathlib import Path
from typing import Final

from aiohttp import web

from bennu.lifecycle.death import Requester

CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid
MAX_COMMAND: Final = 512


def requester_of(request: web.Request) -> Requester:
    """Name the client: the process that the kernel vouches for (SO_PEERCRED), or the subject of its certificate."""
    subject: str | None = getattr(request.protocol, "subject", None)
    if subject is not None:
        return Requester(kind="client", subject=subject or "a certificate without a subject")
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None:
        return Requester(kind="client")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _gid = CREDENTIALS.unpack(raw)
    return Requester(kind="client", uid=uid, pid=pid, command=read_command(pid))


def read_command(pid: int) -> str:
    """Read the command line of a process, cut to 512 characters; "" when it is gone or in another PID namespace."""
    with contextlib.suppress(OSError):
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()[: 4 * MAX_COMMAND]
        return show_command(raw.rstrip(b"\0").decode(errors="replace").split("\0"))[:MAX_COMMAND]
    return ""


def show_command(words: list[str]) -> str:
    """Write a command line as a person typed it, in one printable line, without interpreter and folders."""
    words = ["".join(sign if sign.isprintable() else " " for sign in word) for word in words]
    program = words[0].rpartition("/")[2]
    if program.startswith("python") and len(words) > 1 and not words[1].startswith("-"):
        return " ".join([words[1].rpartition("/")[2], *words[2:]])
    return " ".join([program, *words[1:]])
