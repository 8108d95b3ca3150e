"""Create, start, signal, end, delete: real conmon and crun."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.kernel.pidfd import wait_gone
from bennu.kernel.procfs import find_by_argument, is_alive
from bennu.model import ContainerConfig, HostConfig
from bennu.runtime import BundleRequest, NotAlive, Runtime, RuntimeFailure
from support.containers import Workshop, needs_containers, open_workshop, read_all, wait_until

pytestmark = needs_containers


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as workshop:
        yield workshop


@pytest.mark.parametrize("code", [0, 1, 44, 255])
async def test_an_exit_code_is_on_record(shop: Workshop, code: int) -> None:
    before = time.time_ns()
    outcome = await shop.sh(f"echo out; echo err >&2; exit {code}")
    assert (outcome.stdout, outcome.stderr, outcome.exit_code) == ("out\n", "err\n", code)
    assert outcome.end is not None
    assert before - 10_000_000 <= outcome.end.finished_at_ns <= time.time_ns()


async def test_nothing_runs_before_start(shop: Workshop) -> None:
    container_id, created = await shop.create("sh", "-c", "echo ran")
    await asyncio.sleep(0.1)
    assert is_alive(created.pid)
    assert shop.log_of(container_id).read_text() == ""
    await shop.runtime.start(container_id)
    await wait_gone(created.conmon_pid)
    await shop.runtime.logs.finish(container_id)
    assert '"log":"ran\\n","stream":"stdout"' in shop.log_of(container_id).read_text()


async def test_a_signal_that_kills_shows_in_the_exit_code(shop: Workshop) -> None:
    container_id, created = await shop.start("sleep", "60")
    await shop.runtime.kill(container_id, signal.SIGKILL)
    await wait_gone(created.conmon_pid)
    end = shop.runtime.observer.read_exit(container_id)
    assert end is not None
    assert end.exit_code == 128 + 9


async def test_the_first_process_gets_the_signal_it_handles(shop: Workshop) -> None:
    container_id, created = await shop.start(
        "sh", "-c", "trap 'exit 15' TERM; echo ready; while :; do sleep 0.02; done"
    )
    await wait_until(lambda: "ready" in shop.log_of(container_id).read_text())
    await shop.runtime.kill(container_id, signal.SIGTERM)
    await wait_gone(created.conmon_pid)
    end = shop.runtime.observer.read_exit(container_id)
    assert end is not None
    assert end.exit_code == 15


async def test_a_dead_container_cannot_be_signalled(shop: Workshop) -> None:
    container_id, created = await shop.start("true")
    await wait_gone(created.conmon_pid)
    with pytest.raises(NotAlive):
        await shop.runtime.kill(container_id, signal.SIGTERM)


async def test_delete_kills_everything_and_may_be_repeated(shop: Workshop) -> None:
    container_id, created = await shop.start("sh", "-c", "sleep 60 & sleep 60; true")
    await wait_until(lambda: len(shop.runtime.observer.pids(container_id)) == 3)
    await shop.runtime.delete(container_id)
    assert not is_alive(created.pid)
    assert not is_alive(created.conmon_pid)
    assert shop.runtime.observer.pids(container_id) == []
    await shop.runtime.delete(container_id)


async def test_the_same_id_can_live_again(shop: Workshop) -> None:
    container_id, first = await shop.start("true")
    await wait_gone(first.conmon_pid)
    place = shop.runtime.bundles.of(container_id)
    assert place.exit_file.exists()
    spec = await shop.spec(container_id, "false", config=ContainerConfig(), host=HostConfig())
    second = await shop.runtime.create(container_id, BundleRequest(spec=spec, log=None))
    assert shop.runtime.observer.read_exit(container_id) is None
    await shop.runtime.start(container_id)
    await wait_gone(second.conmon_pid)
    end = shop.runtime.observer.read_exit(container_id)
    assert end is not None
    assert end.exit_code == 1


async def test_a_failed_creation_leaves_nothing(shop: Workshop) -> None:
    with pytest.raises(RuntimeFailure, match="executable file not found") as caught:
        await shop.create("nosuch")
    assert caught.value.exit_code == 127
    assert list((shop.folder / "x/c").iterdir()) == []
    assert list((shop.folder / "x/oci").iterdir()) == []


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.002, 0.004, 0.007, 0.01])
async def test_a_cancelled_creation_leaves_nothing(shop: Workshop, delay_s: float) -> None:
    task = asyncio.ensure_future(shop.create("sleep", "60"))
    await asyncio.sleep(delay_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [container_id] = shop.made
    assert shop.runtime.observer.pids(container_id) == []
    assert shop.runtime.cgroups.folders(f"/bennu/{container_id}") == []
    assert list((shop.folder / "x/c").iterdir()) == []
    assert list((shop.folder / "x/oci").iterdir()) == []


async def test_conmon_belongs_to_nobody(shop: Workshop) -> None:
    _, created = await shop.start("sleep", "60")
    assert os.getsid(created.conmon_pid) == created.conmon_pid
    assert not pipes_of("self") & pipes_of(created.conmon_pid)
    groups = Path(f"/proc/{created.conmon_pid}/cgroup").read_text().splitlines()
    assert {line.split(":", 2)[2] for line in groups} <= {"/", "/bennu/conmon"}


def pipes_of(pid: int | str) -> set[str]:
    links = [link for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    targets = [link.readlink() for link in links]
    return {str(target) for target in targets if "pipe:" in str(target)}


async def test_a_killed_conmon_leaves_the_end_unknown(shop: Workshop) -> None:
    container_id, created = await shop.start("sleep", "60")
    os.kill(created.conmon_pid, signal.SIGKILL)
    await wait_gone(created.conmon_pid)
    assert shop.runtime.observer.read_exit(container_id) is None
    recovered = shop.runtime.observer.recover(container_id)
    assert (recovered.conmon_pid, recovered.pid) == (0, created.pid)
    await shop.runtime.delete(container_id)
    assert not is_alive(created.pid)


async def test_another_runtime_finds_what_lives_and_what_ended(shop: Workshop) -> None:
    living, created = await shop.start("sleep", "60")
    ended, other = await shop.start("sh", "-c", "exit 9")
    await wait_gone(other.conmon_pid)
    successor = Runtime(shop.folder / "x")
    found = successor.observer.recover(living)
    assert (found.conmon_pid, found.pid, found.exit) == (created.conmon_pid, created.pid, None)
    found = successor.observer.recover(ended)
    assert (found.conmon_pid, found.pid) == (0, 0)
    assert found.exit is not None
    assert found.exit.exit_code == 9
    found = successor.observer.recover("0" * 64)
    assert (found.conmon_pid, found.pid, found.exit) == (0, 0, None)


@pytest.mark.parametrize("after_s", [0.0, 0.0, 0.001, 0.002, 0.003, 0.006, 0.01, 0.1])
async def test_what_a_daemon_that_died_was_creating_can_be_deleted(shop: Workshop, after_s: float) -> None:
    """A process of its own plays the daemon that dies while conmon begins."""
    container_id = shop.new_id()
    spec = await shop.spec(container_id, "sleep", "60", config=ContainerConfig(), host=HostConfig())
    child = os.fork()
    if child == 0:
        try:
            runtime = Runtime(shop.folder / "x")

            async def die(pid: int) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            runtime._enter_conmon_group = die  # type: ignore[method-assign]
            request = BundleRequest(spec=spec, log=None)
            asyncio.new_event_loop().run_until_complete(runtime.create(container_id, request))
        finally:
            os._exit(1)
    await asyncio.to_thread(os.waitpid, child, 0)
    await asyncio.sleep(after_s)
    assert shop.runtime.bundles.ids() == [container_id]
    await shop.runtime.delete(container_id)
    await asyncio.sleep(0.1)
    assert shop.runtime.bundles.ids() == []
    assert find_by_argument(f"--cid={container_id}") == find_by_argument(container_id) == []
    assert shop.runtime.cgroups.folders(f"/bennu/{container_id}") == []
    assert list((shop.folder / "x/oci").iterdir()) == []


async def test_what_is_left_in_a_shared_pid_namespace_is_killed_at_the_end(shop: Workshop) -> None:
    container_id, created = await shop.start("sh", "-c", "(while :; do echo y; sleep 0.01; done) & exit 4", pid_ns="")
    async with asyncio.timeout(5):
        await shop.runtime.observer.wait_end(container_id)
    assert shop.runtime.observer.pids(container_id) == []
    end = shop.runtime.observer.read_exit(container_id)
    assert end is not None
    assert end.exit_code == 4
    assert not is_alive(created.pid)


async def test_a_long_exec_root_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    async with open_workshop(deep) as shop:
        outcome = await shop.sh("echo far")
        assert (outcome.stdout, outcome.exit_code) == ("far\n", 0)
        container_id, _ = await shop.create("sh", "-c", "echo tty", config=ContainerConfig(tty=True))
        stream = await shop.runtime.streams.attach(container_id)
        await shop.runtime.start(container_id)
        assert await read_all(stream) == ("tty\r\n", "")
