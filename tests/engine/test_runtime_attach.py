"""A container's streams: nothing is lost, nobody is held up for good."""

import asyncio
import hashlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.kernel.pidfd import wait_gone
from bennu.kernel.procfs import is_alive
from bennu.model import ContainerConfig
from bennu.runtime import NotAlive, Runtime, attach
from support.containers import Workshop, needs_containers, open_workshop, read_all, wait_until

pytestmark = needs_containers

INTERACTIVE = ContainerConfig(open_stdin=True, stdin_once=True)
LASTING = ContainerConfig(open_stdin=True)
TERMINAL = ContainerConfig(tty=True, open_stdin=True)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as workshop:
        yield workshop


async def test_attached_before_the_start_nothing_is_missed(shop: Workshop) -> None:
    for _ in range(5):
        outcome = await shop.sh("echo first; echo second")
        assert outcome.stdout == "first\nsecond\n"


async def test_a_lot_of_output_arrives_whole_and_in_order(shop: Workshop) -> None:
    outcome = await shop.sh("seq 1 200000; seq 1 10 >&2")
    assert outcome.stdout == "".join(f"{n}\n" for n in range(1, 200001))
    assert outcome.stderr == "".join(f"{n}\n" for n in range(1, 11))


async def test_every_attached_client_gets_everything(shop: Workshop) -> None:
    container_id, _ = await shop.create("seq", "1", "5000")
    streams = [await shop.runtime.streams.attach(container_id) for _ in range(3)]
    await shop.runtime.start(container_id)
    results = await asyncio.gather(*(read_all(stream) for stream in streams))
    assert results == [("".join(f"{n}\n" for n in range(1, 5001)), "")] * 3


async def test_input_written_before_the_start_arrives(shop: Workshop) -> None:
    container_id, _ = await shop.create("cat", config=INTERACTIVE)
    stream = await shop.runtime.streams.attach(container_id)
    await stream.write(b"early\n")
    await stream.close_stdin()
    await shop.runtime.start(container_id)
    assert await read_all(stream) == ("early\n", "")


async def test_a_lot_of_input_arrives_whole(shop: Workshop) -> None:
    container_id, _ = await shop.create("md5sum", config=INTERACTIVE)
    stream = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    data = os.urandom(3_000_001)
    await stream.write(data)
    await stream.close_stdin()
    assert (await read_all(stream))[0] == f"{hashlib.md5(data).hexdigest()}  -\n"


async def test_the_end_of_input_leaves_the_output_open(shop: Workshop) -> None:
    container_id, _ = await shop.create("sh", "-c", "cat; sleep 0.1; echo after", config=INTERACTIVE)
    stream = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    await stream.write(b"in\n")
    await stream.close_stdin()
    assert await read_all(stream) == ("in\nafter\n", "")


async def test_a_client_that_leaves_does_not_end_the_input(shop: Workshop) -> None:
    container_id, created = await shop.create("cat", config=INTERACTIVE)
    watcher = await shop.runtime.streams.attach(container_id)
    writer = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    watcher.close()
    await asyncio.sleep(0.05)
    assert is_alive(created.pid)
    await writer.write(b"still here\n")
    await writer.close_stdin()
    assert await read_all(writer) == ("still here\n", "")


async def test_input_that_lasts_outlives_its_clients(shop: Workshop) -> None:
    container_id, created = await shop.start("cat", config=LASTING)
    first = await shop.runtime.streams.attach(container_id)
    await first.write(b"one\n")
    assert await first.read() == (1, b"one\n")
    await first.close_stdin()
    first.close()
    await asyncio.sleep(0.05)
    assert is_alive(created.pid)
    second = await shop.runtime.streams.attach(container_id)
    await second.write(b"two\n")
    assert await second.read() == (1, b"two\n")
    second.close()


async def test_input_survives_the_daemon_and_can_still_be_ended(shop: Workshop) -> None:
    """A process of its own plays the daemon that dies with a client attached."""
    container_id, created = await shop.create("cat", config=INTERACTIVE)
    await shop.runtime.start(container_id)
    child = os.fork()
    if child == 0:
        try:

            async def attach_and_die() -> None:
                stream = await Runtime(shop.folder / "x").streams.attach(container_id)
                await stream.write(b"before\n")
                os.kill(os.getpid(), signal.SIGKILL)

            asyncio.new_event_loop().run_until_complete(attach_and_die())
        finally:
            os._exit(1)
    await asyncio.to_thread(os.waitpid, child, 0)
    await wait_until(lambda: "before" in shop.log_of(container_id).read_text())
    assert is_alive(created.pid)
    stream = await Runtime(shop.folder / "x").streams.attach(container_id)
    await stream.write(b"after\n")
    await stream.close_stdin()
    assert await read_all(stream) == ("after\n", "")


