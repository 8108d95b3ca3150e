"""What bennud and the writer say to each other: one object in JSON a message, over a socket of `SOCK_SEQPACKET`.

* `{"write": {…a Job…}, "ask": N}`: write this run's log from now on; one that is known is left alone. With it may come
  a reading end of the pipe, else it is opened by its path. `{"answer": N}`.
* `{"finish": ID, "ask": N}`: `{"answer": N}` once everything that its pipe holds is in its log, which is closed.
* `{"only": [ID, …]}`: finish all others.
* `{"ask": N}`: `{"answer": N, "sources": FINGERPRINT}`.
* `{"leave": true}`: write down what is unfinished, for the next writer, and end.
* `{"complaint": TEXT}`, from the writer: lines are lost.
* `{"file": true}`, from bennud: the message is longer than `MAX_MESSAGE` and in a file, whose descriptor comes first.
"""

import json
import os
import socket
import zlib
from pathlib import Path
from typing import Any, Final, NamedTuple

MAX_MESSAGE: Final = 1 << 17
SOCKET: Final = "logwriter"
HELD: Final = "logwriter.held"  # what a writer that left had read and could not write yet


class Job(NamedTuple):
    """One run's log. `run` names the run, for a container has one after the other; `pipe` is where its lines come from.

    `json`: Docker's lines, else conmon's. `attrs`: an object in JSON that each line has, or nothing. `max_bytes` 0: no
    bound. `ring`: bytes that may wait for the log before lines are dropped; -1: the container waits instead.
    """

    id: str
    log: str
    run: str = ""
    pipe: str = ""
    json: bool = True
    attrs: str = ""
    max_bytes: int = 0
    max_files: int = 1
    compress: bool = False
    ring: int = -1


def send(channel: socket.socket, message: dict[str, Any], pipe: int = -1) -> None:
    """Send a message, and a pipe with it unless it is -1. Raises: OSError."""
    data, descriptors = json.dumps(message).encode(), [pipe] if pipe >= 0 else []
    if len(data) <= MAX_MESSAGE:
        socket.send_fds(channel, [data], descriptors)
        return
    with os.fdopen(os.memfd_create("message"), "wb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        file.seek(0)
        socket.send_fds(channel, [b'{"file": true}'], [file.fileno(), *descriptors])


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, int]:
    """Receive a message, and the pipe that came with it, else -1; None: nobody is there any more. Raises: OSError."""
    data, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE, 2)
    message: dict[str, Any] | None = json.loads(data) if data else None
    if message is not None and "file" in message:
        if not descriptors:
            raise OSError("no descriptor is left for a message")
        with os.fdopen(descriptors.pop(0), "rb") as file:
            message = json.load(file)
    return message, descriptors[0] if descriptors else -1


def fingerprint() -> str:
    """Answer what tells these sources from those of another version."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in files)):08x}"
