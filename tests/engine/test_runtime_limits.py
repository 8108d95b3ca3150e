"""What a container may and may not: limits, rights, namespaces, mounts, as its processes feel them."""

import asyncio
import os
import shutil
import signal
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.kernel.pidfd import wait_gone
from bennu.model import ContainerConfig, Device, HostConfig, MountPoint, Ulimit
from bennu.runtime import RuntimeFailure, SpecRequest
from support.containers import Workshop, needs_containers, open_workshop, wait_until

pytestmark = needs_containers

MIB = 1 << 20
EAT = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as workshop:
        yield workshop


# --- memory -------------------------------------------------------------------------------------------------------


async def test_who_eats_too_much_memory_is_killed_and_that_stays_known(shop: Workshop) -> None:
    container_id, created = await shop.start("sh", "-c", EAT, host=HostConfig(memory=16 * MIB, memory_swap=16 * MIB))
    await wait_gone(created.conmon_pid)
    end = shop.runtime.observer.read_exit(container_id)
    assert end is not None
    assert end.exit_code == 137
    assert shop.runtime.observer.oom_kills(container_id) >= 1
    limit, peak = shop.runtime.observer.memory_marks(container_id)
    assert limit == 16 * MIB
    assert 12 * MIB < peak <= 16 * MIB
    await shop.runtime.delete(container_id)
    assert shop.runtime.observer.oom_kills(container_id) == 0


async def test_memory_trouble_is_heard_as_it_happens(shop: Workshop) -> None:
    """A child is killed; the container lives on."""
    script = f"trap '' USR1; (sleep 0.1; {EAT}); echo survived; sleep 60"
    container_id, _ = await shop.start("sh", "-c", script, host=HostConfig(memory=16 * MIB, memory_swap=16 * MIB))
    heard: list[int] = []

    async def listen() -> None:
        async for count in shop.runtime.observer.watch_oom(container_id):
            heard.append(count)

    listener = asyncio.ensure_future(listen())
    await wait_until(lambda: heard, 10)
    assert heard[0] >= 1
    await wait_until(lambda: "survived" in shop.log_of(container_id).read_text())
    assert not listener.done()
    await shop.runtime.delete(container_id)
    async with asyncio.timeout(5):
        await listener


async def test_a_container_without_trouble_ends_the_listening_silently(shop: Workshop) -> None:
    container_id, _ = await shop.start("sleep", "60")
    heard = []

    async def listen() -> None:
        async for count in shop.runtime.observer.watch_oom(container_id):
            heard.append(count)

    listener = asyncio.ensure_future(listen())
    await asyncio.sleep(0.05)
    await shop.runtime.delete(container_id)
    async with asyncio.timeout(5):
        await listener
    assert heard == []


async def test_limits_change_while_it_lives(shop: Workshop) -> None:
    container_id, _ = await shop.start(
        "sleep", "60", host=HostConfig(memory=64 * MIB, memory_swap=64 * MIB, pids_limit=40)
    )
    new = HostConfig(memory=32 * MIB, memory_swap=48 * MIB, pids_limit=11, nano_cpus=250_000_000, cpu_shares=333)
    await shop.runtime.update(container_id, new)
    stats = await shop.runtime.observer.stats(container_id)
    assert stats.memory["limit"] == 32 * MIB
    assert stats.pids["limit"] == 11
    if not shop.runtime.cgroups.unified:
        folder = shop.runtime.cgroups.folder("cpu", f"/bennu/{container_id}")
        assert (folder / "cpu.cfs_quota_us").read_text() == "25000\n"
        assert (folder / "cpu.shares").read_text() == "333\n"
    await shop.runtime.update(container_id, HostConfig(memory=32 * MIB, memory_swap=48 * MIB))
    stats = await shop.runtime.observer.stats(container_id)
    assert stats.pids["limit"] == 2**64 - 1


# --- cpu, pids, process limits ------------------------------------------------------------------------------------


async def test_no_more_processes_than_allowed(shop: Workshop) -> None:
    outcome = await shop.sh("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", host=HostConfig(pids_limit=4))
    assert "can't fork" in outcome.stderr