async def test_without_open_input_the_container_reads_nothing(shop: Workshop) -> None:
    container_id, _ = await shop.create("cat")
    stream = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    await stream.write(b"ignored\n")
    assert await read_all(stream) == ("", "")


async def test_a_reader_that_went_away_is_told_to_the_writer(shop: Workshop) -> None:
    container_id, created = await shop.create("sh", "-c", "exec 0<&-; echo closed; sleep 60", config=INTERACTIVE)
    stream = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    assert await stream.read() == (1, b"closed\n")
    with pytest.raises(OSError, match=r"[Bb]roken pipe"):
        await stream.write(b"x")
    assert is_alive(created.pid)
    stream.close()


async def test_a_terminal_takes_input_and_gives_everything_as_output(shop: Workshop) -> None:
    container_id, _ = await shop.create("sh", "-c", "echo err >&2; read line; echo got $line", config=TERMINAL)
    stream = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    assert await stream.read() == (1, b"err\r\n")
    await stream.write(b"word\n")
    assert await read_all(stream) == ("word\r\ngot word\r\n", "")


async def test_a_terminal_follows_its_clients_size(shop: Workshop) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done"
    container_id, _ = await shop.create("sh", "-c", script, config=TERMINAL)
    stream = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    assert await stream.read() == (1, b"ready\r\n")
    await shop.runtime.streams.resize(container_id, 33, 101)
    assert await read_all(stream) == ("33 101\r\n", "")


async def test_the_last_of_many_sizes_wins(shop: Workshop) -> None:
    container_id, _ = await shop.start("sh", "-c", "read line; stty size", config=TERMINAL)
    stream = await shop.runtime.streams.attach(container_id)
    await asyncio.gather(*(shop.runtime.streams.resize(container_id, 10 + n, 80 + n) for n in range(5)))
    await stream.write(b"\n")
    assert (await read_all(stream))[0].endswith("14 84\r\n")


async def test_a_client_that_does_not_read_is_cut_off_and_the_container_goes_on(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "STUCK_AFTER_S", 0.3)
    monkeypatch.setattr(attach, "KEPT_BYTES", 1 << 18)
    container_id, created = await shop.create("sh", "-c", "seq 1 300000; echo done >&2")
    stuck = await shop.runtime.streams.attach(container_id)
    other = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    stdout, stderr = await read_all(other)
    assert (stdout.splitlines()[-1], stderr) == ("300000", "done\n")
    await wait_gone(created.conmon_pid)
    assert stuck.cut
    kept, _ = await read_all(stuck)
    assert kept.startswith("1\n2\n")


async def test_a_slow_client_loses_nothing(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "STUCK_AFTER_S", 0.5)
    monkeypatch.setattr(attach, "KEPT_BYTES", 1 << 16)
    container_id, _ = await shop.create("seq", "1", "100000")
    stream = await shop.runtime.streams.attach(container_id)
    await shop.runtime.start(container_id)
    got = bytearray()
    while piece := await stream.read():
        got += piece[1]
        await asyncio.sleep(0.002)
    stream.close()
    assert got.decode() == "".join(f"{n}\n" for n in range(1, 100001))


async def test_conmon_waits_for_a_client_that_does_not_take_its_share(shop: Workshop) -> None:
    """Why we always do: the container itself stops."""
    container_id, created = await shop.create("sh", "-c", "seq 1 300000; echo done")
    raw = await attach.connect_attach(shop.runtime.bundles.of(container_id).root)
    await shop.runtime.start(container_id)
    await asyncio.sleep(0.5)
    assert is_alive(created.pid)
    raw.shutdown(socket.SHUT_RDWR)
    raw.close()
    async with asyncio.timeout(5):
        await wait_gone(created.conmon_pid)


async def test_there_is_nothing_to_attach_to_after_the_end(shop: Workshop) -> None:
    container_id, created = await shop.start("true")
    await wait_gone(created.conmon_pid)
    with pytest.raises(NotAlive):
        await shop.runtime.streams.attach(container_id)


async def test_closing_wakes_a_reader(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    stream = await shop.runtime.streams.attach(container_id)
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0.01)
    stream.close()
    assert await reader is None
    stream.close()
