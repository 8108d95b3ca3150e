"""TLS at the edge: a session relayed to a plain stream socket, so that what stands behind it knows nothing of it.

asyncio's own TLS ends a connection at the peer's half-close; but `docker run -i` closes its sending side and reads on.
"""

import asyncio
import contextlib
import select
import socket
import ssl
from typing import Final

READ_SIZE: Final = 65536
KEEP_ALIVE_S: Final = 15  # as Go's servers and clients; after nine without an answer the kernel gives up
LAST_WORDS_S: Final = 1.0  # for what the peer had under way when our side ended


class TlsSession:
    """The server's side of a session over a connected, non-blocking socket; reading and writing may overlap."""

    def __init__(self, context: ssl.SSLContext, connection: socket.socket) -> None:
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._connection = connection
        self._sending = asyncio.Lock()
        self._read_ahead = bytearray()

    async def shake_hands(self) -> None:
        """Perform the handshake. Raises: ssl.SSLError (its alert has been sent), OSError."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()
                raise
        await self._flush()

    @property
    def subject(self) -> str:
        """Of the peer's certificate: `O=Ops, CN=alice`; "" without one."""
        return show_subject(self._tls.getpeercert() or {})

    @property
    def certificate(self) -> str:
        """The peer's certificate in PEM; "" without one."""
        shown = self._tls.getpeercert(binary_form=True)
        return ssl.DER_cert_to_PEM_cert(shown) if shown else ""

    async def read(self) -> bytes:
        """Read what the peer sent; b"" when it said that it will send no more. Raises: OSError when it was cut off."""
        while True:
            if data := bytes(self._read_ahead):
                self._read_ahead.clear()
                return data
            try:
                return self._tls.read(READ_SIZE)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()

    async def write(self, data: bytes) -> None:
        """Send `data` encrypted. Raises: OSError when the peer is gone."""
        self._tls.write(data)
        await self._flush()

    async def end_sending(self) -> None:
        """Tell the peer that no more comes; it may go on sending. Raises: OSError when it is gone."""
        # The library looks for the peer's own end at once, and would throw away what it finds in its place.
        with contextlib.suppress(ssl.SSLError):
            while data := self._tls.read(READ_SIZE):
                self._read_ahead += data
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()

    async def closed(self) -> None:
        """Wait until the peer closes the connection beneath."""
        with contextlib.suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self._connection, READ_SIZE):
                pass

    async def _fill(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._connection, READ_SIZE)
        if not data:
            raise ConnectionResetError("the connection ended without the end of its TLS session")
        self._received.write(data)

    async def _flush(self) -> None:
        if not self._to_send.pending:
            return  # who reads must not wait until the peer takes what another is sending: it may write first
        async with self._sending:  # a record must not be cut by another
            if data := self._to_send.read():
                await asyncio.get_running_loop().sock_sendall(self._connection, data)


def prepare(connection: socket.socket) -> None:
    """Set up a TCP connection for a session: it never blocks nor delays, and ends within minutes of its peer's loss."""
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        connection.setsockopt(socket.IPPROTO_TCP, option, KEEP_ALIVE_S)


async def relay(session: TlsSession, plain: socket.socket) -> None:
    """Carry bytes between a session and a plain stream socket, half-closes too, until both have ended or one is cut.

    The caller closes both sockets.
    """
    inward = asyncio.ensure_future(_carry_in(session, plain))
    outward = asyncio.ensure_future(_carry_out(plain, session))
    try:
        done, _ = await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
        if outward in done:
            reads_on = outward.result()
            while reads_on and not (inward.done() or _is_closed(plain)):
                await asyncio.wait((inward,), timeout=LAST_WORDS_S)
            await asyncio.wait((inward,), timeout=LAST_WORDS_S)
    finally:
        for task in (inward, outward):
            task.cancel()
        await asyncio.gather(inward, outward, return_exceptions=True)


def _is_closed(plain: socket.socket) -> bool:
    """Tell whether both directions are closed, by either side."""
    poll = select.poll()
    poll.register(plain, 0)
    return bool(poll.poll(0))


async def _carry_in(session: TlsSession, plain: socket.socket) -> None:
    """Carry what the peer sends to the plain socket; returns when the peer is gone."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        try:
            while data := await session.read():
                await loop.sock_sendall(plain, data)
            plain.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # nobody takes it any more; the answer may still be on its way
        await session.closed()


async def _carry_out(plain: socket.socket, session: TlsSession) -> bool:
    """Carry to the peer what comes; False: it is gone. True: it knows that no more comes, and may itself go on."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(plain, READ_SIZE):
            await session.write(data)
    try:
        await session.end_sending()
    except OSError:
        return False
    return True


SHORT_NAMES: Final = {
    "commonName": "CN",
    "countryName": "C",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
}
ESCAPED: Final = str.maketrans({"\\": r"\\", ",": r"\,"})  # else one value could look like several


def show_subject(certificate: dict) -> str:  # type: ignore[type-arg]
    """Write the subject of what `getpeercert` gives, in its own order, in one printable line."""
    parts = [(SHORT_NAMES.get(name, name), value) for part in certificate.get("subject", ()) for name, value in part]
    line = ", ".join(f"{name}={value.translate(ESCAPED)}" for name, value in parts)
    return "".join(sign if sign.isprintable() else " " for sign in line)
