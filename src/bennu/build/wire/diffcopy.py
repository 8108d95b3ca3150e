"""Receiving a folder of the client's: fsutil's protocol (fsutil `receive.go`, `send.go`, `validator.go`).

The client tells of each entry (STAT) in order; we ask by number for the contents we want (REQ); it sends them (DATA),
several files mixed; we say that we have all (FIN) and end.
"""

import asyncio
import contextlib
import posixpath
import urllib.parse
from collections.abc import Sequence
from typing import Final, Protocol

from bennu.build.wire.grpc import Outgoing
from bennu.build.wire.http2_stream import Headers, StreamReset
from bennu.build.wire.messages import Packet, Stat
from bennu.build.wire.protobuf import put_varint, read_bytes, read_varint, skip
from bennu.build.wire.session import DIFF_COPY, ClientSession, SessionGone
from bennu.errors import BennuError, InvalidParameter

STAT, REQ, DATA, FIN, ERR = range(5)
TYPE_BITS: Final = 0x8F280000  # of Go's os.FileMode: ModeType
DIR: Final = 1 << 31
SYMLINK: Final = 1 << 27
IDLE_S: Final = 120.0  # a client that is silent for so long is given up
MAX_ENTRIES: Final = 500_000
MAX_STAT_BYTES: Final = 128 << 20  # of what it tells of all entries
MAX_PATH: Final = 4096
MAX_NAME: Final = 255
MAX_LINKS: Final = 40


class Receiver(Protocol):
    """Who takes what comes."""

    async def entry(self, number: int, stat: Stat, raw: bytes) -> bool:
        """Take the next entry, in order; answer whether its contents are wanted."""
        ...

    async def data(self, number: int, data: bytes) -> None:
        """Take contents of an entry; none at all is their end."""
        ...

    async def flush(self) -> None:
        """Pass on what was taken: nothing more is here for the moment."""
        ...


def options(
    name: str, *, include: Sequence[str] = (), exclude: Sequence[str] = (), follow: Sequence[str] = ()
) -> Headers:
    """Write what of which folder is asked for, as metadata of the call (BuildKit `session/filesync/filesync.go`)."""
    given = {"include-patterns": include, "exclude-patterns": exclude, "followpaths": follow, "dir-name": (name,)}
    headers: list[tuple[str, str]] = []
    for key, values in given.items():
        coded = not all(_is_plain(value) for value in values)
        headers += [(key, urllib.parse.quote(value) if coded else value) for value in values]
        headers += [(f"{key}-encoded", "1")] if coded else []
    return headers


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


async def receive(session: ClientSession, what: Headers, receiver: Receiver) -> None:
    """Receive a folder. Raises: InvalidParameter, RpcFailed, SessionGone; what `receiver` raises."""
    call = session.begin(DIFF_COPY, what)
    transfer = Transfer(call, receiver)
    try:
        await transfer.run()
    except StreamReset as error:
        raise SessionGone(f"the client broke off sending files: {error}") from None
    except TimeoutError:
        raise SessionGone("the client does not go on with sending files") from None
    finally:
        call.cancel()


class Transfer:
    """One run of the protocol."""

    def __init__(self, call: Outgoing, receiver: Receiver) -> None:
        self._call = call
        self._receiver = receiver
        self._order = Order()
        self._told = 0
        self._stat_bytes = 0
        self._all_told = False
        self._asked: set[int] = set()  # whose contents are on the way
        self._to_ask = bytearray()  # requests that were not sent yet
        self._asking = asyncio.Event()

    async def run(self) -> None:
        asking = asyncio.create_task(self._ask())
        try:
            while not (self._all_told and not self._asked):
                message = self._call.receive_ready()
                if message is None:
                    await self._receiver.flush()
                    async with asyncio.timeout(IDLE_S):
                        message = await self._call.receive()
                if message is None:
                    await self._call.check()
                    raise InvalidParameter("the client sent less than it announced")
                await self._take(message)
        except (BennuError, OSError) as error:
            with contextlib.suppress(StreamReset, TimeoutError):
                async with asyncio.timeout(1):
                    await self._call.send(Packet(ERR, data=str(error).encode()), end=True)
            raise
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await self._finish()

    async def _finish(self) -> None:
        with contextlib.suppress(StreamReset):  # it has ended: all is here
            await self._call.send(Packet(FIN), end=True)
            async with asyncio.timeout(IDLE_S):
                while await self._call.receive() is not None:
                    pass
                await self._call.check()

    async def _ask(self) -> None:
        """Send requests beside the receiving: if both waited for each other, nothing would go on."""
        with contextlib.suppress(StreamReset):
            while True:
                await self._asking.wait()
                self._asking.clear()
                frames, self._to_ask = bytes(self._to_ask), bytearray()
                await self._call.send_framed(frames)

    async def _take(self, message: bytes) -> None:
        kind, number, stat, data = read_packet(message)
        match kind:
            case 0 if stat is None:
                self._all_told = True
            case 0:
                assert stat is not None
                await self._entry(stat)
            case 2:
                await self._data(number, data)
            case 4:
                raise BennuError(f"error from sender: {data[:1000].decode('utf-8', 'replace')}")
            case _:
                raise InvalidParameter(f"a client that sends files does not send packets of kind {kind}")

    async def _entry(self, raw: bytes) -> None:
        stat = Stat.decode(raw)
        self._stat_bytes += len(raw)
        if self._all_told or self._told >= MAX_ENTRIES or self._stat_bytes > MAX_STAT_BYTES:
            raise InvalidParameter("a folder of too many entries")
        self._order.check(stat)
        number = self._told
        self._told += 1
        if await self._receiver.entry(number, stat, raw):
            self._asked.add(number)
            packet = bytearray(b"\x08\x01")
            if number:
                packet.append(0x18)
                put_varint(packet, number)
            self._to_ask += b"\0" + len(packet).to_bytes(4) + packet
            self._asking.set()

    async def _data(self, number: int, data: bytes) -> None:
        if number not in self._asked:
            raise InvalidParameter(f"invalid file request {number}")
        if not data:
            self._asked.discard(number)
        await self._receiver.data(number, data)