async def test_statistics_count(shop: Workshop) -> None:
    container_id, _ = await shop.start("sh", "-c", "while :; do :; done", host=HostConfig(memory=64 * MIB))
    began_ns = time.monotonic_ns()
    first = await shop.runtime.observer.stats(container_id)
    used = 0
    async with asyncio.timeout(20):
        while used <= 20_000_000:  # on a busy host its turn may be long in coming
            await asyncio.sleep(0.1)
            second = await shop.runtime.observer.stats(container_id)
            used = second.cpu["cpu_usage"]["total_usage"] - first.cpu["cpu_usage"]["total_usage"]
    assert used < 2 * (time.monotonic_ns() - began_ns), "one process uses one processor"
    assert second.cpu["system_cpu_usage"] > first.cpu["system_cpu_usage"]
    assert second.pids["current"] == 1
    assert 0 < second.memory["usage"] < second.memory["limit"] == 64 * MIB


async def test_process_limits_are_lowered_to_ours(shop: Workshop) -> None:
    limits = [Ulimit(name="nofile", soft=100, hard=2**40), Ulimit(name="core", soft=0, hard=0)]
    outcome = await shop.sh("ulimit -n; ulimit -Hn; ulimit -c", host=HostConfig(ulimits=limits))
    soft, hard, core = outcome.stdout.split()
    assert (soft, core) == ("100", "0")
    assert int(hard) > 100


async def test_an_unknown_process_limit(shop: Workshop) -> None:
    with pytest.raises(RuntimeFailure, match="RLIMIT_BOGUS") as caught:
        await shop.sh("true", host=HostConfig(ulimits=[Ulimit(name="bogus", soft=1, hard=1)]))
    assert caught.value.exit_code == 128


@pytest.mark.parametrize("score", [0, 500, -500])
async def test_the_oom_score_is_as_asked_or_as_near_as_we_may(shop: Workshop, score: int) -> None:
    outcome = await shop.sh("cat /proc/self/oom_score_adj", host=HostConfig(oom_score_adj=score))
    allowed = shop.runtime.host.can_raise_limits
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(outcome.stdout) == (score if allowed else max(score, own))


# --- freezing -----------------------------------------------------------------------------------------------------


async def test_a_paused_container_stands_still_and_goes_on(shop: Workshop) -> None:
    container_id, _ = await shop.start("sh", "-c", "while :; do echo tick; sleep 0.01; done")
    log = shop.log_of(container_id)
    await wait_until(lambda: log.stat().st_size > 0)
    await shop.runtime.freezer.pause(container_id)
    await asyncio.sleep(0.05)
    size = log.stat().st_size
    await asyncio.sleep(0.1)
    assert log.stat().st_size == size
    await shop.runtime.freezer.resume(container_id)
    await wait_until(lambda: log.stat().st_size > size)


async def test_a_paused_container_can_be_deleted(shop: Workshop) -> None:
    container_id, created = await shop.start("sleep", "60")
    await shop.runtime.freezer.pause(container_id)
    async with asyncio.timeout(10):
        await shop.runtime.delete(container_id)
    assert not Path(f"/proc/{created.pid}").exists() or "Z" in Path(f"/proc/{created.pid}/stat").read_text()


async def test_a_signal_waits_for_the_thaw(shop: Workshop) -> None:
    container_id, created = await shop.start("sleep", "60")
    await shop.runtime.freezer.pause(container_id)
    await shop.runtime.kill(container_id, signal.SIGKILL)
    await shop.runtime.freezer.resume(container_id)
    async with asyncio.timeout(5):
        await wait_gone(created.conmon_pid)


# --- rights -------------------------------------------------------------------------------------------------------


async def status_of(shop: Workshop, host: HostConfig, config: ContainerConfig | None = None) -> dict[str, str]:
    outcome = await shop.run("cat", "/proc/self/status", host=host, config=config)
    return dict(line.split(":\t", 1) for line in outcome.stdout.splitlines() if ":\t" in line)


