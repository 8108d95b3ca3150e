"""HTTP/2 and gRPC of both roles over a link in memory; and what the other side may not do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bennu.build.wire.grpc import MAX_MESSAGE, Call, Code, Method, RpcFailed, answers, ask, begin
from bennu.build.wire.http2 import (
    CONNECTION_WINDOW,
    DATA,
    END_HEADERS,
    HEADERS,
    MAX_STREAMS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2,
)
from bennu.build.wire.http2_stream import STREAM_WINDOW, StreamReset
from bennu.build.wire.messages import AnyValue, BytesMessage
from bennu.errors import InvalidParameter, NotImplementedHere
from support.links import link_pair

METHODS: dict[str, Method] = {}


def method(function: Method) -> Method:
    METHODS[f"/test/{function.__name__}"] = function  # type: ignore[attr-defined]
    return function


@method
async def echo(call: Call) -> None:
    while (message := await call.receive()) is not None:
        await call.send(message)


@method
async def refuse(call: Call) -> None:
    raise RpcFailed(Code.NOT_FOUND, "100 % – nothing\nhere", [AnyValue("a/b", b"\0\1")])


@method
async def complain(call: Call) -> None:
    raise InvalidParameter("so not")


@method
async def hang(call: Call) -> None:
    BEGUN.set()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    ENDED.set()


@method
async def sink(call: Call) -> None:
    """Take nothing until told to."""
    await TAKE.wait()
    size = 0
    while (message := await call.receive()) is not None:
        size += len(message)
    await call.send(BytesMessage(str(size).encode()))


BEGUN, ENDED, TAKE = asyncio.Event(), asyncio.Event(), asyncio.Event()


def forget() -> None:
    """Make the events anew: each test has an event loop of its own."""
    global BEGUN, ENDED, TAKE
    BEGUN, ENDED, TAKE = asyncio.Event(), asyncio.Event(), asyncio.Event()


@contextlib.asynccontextmanager
async def connected(methods: Mapping[str, Method] = METHODS) -> AsyncIterator[Http2]:
    forget()
    ours, theirs = link_pair()
    client, server = Http2(ours, serve=None), Http2(theirs, serve=answers(methods))
    running = [asyncio.create_task(one.run()) for one in (client, server)]
    try:
        yield client
    finally:
        await ours.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*running)


async def test_a_call_is_answered() -> None:
    async with connected() as client:
        assert await ask(client, "/test/echo", BytesMessage(b"hello"), BytesMessage) == BytesMessage(b"hello")


async def test_many_calls_at_once_with_large_messages_do_not_mix() -> None:
    async with connected() as client:
        sent = [BytesMessage(bytes([number]) * (number * 20_000)) for number in range(1, 40)]
        assert await asyncio.gather(*(ask(client, "/test/echo", one, BytesMessage) for one in sent)) == sent


async def test_a_message_of_the_largest_size_passes_and_none_above_it() -> None:
    async with connected() as client:
        call = begin(client, "/test/echo")
        sending = asyncio.create_task(call.send(b"x" * MAX_MESSAGE, end=True))
        assert len(await call.receive() or b"") == MAX_MESSAGE
        await sending
        await call.check()
        call = begin(client, "/test/echo")
        await call.send_framed(b"\0" + (MAX_MESSAGE + 1).to_bytes(4))
        with pytest.raises(RpcFailed, match="too long") as caught:
            await call.check()
        assert caught.value.code == Code.RESOURCE_EXHAUSTED


async def test_errors_come_with_their_code_and_words() -> None:
    async with connected() as client:
        with pytest.raises(RpcFailed, match="100 % – nothing\nhere") as caught:
            await ask(client, "/test/refuse", BytesMessage(), BytesMessage)
        assert caught.value.code == Code.NOT_FOUND
        with pytest.raises(RpcFailed, match="so not") as caught:
            await ask(client, "/test/complain", BytesMessage(), BytesMessage)
        assert caught.value.code == Code.UNKNOWN
        with pytest.raises(RpcFailed, match=r"nothing of a\.b is not implemented") as caught:
            await ask(client, "/a.b/nothing", BytesMessage(), BytesMessage)
        assert caught.value.code == Code.UNIMPLEMENTED


async def test_what_is_not_implemented_is_said_with_its_own_code() -> None:
    async def lack(call: Call) -> None:
        raise NotImplementedHere("that is not implemented")

    async with connected({"/test/lack": lack}) as client:
        with pytest.raises(RpcFailed) as caught:
            await ask(client, "/test/lack", BytesMessage(), BytesMessage)
        assert caught.value.code == Code.UNIMPLEMENTED


async def test_a_call_that_is_broken_off_ends_who_serves_it() -> None:
    async with connected() as client:
        call = begin(client, "/test/hang")
        await BEGUN.wait()
        call.cancel()
        async with asyncio.timeout(5):
            await ENDED.wait()


async def test_a_connection_that_ends_ends_all_its_calls() -> None:
    async with connected() as client:
        begin(client, "/test/hang")
        await BEGUN.wait()
    assert ENDED.is_set()
    with pytest.raises(StreamReset):
        begin(client, "/test/echo")


async def test_metadata_longer_than_a_frame_arrives() -> None:
    async def count(call: Call) -> None:
        await call.send(BytesMessage("".join(value for key, value in call.metadata if key == "pattern").encode()))

    async with connected({"/test/count": count}) as client:
        values = [f"{number:0100d}" for number in range(1000)]
        call = begin(client, "/test/count", [("pattern", value) for value in values])
        await call.end()
        answer = await call.receive()
        assert BytesMessage.decode(answer or b"").data == "".join(values).encode()


async def test_who_sends_waits_while_nobody_takes() -> None:
    async with connected() as client:
        call = begin(client, "/test/sink")
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(100):
                await call.send(b"x" * 100_000)
                sent += 100_000
            await call.end()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.1)
        assert sent <= STREAM_WINDOW
        TAKE.set()
        answer = await call.receive()
        await sending
        assert BytesMessage.decode(answer or b"").data == b"10000000"


async def test_one_call_that_nobody_takes_from_does_not_stop_the_others() -> None:
    async with connected() as client:
        stuck = begin(client, "/test/sink")
        sending = asyncio.create_task(stuck.send(b"x" * (4 << 20)))
        for _ in range(20):
            assert await ask(client, "/test/echo", BytesMessage(b"y" * 500_000), BytesMessage)
        assert not sending.done()
        sending.cancel()


# --- what the other side may not do -----------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


async def served(*sent: bytes, wait_s: float = 5) -> bytes:
    """Send bytes to a server; answer all that it says until it ends the connection, or is told that it has ended."""
    forget()
    ours, theirs = link_pair()
    server = asyncio.create_task(Http2(theirs, serve=answers(METHODS)).run())
    said = bytearray()

    async def listen() -> None:
        while (data := await ours.read()) is not None:
            said.extend(data)

    listening = asyncio.create_task(listen())
    for data in sent:
        with contextlib.suppress(ConnectionResetError):
            await ours.write(data)
        await asyncio.sleep(0)
    await asyncio.wait([server], timeout=0.05)
    await ours.close()
    async with asyncio.timeout(wait_s):
        await server
        await listening
    return bytes(said)


GREETING = PREFACE + frame(SETTINGS, 0, 0)
OPEN = frame(HEADERS, END_HEADERS, 1, bytes.fromhex("83") + bytes.fromhex("86") + b"\x04\x0a/test/sink")
FAULTS = {
    "no HTTP/2": b"GET / HTTP/1.1\r\n\r\n",
    "a frame that is too long": GREETING + b"\xff\xff\xff\0\0\0\0\0\1",
    "data of a stream that was not opened": GREETING + frame(DATA, 0, 7, b"x"),
    "a window that overflows": GREETING + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    "settings of a wrong size": GREETING + frame(SETTINGS, 0, 0, b"x"),
    "headers that are interrupted": GREETING + frame(HEADERS, 0, 1) + frame(PING, 0, 0, b"12345678"),
    "headers that go on without a begin": GREETING + frame(9, 0, 1),
    "headers that are none": GREETING + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
    "more padding than there is": GREETING + OPEN + frame(DATA, 8, 1, b"\x09x"),
    "an even stream": GREETING + frame(HEADERS, END_HEADERS, 2, b"\x83"),
    "a ping of a wrong size": GREETING + frame(PING, 0, 0, b"1"),
    "a push": GREETING + frame(5, 4, 1, b"\0\0\0\2"),
    "headers without end": GREETING + frame(HEADERS, 0, 1) + frame(9, 0, 1, b"\0" * 16000) * 80,
    "more data than the window": GREETING + OPEN + frame(DATA, 0, 1, b"x" * 16000) * (STREAM_WINDOW // 16000 + 10),
}


@pytest.mark.parametrize("sent", FAULTS.values(), ids=FAULTS.keys())
async def test_who_does_not_keep_to_http2_is_told_so_and_left(sent: bytes) -> None:
    said = await served(sent)
    assert b"\x07\0\0\0\0\0" in said, "no GOAWAY"


async def test_pings_are_answered_and_unknown_frames_ignored() -> None:
    said = await served(GREETING + frame(77, 0, 0, b"what") + frame(PING, 0, 0, b"12345678"))
    assert frame(PING, 1, 0, b"12345678") in said


async def test_who_asks_without_reading_is_left() -> None:
    forget()
    ours, theirs = link_pair()
    server = asyncio.create_task(Http2(theirs, serve=answers(METHODS)).run())

    async def ask_on() -> None:
        await ours.write(GREETING)
        while True:
            await ours.write(frame(PING, 0, 0, b"12345678") * 1000)

    asking = asyncio.create_task(ask_on())
    async with asyncio.timeout(30):
        await server
    asking.cancel()


async def test_no_more_streams_than_allowed_are_open_at_once() -> None:
    opened = b"".join(
        frame(HEADERS, END_HEADERS, 1 + 2 * number, b"\x83\x86\x04\x0a/test/hang") for number in range(MAX_STREAMS + 5)
    )
    said = await served(GREETING + opened)
    assert said.count(bytes((0, 0, 4, RST_STREAM))) == 5


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=40)),
        max_size=12,
    ),
    st.binary(max_size=20),
)
def test_any_frames_end_in_an_orderly_way(frames: list[bytes], rest: bytes) -> None:
    async def run() -> None:
        forget()
        ours, theirs = link_pair()
        server = Http2(theirs, serve=answers(METHODS))
        running = asyncio.create_task(server.run())
        with contextlib.suppress(ConnectionResetError):
            await ours.write(GREETING + b"".join(frames) + rest)
        await asyncio.sleep(0)
        await ours.close()
        async with asyncio.timeout(5):
            await running

    asyncio.run(run())


def test_the_windows_of_one_connection_hold_a_few_streams() -> None:
    assert 2 * STREAM_WINDOW <= CONNECTION_WINDOW <= 16 << 20