def read_packet(message: bytes) -> tuple[int, int, bytes | None, bytes]:
    """Read a packet: its kind, number, status and data. Raises: Malformed."""
    kind = number = at = 0
    stat: bytes | None = None
    data = b""
    while at < len(message):
        tag, at = read_varint(message, at)
        if tag == 0x08:
            kind, at = read_varint(message, at)
        elif tag == 0x12:
            stat, at = read_bytes(message, at)
        elif tag == 0x18:
            number, at = read_varint(message, at)
        elif tag == 0x22:
            data, at = read_bytes(message, at)
        else:
            at = skip(message, at, tag & 7)
    return kind, number, stat, data


class Order:
    """Holds entries to what a walk of a real folder gives: clean names, in order, each below a folder told before."""

    def __init__(self) -> None:
        self._folders: list[str] = [""]  # with a slash at the end: those that the next entry may lie in
        self._last: list[str] = [""]  # in each of them, the name that came last
        self._files: set[str] = set()

    def check(self, stat: Stat) -> None:
        """Check the next entry. Raises: InvalidParameter."""
        folder, name = _split(stat.path)
        while self._folders and self._folders[-1] != folder:
            self._folders.pop()
            self._last.pop()
        if not self._folders or self._last[-1] >= name:
            raise InvalidParameter(f"changes out of order: {stat.path[:300]!r}")
        self._last[-1] = name
        if stat.mode & TYPE_BITS == DIR:
            self._folders.append(f"{stat.path}/")
            self._last.append("")
        elif not stat.mode & TYPE_BITS:
            if stat.linkname and stat.linkname not in self._files:
                raise InvalidParameter(f"invalid link {stat.path[:300]!r} to an entry that was not sent before")
            if not stat.linkname:
                self._files.add(stat.path)


def _split(path: str) -> tuple[str, str]:
    head, slash, name = path.rpartition("/")
    parts = path.split("/")
    if not path or len(path.encode()) > MAX_PATH or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidParameter(f"invalid path: {path[:300]!r}")
    if len(name.encode()) > MAX_NAME:
        raise InvalidParameter(f"file name too long: {path[:300]!r}")
    return head + slash, name


class SmallFiles:
    """A `Receiver` that keeps a few files by name, also those that links lead to."""

    def __init__(self, names: Sequence[str], limit: int) -> None:
        self._names = tuple(names)
        self._limit = limit
        self._files: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._open: dict[int, tuple[str, bytearray]] = {}
        self._size = 0

    async def entry(self, number: int, stat: Stat, raw: bytes) -> bool:
        kind = stat.mode & TYPE_BITS
        if kind == SYMLINK or (stat.linkname and not kind):
            near = posixpath.dirname(stat.path) if kind == SYMLINK and not stat.linkname.startswith("/") else ""
            self._links[stat.path] = posixpath.normpath(posixpath.join(near, stat.linkname)).lstrip("/")
        elif not kind:
            self._open[number] = (stat.path, bytearray())
        return not kind and not stat.linkname

    async def data(self, number: int, data: bytes) -> None:
        name, content = self._open[number]
        content += data
        self._size += len(data)
        if self._size > self._limit:
            raise InvalidParameter(f"{name} is too large")
        if not data:
            self._files[name] = bytes(content)

    async def flush(self) -> None:
        pass

    def found(self) -> dict[str, bytes]:
        """Answer the contents of those files that there are."""
        found: dict[str, bytes] = {}
        for name in self._names:
            place = posixpath.normpath(name)
            for _ in range(MAX_LINKS):
                place = self._links.get(place, place)
            if place in self._files:
                found[name] = self._files[place]
        return found