async def test_default_rights(shop: Workshop) -> None:
    status = await status_of(shop, HostConfig())
    assert [status[name] for name in ("CapBnd", "CapPrm", "CapEff")] == ["00000000a80425fb"] * 3
    assert [status[name] for name in ("CapInh", "CapAmb")] == ["0000000000000000"] * 2
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "0")


async def test_another_user_holds_nothing(shop: Workshop) -> None:
    status = await status_of(shop, HostConfig(group_add=["video", "777"]), ContainerConfig(user="ada"))
    assert [status[name] for name in ("CapPrm", "CapEff")] == ["0000000000000000"] * 2
    assert status["CapBnd"] == "00000000a80425fb"
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Groups"].split() == ["10", "44", "777", "1000"]


async def test_no_new_privileges_and_no_filter(shop: Workshop) -> None:
    status = await status_of(shop, HostConfig(security_opt=["no-new-privileges", "seccomp=unconfined"]))
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("0", "1")


async def test_the_filter_forbids_what_its_conditions_say(shop: Workshop) -> None:
    assert (await shop.sh("unshare -u true")).exit_code != 0
    added = HostConfig(cap_add=["SYS_ADMIN"])
    assert (await shop.sh("unshare -u true", host=added)).exit_code == 0


async def test_the_filter_is_the_same_when_it_has_been_compiled_before(shop: Workshop) -> None:
    script = "grep -E 'Seccomp(_filters)?:' /proc/self/status; unshare -u true"
    first, second, third = [await shop.sh(script) for _ in range(3)]
    assert first.exit_code != 0
    assert (first.stdout, first.stderr) == (second.stdout, second.stderr) == (third.stdout, third.stderr)
    assert (await shop.sh("unshare -u true", host=HostConfig(cap_add=["SYS_ADMIN"]))).exit_code == 0


async def test_a_filter_of_ones_own(shop: Workshop) -> None:
    rule = '{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}'
    profile = f'{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}'
    outcome = await shop.sh("mkdir /tmp/x", host=HostConfig(security_opt=[f"seccomp={profile}"]))
    assert outcome.exit_code == 1
    assert "Permission denied" in outcome.stderr


async def test_privileged_means_everything(shop: Workshop) -> None:
    host = HostConfig(privileged=True)
    status = await status_of(shop, host)
    ours = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    assert (status["CapEff"], status["Seccomp"]) == (ours["CapEff"], "0")
    outcome = await shop.sh("ls -l /dev/loop-control /dev/kmsg; cat /proc/timer_list | head -1", host=host)
    assert "/dev/kmsg" in outcome.stdout
    mounts = (await shop.sh("mount", host=host)).stdout
    assert "sysfs on /sys type sysfs (rw" in mounts
    assert "on /proc/sys" not in mounts


async def test_some_paths_are_hidden_or_fixed(shop: Workshop) -> None:
    outcome = await shop.sh("cat /proc/timer_list | wc -c; echo 1 > /proc/sys/kernel/shmmax")
    assert outcome.stdout == "0\n"
    assert "Read-only file system" in outcome.stderr


# --- files --------------------------------------------------------------------------------------------------------


async def test_a_fixed_root_leaves_the_rest_writable(shop: Workshop) -> None:
    host = HostConfig(readonly_rootfs=True, tmpfs={"/tmp": "size=1m,exec"})
    outcome = await shop.sh("touch /x; touch /tmp/y /dev/shm/z && echo fine; mount | grep ' /tmp '", host=host)
    assert "Read-only file system" in outcome.stderr
    assert outcome.stdout.startswith("fine\ntmpfs on /tmp type tmpfs (rw,nosuid,nodev,relatime,size=1024k")


async def test_binds_are_writable_or_not(shop: Workshop) -> None:
    shared = shop.folder / "shared"
    shared.mkdir()
    points = [
        MountPoint(type="bind", source=str(shared), destination="/data", propagation="rprivate"),
        MountPoint(type="bind", source=str(shared), destination="/fixed", rw=False, propagation="rprivate"),
    ]
    outcome = await shop.sh("echo hi > /data/file; cat /fixed/file; touch /fixed/x", mounts=points)
    assert (outcome.stdout, (shared / "file").read_text()) == ("hi\n", "hi\n")
    assert "Read-only file system" in outcome.stderr


