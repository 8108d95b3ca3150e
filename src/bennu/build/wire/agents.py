"""SSH agents of clients, as sockets on this host."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bennu.build.wire.grpc import Outgoing
from bennu.build.wire.http2_stream import StreamReset
from bennu.build.wire.messages import BytesMessage
from bennu.build.wire.session import FORWARD_AGENT, ClientSession
from bennu.errors import BennuError

PIECE: Final = 1 << 15
MAX_CONNECTIONS: Final = 64  # to one agent at once


@contextlib.asynccontextmanager
async def forward_agent(session: ClientSession, agent: str, folder: Path, name: str) -> AsyncIterator[Path]:
    """Lend a client's agent as the socket `folder/name`, for the block; each connection is a call of its own."""
    calls: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(calls) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.ensure_future(_carry(session, agent, reader, writer))
        calls.add(task)
        task.add_done_callback(calls.discard)

    place = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:  # a socket's path is short: the folder is named by its descriptor
        server = await asyncio.start_unix_server(connected, f"/proc/self/fd/{place}/{name}")
    finally:
        os.close(place)
    try:
        yield folder / name
    finally:
        server.close()
        for task in list(calls):
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        (folder / name).unlink(missing_ok=True)


async def _carry(
    session: ClientSession, agent: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry one connection until either side has ended."""
    call: Outgoing | None = None
    try:
        call = session.begin(FORWARD_AGENT, [("buildkit.ssh.id", agent)])
        asking = asyncio.ensure_future(_ask(reader, call))
        try:
            while (message := await call.receive()) is not None:
                writer.write(BytesMessage.decode(message).data)
                await writer.drain()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    except (BennuError, StreamReset, ConnectionError):
        pass  # who asked sees the end
    finally:
        if call is not None:
            call.cancel()
        writer.close()


async def _ask(reader: asyncio.StreamReader, call: Outgoing) -> None:
    with contextlib.suppress(StreamReset):
        while data := await reader.read(PIECE):
            await call.send(BytesMessage(data))
        await call.end()
