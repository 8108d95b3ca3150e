"""A command run again and again in a container, each time to its end, with all it starts in one control group."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.kernel.pidfd import wait_gone
from bennu.kernel.procfs import cmdline_of, is_alive
from bennu.model import ContainerConfig, HostConfig
from bennu.runtime import NotAlive, ProbeExec, ProbeExecResult, RuntimeFailure
from bennu.runtime.crun import sealed_copy
from support.containers import Workshop, needs_containers, open_workshop, wait_until

pytestmark = needs_containers
STUBBORN = "trap '' TERM HUP; setsid sh -c \"trap '' TERM; sleep 61 & sleep 62\" & (sleep 63 &); echo up; sleep 64"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as workshop:
        yield workshop


def sh(shop: Workshop, container_id: str, script: str) -> ProbeExec:
    return shop.runtime.execs.prepare_probe(container_id, ["sh", "-c", script], name="probe")


async def run(command: ProbeExec, timeout_s: float = 10) -> ProbeExecResult:
    return await command.run(timeout_s, keep_bytes=4096)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[int]:
    """Those of this process, with zombies."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(folder.name))
    return found


async def test_code_and_output_of_every_run(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    command = sh(shop, container_id, "echo out; echo err >&2; echo x >> /n; exit $(wc -l < /n)")
    assert [await run(command) for _ in range(3)] == [ProbeExecResult(code, b"out\nerr\n") for code in (1, 2, 3)]


async def test_a_signal_is_128_and_its_number(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    assert (await run(sh(shop, container_id, "kill -USR1 $$"))).exit_code == 128 + signal.SIGUSR1


async def test_user_folder_and_environment_are_the_containers(shop: Workshop) -> None:
    config = ContainerConfig(env=["COLOUR=red"], working_dir="/tmp", user="ada")
    container_id, _ = await shop.start("sleep", "60", config=config, host=HostConfig(oom_score_adj=77))
    ran = await run(sh(shop, container_id, "id -u; pwd; echo $COLOUR; read x; cat /proc/self/oom_score_adj"))
    assert ran.output == b"1000\n/tmp\nred\n77\n"


async def test_much_output_is_cut_and_holds_nothing_up(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    ran = await run(sh(shop, container_id, "seq 1 200000"))
    assert ran.exit_code == 0
    assert len(ran.output) == 4097 and ran.output.startswith(b"1\n2\n3\n")


async def test_what_cannot_be_started_is_told_in_runcs_words(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    command = shop.runtime.execs.prepare_probe(container_id, ["nosuch"], name="probe")
    for _ in range(50):  # what could not be started may take a moment longer to leave its group
        with pytest.raises(RuntimeFailure, match="executable file not found in") as failure:
            await run(command)
        assert failure.value.exit_code == 127


async def test_past_its_time_it_is_killed_with_all_it_started(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "600")
    began = time.monotonic()
    assert await run(sh(shop, container_id, STUBBORN), 0.4) == ProbeExecResult(None, b"up\n")
    assert time.monotonic() - began < 5
    assert len(shop.runtime.observer.pids(container_id)) == 1


async def test_what_it_left_in_the_background_is_gone_when_it_has_ended(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "600")
    assert await run(sh(shop, container_id, "setsid sleep 61 & yes & echo done")) is not None
    assert len(shop.runtime.observer.pids(container_id)) == 1


async def test_a_cancellation_at_any_moment_leaves_nothing(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "600")
    command = sh(shop, container_id, STUBBORN)
    await run(command, 0.05)
    before, others = descriptors(), children()
    for delay_ms in (0, 1, 2, 3, 4, 6, 8, 10, 15, 20, 40):
        task = asyncio.ensure_future(run(command))
        await asyncio.sleep(delay_ms / 1000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(shop.runtime.observer.pids(container_id)) == 1
        assert descriptors() == before
    assert children() <= others  # every child was reaped


async def test_a_run_that_a_killed_daemon_left_ends_before_the_next(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "600")
    first = asyncio.ensure_future(run(sh(shop, container_id, "exec sleep 61")))
    left = await wait_until(
        lambda: [pid for pid in shop.runtime.observer.pids(container_id) if "61" in cmdline_of(pid)]
    )
    second = asyncio.ensure_future(run(sh(shop, container_id, "echo next")))  # as of another daemon
    assert await second == ProbeExecResult(0, b"next\n")
    assert not is_alive(left[0])
    assert (await first).exit_code == 137


async def test_the_end_of_the_container_ends_it(shop: Workshop) -> None:
    container_id, created = await shop.start("sleep", "600")
    command, before = sh(shop, container_id, STUBBORN), descriptors()
    running = asyncio.ensure_future(run(command))
    await wait_until(lambda: len(shop.runtime.observer.pids(container_id)) >= 5)
    await shop.runtime.kill(container_id, signal.SIGKILL)
    await wait_gone(created.conmon_pid)
    await shop.runtime.delete(container_id)
    assert await running == ProbeExecResult(137, b"up\n")
    assert descriptors() == before


async def test_one_cut_off_while_frozen_ends_when_it_is_thawed(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "600")
    command = sh(shop, container_id, STUBBORN)
    running = asyncio.ensure_future(run(command))
    await wait_until(lambda: len(shop.runtime.observer.pids(container_id)) >= 5)
    await shop.runtime.freezer.pause(container_id)
    running.cancel()
    await asyncio.sleep(0.05)
    await shop.runtime.freezer.resume(container_id)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(shop.runtime.observer.pids(container_id)) == 1
    assert (await run(sh(shop, container_id, "echo again"))).output == b"again\n"


async def test_there_is_none_in_a_dead_container(shop: Workshop) -> None:
    container_id, created = await shop.start("sleep", "600")
    command = sh(shop, container_id, "true")
    await shop.runtime.kill(container_id, signal.SIGKILL)
    await wait_gone(created.conmon_pid)
    with pytest.raises((NotAlive, RuntimeFailure)):
        await run(command)


async def test_the_cpus_of_a_container_can_still_be_taken_away(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "600")
    command = sh(shop, container_id, "grep Cpus_allowed_list /proc/self/status")
    await run(command)
    await shop.runtime.update(container_id, HostConfig(cpuset_cpus="0"))
    assert (await run(command)).output.split() == [b"Cpus_allowed_list:", b"0"]


def test_crun_is_run_from_a_copy_nobody_can_change(shop: Workshop) -> None:
    copy = sealed_copy("/usr/bin/crun")
    assert Path(copy).read_bytes() == Path("/usr/bin/crun").read_bytes()
    with pytest.raises(PermissionError), Path(copy).open("r+b") as file:
        file.write(b"x")