async def test_a_mount_that_does_not_fit(shop: Workshop) -> None:
    point = MountPoint(type="bind", source=str(shop.folder), destination="/etc/passwd", propagation="rprivate")
    with pytest.raises(RuntimeFailure, match="Are you trying to mount a directory onto a file") as caught:
        await shop.sh("true", mounts=[point])
    assert caught.value.exit_code == 127
    assert f'error mounting "{shop.folder}" to rootfs at "/etc/passwd": not a directory: unknown' in str(caught.value)


async def test_the_engines_files(shop: Workshop) -> None:
    for name in ("hosts", "hostname", "resolv.conf"):
        (shop.folder / name).write_text(f"{name} of ours\n")
    outcome = await shop.sh(
        "cat /etc/hosts /etc/hostname /etc/resolv.conf; hostname; echo $HOSTNAME; echo more >> /etc/hosts",
        config=ContainerConfig(hostname="nest"),
        hosts_path=str(shop.folder / "hosts"),
        hostname_path=str(shop.folder / "hostname"),
        resolv_path=str(shop.folder / "resolv.conf"),
    )
    assert outcome.stdout == "hosts of ours\nhostname of ours\nresolv.conf of ours\nnest\nnest\n"
    assert (shop.folder / "hosts").read_text() == "hosts of ours\nmore\n"


async def test_the_size_of_shared_memory(shop: Workshop) -> None:
    assert "size=65536k" in (await shop.sh("mount | grep /dev/shm")).stdout
    assert "size=1024k" in (await shop.sh("mount | grep /dev/shm", host=HostConfig(shm_size=MIB))).stdout
    assert (await shop.sh("mount | grep /dev/shm", host=HostConfig(ipc_mode="none"))).stdout == ""


async def test_devices(shop: Workshop) -> None:
    source = next((path for path in ("/dev/loop-control", "/dev/fuse", "/dev/net/tun") if Path(path).exists()), "")
    if not source:
        pytest.skip("no device here that may be opened at will")
    number = Path(source).stat().st_rdev
    device = Device(path_on_host=source, path_in_container="/dev/own", cgroup_permissions="r")
    script = "true < /dev/own && echo readable; true > /dev/own || echo not writable"
    outcome = await shop.sh(script, host=HostConfig(devices=[device]))
    assert outcome.stdout == "readable\nnot writable\n"
    assert "not permitted" in outcome.stderr
    script = f"mknod /tmp/k c {os.major(number)} {os.minor(number)}; true < /tmp/k || echo not readable"
    outcome = await shop.sh(script)
    assert outcome.stdout == "not readable\n"
    assert "not permitted" in outcome.stderr


