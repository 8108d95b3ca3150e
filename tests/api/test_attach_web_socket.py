"""`/containers/{id}/attach/ws`: the container's streams over a web socket."""

import asyncio

import aiohttp
import pytest

from support.cli import Cli
from support.daemon import Daemon


async def test_it_speaks_both_ways_unframed_and_ends_with_the_container(
    daemon: Daemon, docker: Cli, busybox: str
) -> None:
    docker("run", "-d", "-i", "--name", "echo", "--network", "none", busybox, "cat")
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(daemon.socket))) as session,
        session.ws_connect("http://x/containers/echo/attach/ws?stdin=1&stdout=1&stream=1") as socket,
    ):
        await socket.send_bytes(b"hello\n")
        assert (await socket.receive(timeout=10)).data == b"hello\n"
        await socket.send_str("text too\n")
        assert (await socket.receive(timeout=10)).data == b"text too\n"
        await asyncio.to_thread(docker, "kill", "echo")
        assert (await socket.receive(timeout=10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_a_client_that_leaves_leaves_the_container(daemon: Daemon, docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "stays", "--network", "none", busybox, "sleep", "100")
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(daemon.socket))) as session:
        socket = await session.ws_connect("http://x/containers/stays/attach/ws?stdout=1&stream=1")
        await socket.close()
    assert docker("inspect", "-f", "{{.State.Running}}", "stays").line == "true"


async def test_an_unknown_container_is_an_ordinary_404(daemon: Daemon) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(daemon.socket))) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect("http://x/containers/nope/attach/ws")
    assert refused.value.status == 404


async def test_what_was_written_before_comes_first_when_it_is_asked_for(
    daemon: Daemon, docker: Cli, busybox: str
) -> None:
    docker("run", "--name", "wrote", "--network", "none", busybox, "echo", "before")
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(daemon.socket))) as session,
        session.ws_connect("http://x/containers/wrote/attach/ws?stdout=1&logs=1") as socket,
    ):
        assert (await socket.receive(timeout=10)).data == b"before\n"
        assert (await socket.receive(timeout=10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
