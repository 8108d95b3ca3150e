"""Further processes in a running container."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.kernel.pidfd import wait_gone
from bennu.kernel.procfs import is_alive
from bennu.model import ContainerConfig, HostConfig, Ulimit
from bennu.runtime import ExecRequest, NotAlive, RuntimeFailure
from support.containers import Workshop, needs_containers, open_workshop, read_all, wait_until

pytestmark = needs_containers


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as workshop:
        yield workshop


async def output_of(shop: Workshop, container_id: str, script: str, **more: object) -> str:
    process = await shop.runtime.execs.run(container_id, ExecRequest(args=["sh", "-c", script], **more))  # type: ignore[arg-type]
    stdout, stderr = await read_all(process)
    assert (await process.wait(), stderr) == (0, "")
    return stdout


async def test_output_and_exit_code(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    process = await shop.runtime.execs.run(container_id, ExecRequest(args=["sh", "-c", "echo o; echo e >&2; exit 7"]))
    assert await read_all(process) == ("o\n", "e\n")
    assert await process.wait() == 7


async def test_the_pid_is_the_hosts(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    process = await shop.runtime.execs.run(container_id, ExecRequest(args=["sleep", "61"]))
    # The kernel knows the new program a moment before its arguments.
    await wait_until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"sleep\x0061\x00")
    assert process.pid in shop.runtime.observer.pids(container_id)
    process.kill(signal.SIGTERM)
    assert await process.wait() == 128 + 15


async def test_input_ends_where_it_ends(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    process = await shop.runtime.execs.run(container_id, ExecRequest(args=["sh", "-c", "cat; echo end"], stdin=True))
    data = b"x" * 300_000 + b"\n"
    reading = asyncio.ensure_future(read_all(process))
    await process.write(data)
    await process.close_stdin()
    assert await reading == (data.decode() + "end\n", "")
    assert await process.wait() == 0


async def test_a_terminal(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    request = ExecRequest(args=["sh", "-c", "echo go; read x; stty size; tty; echo $TERM"], tty=True, stdin=True)
    process = await shop.runtime.execs.run(container_id, request)
    assert await process.read() == (1, b"go\r\n")
    await process.resize(20, 70)
    await process.write(b"\n")
    assert (await read_all(process))[0].split() == ["20", "70", "/dev/pts/0", "xterm"]
    assert await process.wait() == 0


async def test_a_terminal_has_its_size_from_the_start(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    script = "sleep 0.1; stty size"  # crun sets the size while the program already begins
    request = ExecRequest(args=["sh", "-c", script], tty=True, stdin=True, console_size=(44, 99))
    process = await shop.runtime.execs.run(container_id, request)
    assert await read_all(process) == ("44 99\r\n", "")


async def test_user_environment_and_directory(shop: Workshop) -> None:
    config = ContainerConfig(env=["COLOUR=red", "SIZE=big"], working_dir="/tmp", user="ada")
    container_id, _ = await shop.start("sleep", "60", config=config)
    show = "id -u; id -G; pwd; echo $COLOUR $SIZE $HOME"
    assert await output_of(shop, container_id, show) == "1000\n1000 10\n/tmp\nred big /home\n"
    changed = await output_of(shop, container_id, show, user="root", cwd="/etc", env=["COLOUR=blue", "SIZE"])
    assert changed == "0\n0\n/etc\nblue /root\n"


async def test_limits_and_rights_are_the_containers(shop: Workshop) -> None:
    host = HostConfig(cap_drop=["ALL"], cap_add=["CHOWN"], ulimits=[Ulimit(name="nofile", soft=111, hard=222)])
    container_id, _ = await shop.start("sleep", "60", host=host)
    show = "grep CapEff /proc/self/status; ulimit -n; ulimit -Hn"
    assert await output_of(shop, container_id, show) == "CapEff:\t0000000000000001\n111\n222\n"
    everything = await output_of(shop, container_id, "grep CapEff /proc/self/status", privileged=True)
    host_caps = Path("/proc/self/status").read_text().partition("CapEff:\t")[2].partition("\n")[0]
    assert everything == f"CapEff:\t{host_caps}\n"


@pytest.mark.parametrize(
    ("request_", "told", "code"),
    [
        pytest.param(
            ExecRequest(args=["nosuch"]), 'exec: "nosuch": executable file not found in $PATH: unknown', 127, id="name"
        ),
        pytest.param(
            ExecRequest(args=["/no/such"]), 'exec: "/no/such": stat /no/such: no such file or directory', 127, id="path"
        ),
        pytest.param(ExecRequest(args=["/etc/passwd"]), 'exec: "/etc/passwd": permission denied', 126, id="mode"),
        pytest.param(
            ExecRequest(args=["/etc"]), 'exec: "/etc": is a directory: permission denied', 126, id="directory"
        ),
        pytest.param(ExecRequest(args=["/text"]), 'exec: "/text": exec format error', 128, id="format"),
        pytest.param(
            ExecRequest(args=["/script"]), 'exec: "/script": no such file or directory', 127, id="no-interpreter"
        ),
        pytest.param(
            ExecRequest(args=["id"], cwd="/nowhere"),
            'chdir to cwd ("/nowhere") set in config.json failed: no such file or directory: unknown',
            127,
            id="workdir",
        ),
        pytest.param(ExecRequest(args=["nosuch"], tty=True), "executable file not found in $PATH", 127, id="tty"),
    ],
)
async def test_what_cannot_start_says_why(shop: Workshop, request_: ExecRequest, told: str, code: int) -> None:
    (shop.rootfs / "text").write_text("hello")
    (shop.rootfs / "script").write_text("#!/no/interpreter\n")
    for name in ("text", "script"):
        (shop.rootfs / name).chmod(0o755)
    container_id, _ = await shop.start("sleep", "60")
    with pytest.raises(RuntimeFailure) as caught:
        await shop.runtime.execs.run(container_id, request_)
    assert str(caught.value).startswith("OCI runtime exec failed: exec failed: unable to start container process: ")
    assert told in str(caught.value)
    assert caught.value.exit_code == code


async def test_an_unknown_user(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    with pytest.raises(RuntimeFailure, match="unable to find user nosuch: no matching entries"):
        await shop.runtime.execs.run(container_id, ExecRequest(args=["id"], user="nosuch"))


async def test_a_command_that_fails_with_the_codes_of_failed_starts(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    for code in (1, 126, 127, 255):
        process = await shop.runtime.execs.run(container_id, ExecRequest(args=["sh", "-c", f"exit {code}"]))
        assert await process.wait() == code
        process.discard()


async def test_it_dies_with_its_container(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    process = await shop.runtime.execs.run(container_id, ExecRequest(args=["sleep", "60"]))
    await shop.runtime.kill(container_id, signal.SIGKILL)
    async with asyncio.timeout(5):
        assert await process.wait() == 137
        assert await process.read() is None


async def test_there_is_no_exec_in_a_dead_container(shop: Workshop) -> None:
    container_id, created = await shop.start("true")
    await wait_gone(created.conmon_pid)
    with pytest.raises((NotAlive, RuntimeFailure)):
        await shop.runtime.execs.run(container_id, ExecRequest(args=["true"]))


async def test_what_it_left_behind_does_not_keep_its_streams_open(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    process = await shop.runtime.execs.run(container_id, ExecRequest(args=["sh", "-c", "sleep 60 & echo here"]))
    before = time.monotonic()
    assert await read_all(process) == ("here\n", "")
    assert time.monotonic() - before < 2


async def test_output_nobody_reads_does_not_hold_it_up(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    process = await shop.runtime.execs.run(container_id, ExecRequest(args=["seq", "1", "500000"]))
    await asyncio.sleep(0.1)
    assert is_alive(process.pid)
    process.discard()
    async with asyncio.timeout(10):
        assert await process.wait() == 0


async def test_a_cancelled_exec_leaves_no_process(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "600")
    for delay_s in (0.0, 0.002, 0.004, 0.006):
        task = asyncio.ensure_future(shop.runtime.execs.run(container_id, ExecRequest(args=["sleep", "60"], tty=True)))
        await asyncio.sleep(delay_s)
        task.cancel()
        try:
            process = await task
        except asyncio.CancelledError:
            pass
        else:
            process.kill()
            await process.wait()
    await wait_until(lambda: len(shop.runtime.observer.pids(container_id)) == 1, 2.0)
    assert not list(shop.runtime.bundles.of(container_id).root.glob("tty-*"))
