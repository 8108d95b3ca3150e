"""Who is at the other end of the socket, for the death certificate: process, user and command line, or certificate."""

import contextlib
import socket
import struct
from pathlib import Path
from typing import Final

from aiohttp import web

from bennu.lifecycle.death import Asker

CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid
MAX_COMMAND: Final = 512


def requester_of(request: web.Request) -> Asker:
    """The client's process as the kernel vouches for it, or whom its certificate names; nothing when it has left."""
    subject: str | None = getattr(request.protocol, "subject", None)
    if subject is not None:
        return Asker(kind="client", subject=subject or "a certificate without a subject")
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None:
        return Asker(kind="client")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _gid = CREDENTIALS.unpack(raw)
    return Asker(kind="client", uid=uid, pid=pid, command=read_command(pid))


def read_command(pid: int) -> str:
    """The command line of a process, cut to 512 characters; empty when it is gone (or in another pid namespace)."""
    with contextlib.suppress(OSError):
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()[: 4 * MAX_COMMAND]
        return show_command(raw.rstrip(b"\0").decode(errors="replace").split("\0"))[:MAX_COMMAND]
    return ""


def show_command(words: list[str]) -> str:
    """As a person typed it, in one printable line: without the interpreter of a script and the program's folder."""
    words = ["".join(sign if sign.isprintable() else " " for sign in word) for word in words]
    program = words[0].rpartition("/")[2]
    if program.startswith("python") and len(words) > 1 and not words[1].startswith("-"):
        return " ".join([words[1].rpartition("/")[2], *words[2:]])
    return " ".join([program, *words[1:]])