async def test_the_devices_of_a_folder(shop: Workshop) -> None:
    folder = shop.folder / "devices" / "sub"
    folder.mkdir(parents=True)
    try:
        os.mknod(folder / "nothing", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("cannot make device nodes here")
    (folder / "file").touch()
    device = Device(path_on_host=str(folder.parent), path_in_container="/dev/many", cgroup_permissions="rw")
    outcome = await shop.sh("cd /dev; find many; stat -c %t:%T:%a many/sub/nothing", host=HostConfig(devices=[device]))
    assert outcome.stdout.split() == ["many", "many/sub", "many/sub/nothing", "1:3:640"]


async def test_a_missing_device(shop: Workshop) -> None:
    device = Device(path_on_host="/dev/nosuch", path_in_container="/dev/x", cgroup_permissions="rwm")
    with pytest.raises(RuntimeFailure) as caught:
        await shop.sh("true", host=HostConfig(devices=[device]))
    assert str(caught.value) == (
        'error gathering device information while adding custom device "/dev/nosuch": no such file or directory'
    )
    assert caught.value.exit_code == 128


# --- namespaces ---------------------------------------------------------------------------------------------------


async def test_processes_of_the_host_or_of_another_container(shop: Workshop) -> None:
    first, created = await shop.start("sleep", "61")
    listed = await shop.run("ps", "-o", "args", pid_ns=f"/proc/{created.pid}/ns/pid")
    assert "sleep 61" in listed.stdout
    assert "pytest" not in listed.stdout
    listed = await shop.run("ps", "-o", "pid,args", pid_ns="")
    assert f"{os.getpid()} " in listed.stdout
    assert first in shop.made


async def test_names_and_memory_of_another_container(shop: Workshop) -> None:
    donor = shop.new_id()
    shm = shop.runtime.make_shm(donor, MIB)
    script = "echo word > /dev/shm/x; sleep 60"
    _, created = await shop.start("sh", "-c", script, config=ContainerConfig(hostname="one"), shm_path=str(shm))
    await wait_until((shm / "x").exists)
    outcome = await shop.sh(
        "hostname; cat /dev/shm/x",
        uts_ns=f"/proc/{created.pid}/ns/uts",
        ipc_ns=f"/proc/{created.pid}/ns/ipc",
        shm_path=str(shop.runtime.shm_of(donor)),
    )
    assert outcome.stdout == "one\nword\n"
    await shop.runtime.delete(donor)
    assert not shm.exists()


async def test_the_hosts_name_and_network(shop: Workshop) -> None:
    outcome = await shop.sh("hostname; ls /proc/self/ns >/dev/null; readlink /proc/self/ns/net", uts_ns="", netns="")
    assert outcome.stdout.split() == [os.uname().nodename, str(Path("/proc/self/ns/net").readlink())]


async def test_an_init_reaps_and_forwards(shop: Workshop) -> None:
    if not shop.runtime.host.init_binary:
        pytest.skip("no tini is installed")
    host = HostConfig(init=True)
    outcome = await shop.sh("cat /proc/1/cmdline | tr '\\0' ' '; echo; (sleep 0.01 &); exit 3", host=host)
    assert outcome.stdout.startswith("/sbin/docker-init -- sh -c")
    assert outcome.exit_code == 3
    container_id, created = await shop.start("sleep", "60", host=host)
    await wait_until(lambda: len(shop.runtime.observer.pids(container_id)) == 2)
    await shop.runtime.kill(container_id, signal.SIGTERM)
    async with asyncio.timeout(5):
        await wait_gone(created.conmon_pid)
    end = shop.runtime.observer.read_exit(container_id)
    assert end is not None
    assert end.exit_code == 143


async def test_kernel_parameters(shop: Workshop) -> None:
    host = HostConfig(sysctls={"kernel.shmmax": "12345678", "net.ipv4.ip_forward": "1"})
    script = "cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert (await shop.sh(script, host=host)).stdout.split() == ["12345678", "1", "0"]
    with pytest.raises(RuntimeFailure, match=r'sysctl "kernel\.nosuch" is not in a separate kernel namespace'):
        await shop.sh("true", host=HostConfig(sysctls={"kernel.nosuch": "1"}))


async def test_runc_takes_the_place_of_crun(tmp_path: Path) -> None:
    if not shutil.which("runc"):
        pytest.skip("runc is not installed")
    from bennu.runtime import ExecRequest, Runtime

    async with open_workshop(tmp_path) as shop:
        shop.runtime = Runtime(tmp_path / "x", oci="runc")
        outcome = await shop.sh("echo by runc; exit 6")
        assert (outcome.stdout, outcome.exit_code) == ("by runc\n", 6)
        with pytest.raises(RuntimeFailure, match='exec: "nosuch": executable file not found in \\$PATH: unknown'):
            await shop.run("nosuch")
        container_id, _ = await shop.start("sleep", "60")
        process = await shop.runtime.execs.run(container_id, ExecRequest(args=["sh", "-c", "echo also; exit 5"]))
        assert await process.read() == (1, b"also\n")
        assert await process.wait() == 5


def test_the_request_names_what_a_specification_needs() -> None:
    assert {"container_id", "config", "host_config", "rootfs", "netns"} <= set(SpecRequest.__dataclass_fields__)
