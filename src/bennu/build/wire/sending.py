"""Sending a result to the client: a folder by fsutil's protocol, or one stream of bytes (`session/filesync`)."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Protocol

from bennu.build.wire.diffcopy import DATA, ERR, FIN, REQ, STAT, TYPE_BITS, read_packet
from bennu.build.wire.grpc import Outgoing
from bennu.build.wire.http2_stream import StreamReset
from bennu.build.wire.messages import BytesMessage, Packet, Stat
from bennu.build.wire.session import SEND_FILES, ClientSession, SessionGone
from bennu.errors import BennuError, InvalidParameter

PIECE: Final = 32 << 10  # of contents in a message, as fsutil has it
STREAM_PIECE: Final = 1 << 20
EXPORTER: Final = "buildkit-attachable-exporter-id"

Heard = Callable[[int], None]


class SentThing(Protocol):
    """An entry of a tree, as the helper tells of it."""

    @property
    def path(self) -> bytes: ...
    @property
    def mode(self) -> int: ...  # Go's os.FileMode
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def link(self) -> bytes: ...
    @property
    def device(self) -> tuple[int, int]: ...
    @property
    def attributes(self) -> Mapping[str, bytes]: ...


class SourceTree(Protocol):
    """A tree that is sent: all entries first, then the bytes of those that are asked for."""

    def entries(self) -> AsyncIterator[SentThing]: ...

    def read(self, path: bytes) -> AsyncIterator[bytes]: ...


async def send_folder(session: ClientSession, number: int, tree: SourceTree, heard: Heard) -> None:
    """Send a tree to the client's output `number`. Raises: BennuError, SessionGone."""
    call = session.begin(SEND_FILES, [(EXPORTER, str(number))])
    try:
        files = await _tell(call, tree, heard)
        while (message := await call.receive()) is not None:
            kind, wanted, _, data = read_packet(message)
            if kind == FIN:
                await call.send(Packet(FIN), end=True)
                break
            if kind == ERR:
                raise BennuError(f"error from receiver: {data[:1000].decode('utf-8', 'replace')}")
            if kind != REQ or wanted not in files:
                raise InvalidParameter(f"invalid file request {wanted}")
            await _send_file(call, wanted, tree.read(files.pop(wanted)), heard)
        await call.check()
    except StreamReset as error:
        raise SessionGone(f"the client broke off receiving files: {error}") from None
    finally:
        call.cancel()


async def _tell(call: Outgoing, tree: SourceTree, heard: Heard) -> dict[int, bytes]:
    """Tell of all entries; answer the files that may be asked for, by number."""
    files: dict[int, bytes] = {}
    number = 0
    async for entry in tree.entries():
        stat = Stat(
            path=entry.path.decode("utf-8", "replace"),
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size=entry.size,
            mod_time=entry.mtime_ns,
            linkname=entry.link.decode("utf-8", "replace"),
            devmajor=entry.device[0],
            devminor=entry.device[1],
            xattrs=dict(entry.attributes),
        )
        if not entry.mode & TYPE_BITS and not entry.link:
            files[number] = entry.path
        packet = Packet(STAT, stat)
        await call.send(packet)
        heard(1)
        number += 1
    await call.send(Packet(STAT))
    return files


async def _send_file(call: Outgoing, number: int, pieces: AsyncIterator[bytes], heard: Heard) -> None:
    async for data in pieces:
        for at in range(0, len(data), PIECE):
            await call.send(Packet(DATA, id=number, data=data[at : at + PIECE]))
        heard(len(data))
    await call.send(Packet(DATA, id=number))


async def send_bytes(session: ClientSession, number: int, pieces: AsyncIterator[bytes], heard: Heard) -> None:
    """Send one stream of bytes to the client's output `number`. Raises: RpcFailed, SessionGone."""
    call = session.begin(SEND_FILES, [(EXPORTER, str(number))])
    try:
        async for data in pieces:
            for at in range(0, len(data), STREAM_PIECE):
                await call.send(BytesMessage(data[at : at + STREAM_PIECE]))
            heard(len(data))
        await call.end()
        await call.check()
    except StreamReset as error:
        raise SessionGone(f"the client broke off receiving: {error}") from None
    finally:
        call.cancel()
