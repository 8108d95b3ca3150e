"""Connections of strangers, when there are not enough descriptors for all."""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from bennu.descriptors import FOR_REQUESTS
from bennu.network.acceptor import PAUSE_S, Acceptor


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """The process may open so many more; none may be opened at random in between, so what is free lies above."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Door:
    """A listening socket with an acceptor, and who came in."""

    def __init__(self, held: contextlib.ExitStack) -> None:
        self._held = held
        self.taken: list[socket.socket] = []
        self.listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listener.setblocking(False)
        acceptor = Acceptor(self.listener, self.take)
        held.callback(acceptor.stop)

    def take(self, connection: socket.socket) -> None:
        self.taken.append(self._held.enter_context(connection))

    def knock(self) -> socket.socket:
        return self._held.enter_context(socket.create_connection(self.listener.getsockname(), timeout=2))


@pytest.fixture
async def door(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Door]:
    monkeypatch.setattr(Acceptor, "_warned_at", -1e9)
    caplog.set_level(logging.WARNING, logger="bennu.network.acceptor")
    with contextlib.ExitStack() as held:
        yield Door(held)


async def test_when_there_is_no_descriptor_those_who_knock_wait_and_it_costs_next_to_nothing(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        door.knock()
    with descriptors_left(0):
        before = time.process_time()
        await asyncio.sleep(2.5 * PAUSE_S)
        assert time.process_time() - before < PAUSE_S / 2
        assert not door.taken and len(caplog.messages) == 1
    async with asyncio.timeout(5):
        while len(door.taken) < 3:
            await asyncio.sleep(0.01)


async def test_the_last_descriptors_are_kept_back_for_others(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    spare = 4
    clients = [door.knock() for _ in range(20)]
    with descriptors_left(FOR_REQUESTS + spare):
        await asyncio.sleep(0.2)
        assert len(door.taken) == spare
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(FOR_REQUESTS)]
        for fd in files:
            os.close(fd)
    assert [client.recv(1) for client in clients[spare:]] == [b""] * (len(clients) - spare), "told at once"
    assert len(caplog.messages) == 1
