"""What one RUN sees, leaves and cannot do: real commands in worlds of their own.

What is expected was seen with dockerd 28.5, where nothing else is said.
"""

import asyncio
import contextlib
import copy
import dataclasses
import json
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bennu.build.graph import Exec, MountKind, Scratch, StepLimit, StepMount
from bennu.build.place import BuildPlace
from bennu.build.steps.cache_mounts import CacheMounts
from bennu.build.steps.exec_step import StepFailed, StepRequest, StepRunner
from bennu.errors import Conflict
from bennu.model import HostConfig
from bennu.runtime.cgroups import Cgroups
from bennu.runtime.container_defaults import ContainerDefaults
from bennu.runtime.crun import OciRuntime, find_runtime
from bennu.runtime.hostfacts import read_host_facts
from bennu.runtime.spec import DEFAULT_PATH
from support.containers import make_rootfs, needs_containers
from support.waiting import wait_for

pytestmark = needs_containers
STAGE = Scratch()
SECRETS = {"token": b"s3cret\n"}


class Lent:
    """What a client lends: one secret, and an agent."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "agent.sock"

    async def secret(self, id: str) -> bytes | None:
        return SECRETS.get(id)

    @contextlib.asynccontextmanager
    async def ssh(self, id: str) -> AsyncIterator[Path | None]:
        if id != "default":
            yield None
            return

        with socket.socket(socket.AF_UNIX) as agent:
            agent.bind(str(self._path))
            yield self._path


class Steps:
    """Runs commands on a base, each on a layer of its own."""

    def __init__(self, root: Path, group: str = "") -> None:
        self.root = root
        self.base = root / "base" if (root / "base").exists() else make_rootfs(root / "base")
        self.group = group or f"/bennu-test-steps-{secrets.token_hex(4)}"
        self.cgroups = Cgroups()
        oci = OciRuntime(find_runtime("crun"), root / "oci")
        self.runner = StepRunner(oci, self.cgroups, read_host_facts(self.cgroups), ContainerDefaults())
        self.caches = CacheMounts(root / "caches")
        self.caches.open()
        self.place = BuildPlace("", True, "", "nameserver 9.9.9.9\n", self.group, "private")
        self.into = root
        self.said = {1: b"", 2: b""}

    async def run(
        self,
        command: str,
        *mounts: StepMount,
        limits: HostConfig | None = None,
        ulimits: tuple[StepLimit, ...] = (),
        **words: Any,
    ) -> str:
        """Run a shell's command; answer what it said on standard output. Raises: StepFailed."""
        self.into = self.root / secrets.token_hex(4)
        self.into.mkdir()
        self.said = {1: b"", 2: b""}
        step: dict[str, Any] = {"argv": ("/bin/sh", "-c", command), "env": (), "cwd": "/", "user": "", **words}
        request = StepRequest(
            step=Exec(base=STAGE, mounts=mounts, limits=ulimits, **step),
            base=[self.base],
            into=self.into,
            sources={STAGE: [self.base]},
            place=self.place,
            lender=Lent(self.root),
            limits=limits or HostConfig(),
            caches=self.caches,
        )
        await self.runner.run(request, self._hear)
        return self.said[1].decode()

    def _hear(self, stream: int, data: bytes) -> None:
        self.said[stream] += data

    def layer(self) -> list[str]:
        """The layer, without what every runtime puts into a root."""
        diff = self.into / "diff"
        usual = {"dev", "proc", "sys", "etc"}
        return sorted(str(path.relative_to(diff)) for path in diff.rglob("*") if path.name not in usual)

    def leftovers(self) -> list[str]:
        """Mounts, processes and control groups of a step that is over."""
        here = str(self.root)
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if here in line]
        return [*mounts, *map(str, self.cgroups.pids(self.group)), *self._worlds()]

    def _worlds(self) -> list[str]:
        done = subprocess.run(["pgrep", "-f", "steps/world.py"], capture_output=True, text=True)
        return [pid for pid in done.stdout.split() if here_in(int(pid), str(self.root))]


def here_in(pid: int, folder: str) -> bool:
    """Whether a process has a mount below the folder."""
    with contextlib.suppress(OSError):
        return folder in Path(f"/proc/{pid}/mountinfo").read_text()
    return False


def mount(kind: str, target: str, **words: Any) -> StepMount:
    return StepMount(kind=MountKind(kind), target=target, **words)


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Steps]:
    made = Steps(tmp_path)
    yield made
    asyncio.run(made.cgroups.clear(made.group))


# --- what it sees -----------------------------------------------------------------------------------------------------


async def test_a_command_sees_what_it_sees_with_buildkit_and_leaves_what_it_wrote(steps: Steps) -> None:
    seen = await steps.run(
        "id; env | sort; hostname; readlink /proc/self/fd/0; cat; tty; cat /etc/hosts /etc/resolv.conf;"
        "ls /proc/self/fd | tail -n 1; echo text > /made; echo oops >&2",
        env=("A=b",),
    )
    lines = seen.splitlines()
    assert lines[0] == "uid=0(root) gid=0(root) groups=0(root)"
    assert {"A=b", "HOME=/root", f"PATH={DEFAULT_PATH}"} < set(lines)
    assert not [line for line in lines if line.startswith("HOSTNAME=")]
    assert {"buildkitsandbox", "127.0.0.1\tlocalhost buildkitsandbox", "nameserver 9.9.9.9", "not a tty"} < set(lines)
    assert lines[-1] == "3", "nothing but its streams is open: 3 is the folder that is listed"
    assert steps.said[2] == b"oops\n"
    assert steps.layer() == ["made"]
    assert (steps.into / "diff/made").read_text() == "text\n"
    assert sorted(path.name for path in steps.into.iterdir()) == ["diff"]
    assert steps.leftovers() == []


async def test_a_user_is_looked_up_in_the_root_and_gets_a_working_directory_that_was_missing(steps: Steps) -> None:
    seen = await steps.run("id; echo $HOME; pwd; stat -c '%u:%g %a' /work /work/here", user="ada", cwd="/work/here")
    assert seen.splitlines() == [
        "uid=1000(ada) gid=1000(ada) groups=10(wheel),1000(ada)",
        *("/home", "/work/here", "1000:1000 755", "1000:1000 755"),
    ]
    assert "uid=12 gid=13" in await steps.run("id", user="12:13")
    with pytest.raises(
        StepFailed, match="successfully: unable to find user nobodyhere: no matching entries in passwd file"
    ):
        await steps.run("true", user="nobodyhere")
    (steps.base / "etc/passwd").unlink()
    (steps.base / "etc/passwd").symlink_to("../../../../../../../etc/passwd")
    with pytest.raises(StepFailed, match="unable to find user daemon"):
        await steps.run("true", user="daemon")


async def test_a_failure_is_told_in_buildkits_words(steps: Steps) -> None:
    async def failure(command: str = "", **words: Any) -> StepFailed:
        with pytest.raises(StepFailed) as failed:
            await steps.run(command, **words)
        return failed.value

    exited = await failure("exit 3")
    assert str(exited) == 'process "/bin/sh -c exit 3" did not complete successfully: exit code: 3'
    assert exited.exit_code == 3
    killed = await failure("sh -c 'kill -9 $$'; exit $?")
    assert killed.exit_code == 137
    missing = await failure(argv=("nosuch", "x"))
    assert str(missing) == 'process "nosuch x" did not complete successfully: exit code: 1'
    assert steps.said[2].decode() == (
        'runc run failed: unable to start container process: exec: "nosuch": executable file not found in $PATH\n'
    )
    (steps.base / "junk").write_bytes(b"\0junk")
    (steps.base / "junk").chmod(0o755)
    await failure(argv=("/junk",))
    assert steps.said[2] == b"exec /junk: exec format error\n"
    await failure(argv=("/etc/passwd",))
    assert b'exec: "/etc/passwd": permission denied' in steps.said[2]
    memory = await failure("x=a; while true; do x=$x$x; done", limits=HostConfig(memory=24 << 20))
    assert str(memory).endswith("did not complete successfully: cannot allocate memory")
    assert steps.leftovers() == []


async def test_output_is_told_as_it_comes_and_bounded(steps: Steps) -> None:
    with pytest.raises(StepFailed):
        await steps.run("yes | head -c 3000000; echo; echo the end; exit 1")
    told = steps.said[1]
    assert b"\n[output clipped, log limit 200KiB/s reached]\n" in told and len(told) < 2_000_000
    assert told.endswith(b"the end\n"), "a step that failed shows its last words"


# --- what it mounts ---------------------------------------------------------------------------------------------------


async def test_mounts_are_shown_and_leave_nothing_in_the_layer(steps: Steps) -> None:
    (steps.base / "data").mkdir()
    (steps.base / "data/file").write_text("of the stage\n")
    seen = await steps.run(
        "cat /ro/file /one; touch /ro/x; echo new > /rw/file; cat /rw/file; cat /run/secrets/token; echo $TOKEN;"
        "stat -c '%n %a %u:%g' /deep /deep/t /tmp /sec; stat -c '%F %a' $SSH_AUTH_SOCK;"
        "ls -A /empty; echo kept > /cache/kept; df -k /deep/t | tail -n 1; touch /made",
        mount("bind", "/ro", source=STAGE, source_path="/data", read_only=True),
        mount("bind", "/one", source=STAGE, source_path="/data/file", read_only=True),
        mount("bind", "/rw", source=STAGE, source_path="/data"),
        mount("bind", "/empty"),
        mount("secret", "/run/secrets/token", id="token"),
        mount("secret", "/sec", id="token", uid=3, gid=4, mode=0o440),
        mount("secret", "", id="token", env_name="TOKEN"),
        mount("secret", "/run/secrets/other", id="other"),
        mount("tmpfs", "/deep/t", size=1 << 20),
        mount("tmpfs", "/tmp"),
        mount("ssh", ""),
        mount("cache", "/cache"),
    )
    assert seen.splitlines()[:5] == ["of the stage", "of the stage", "new", "s3cret", "s3cret"]
    assert seen.splitlines()[5:9] == ["/deep 755 0:0", "/deep/t 1777 0:0", "/tmp 755 0:0", "/sec 440 3:4"]
    assert "socket 600" in seen.splitlines() and " 1024 " in seen
    assert b"Read-only file system" in steps.said[2]
    assert steps.layer() == ["made"], "neither the folders of mounts nor those above them stay"
    assert (steps.base / "data/file").read_text() == "of the stage\n", (
        "what is written to a writable bind is thrown away"
    )
    found = subprocess.run(["grep", "-rl", "s3cret", steps.root], capture_output=True, text=True).stdout
    assert found == "", "no secret was written to a disk"


async def test_what_is_missing_of_mounts_is_told(steps: Steps) -> None:
    for asked, words in (
        (mount("secret", "/s", id="nosuch", required=True), "secret nosuch: not found"),
        (mount("ssh", "", id="other", required=True), "unset ssh forward key other"),
        (
            mount("bind", "/m", source=STAGE, source_path="/nosuch", read_only=True),
            'process "/bin/sh -c true" did not complete successfully: open /nosuch: no such file or directory',
        ),
    ):
        with pytest.raises(StepFailed) as failed:
            await steps.run("true", asked)
        assert str(failed.value) == words
    with pytest.raises(StepFailed, match="exit code: 1"):
        await steps.run("true", mount("bind", "/etc/passwd", source=STAGE, source_path="/bin", read_only=True))
    assert b"runc run failed: unable to start container process: error during container init: error mo" in steps.said[2]


async def test_caches_are_kept_apart_and_shared_as_they_say(steps: Steps) -> None:
    (steps.base / "seed").mkdir()
    (steps.base / "seed/file").write_text("seed\n")
    seeded = mount("cache", "/c", id="seeded", source=STAGE, source_path="/seed")
    assert await steps.run("cat /c/file; echo more >> /c/file", seeded) == "seed\n"
    assert await steps.run("cat /c/file", seeded) == "seed\nmore\n"
    looks = mount("cache", "/c", id="looks", uid=5, gid=6, mode=0o700)
    assert await steps.run("stat -c '%a %u:%g' /c", looks) == "700 5:6\n"

    async def both(sharing: str) -> set[str]:
        """Two steps at the same time; each says how many have been there."""
        say = "echo x >> /c/log; sleep 1; wc -l < /c/log"
        one = mount("cache", "/c", id=sharing, sharing=sharing)
        other = copy.copy(steps)
        return {text.strip() for text in await asyncio.gather(steps.run(say, one), other.run(say, one))}

    assert await both("shared") == {"2"}
    assert await both("private") == {"1"}
    assert await both("locked") == {"1", "2"}
    usage = {one.id: one for one in await steps.caches.usage()}
    assert set(usage) == {"seeded", "looks", "shared", "private", "locked"}
    assert usage["seeded"].size == len("seed\nmore\n") and not usage["seeded"].in_use
    await steps.caches.remove(usage["seeded"].name)
    assert await steps.run("cat /c/file", seeded) == "seed\n"
    async with steps.caches.lend(seeded, [steps.base]):
        with pytest.raises(Conflict):
            await steps.caches.remove(next(one.name for one in await steps.caches.usage() if one.id == "seeded"))


# --- what it cannot do ------------------------------------------------------------------------------------------------


async def test_a_step_is_confined_like_a_default_container(steps: Steps) -> None:
    seen = await steps.run(
        "grep -E '^(CapBnd|CapEff|Seccomp|NoNewPrivs):' /proc/self/status;"
        "mknod /disk b 8 0 && dd if=/disk of=/dev/null count=1; mknod /dev/disk b 8 0; dd if=/dev/disk count=1;"
        "echo 1 > /proc/sys/vm/drop_caches; echo c > /proc/sysrq-trigger; mount -t tmpfs none /tmp;"
        "unshare -U true; for g in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $g/x; done; true",
    )
    lines = dict(line.split(":\t") for line in seen.splitlines() if ":\t" in line)
    assert lines == {"CapBnd": "00000000a80425fb", "CapEff": "00000000a80425fb", "Seccomp": "2", "NoNewPrivs": "0"}
    refused = steps.said[2].decode()
    assert refused.count("Operation not permitted") >= 3, refused
    assert refused.count("Read-only file system") >= 3, refused


async def test_nothing_of_a_stage_or_a_root_leads_to_the_host(steps: Steps, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    up = "../" * 12 + str(tmp_path)[1:]
    for name, leads in (("up", up), ("absolute", str(tmp_path)), ("kernel", "/proc/1/root")):
        (steps.base / name).symlink_to(leads)
        for source in (f"/{name}/secret", f"/{name}"):
            with pytest.raises(StepFailed, match=f"open {source}"):
                await steps.run("true", mount("bind", "/m", source=STAGE, source_path=source, read_only=True))
    (steps.base / "t").symlink_to(up)
    await steps.run("true", mount("tmpfs", "/t/secret"), mount("cache", "/t/made"), cwd="/t/cwd")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("made", "cwd")) == []
    assert (tmp_path / "secret").read_text() == "of the host"
    (steps.base / "etc/hosts").symlink_to(f"{up}/secret")
    await steps.run("true")
    assert (tmp_path / "secret").read_text() == "of the host"


async def test_a_step_sees_no_network_if_it_is_to_have_none(steps: Steps) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0bennu-test-step")
        server.listen()
        assert "bennu-test-step" in await steps.run("cat /proc/net/unix", network="host")
        assert "bennu-test-step" not in await steps.run("cat /proc/net/unix", network="none")
    assert (await steps.run("ip -o link | wc -l; ip -o addr show lo | head -n 1", network="none")).startswith("1\n")


async def test_limits_are_those_of_the_build(steps: Steps) -> None:
    seen = await steps.run(
        "ulimit -n; df -k /dev/shm | tail -n 1", shm_size=1 << 20, ulimits=(StepLimit("nofile", 99, 99),)
    )
    assert seen.startswith("99\n") and " 1024 " in seen


async def test_a_steps_control_group_is_where_the_client_wants_it(steps: Steps) -> None:
    parent = f"{steps.group}-elsewhere"
    steps.place = dataclasses.replace(steps.place, cgroupns="host")
    seen = await steps.run("cat /proc/self/cgroup", cgroup_parent=f"../..{parent}")
    own = await steps.run("cat /proc/self/cgroup")
    assert f":{parent}/{steps.group[1:]}-" in seen and f":{steps.group}/" in own
    assert steps.cgroups.pids(parent) == []
    await steps.cgroups.clear(parent)


async def test_a_cancelled_step_ends_at_once_with_all_that_it_started(steps: Steps) -> None:
    step = asyncio.create_task(steps.run("sleep 1000 & (setsid sleep 1000 &); echo begun; sleep 1000"))
    while steps.said[1] != b"begun\n":
        assert not step.done(), step
        await asyncio.sleep(0.01)
    assert steps.cgroups.pids(f"{steps.group}/{steps.into.name}")
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert steps.leftovers() == []
    assert sorted(path.name for path in steps.into.iterdir()) == ["diff"]


def test_a_killed_daemon_takes_its_steps_along(steps: Steps) -> None:
    daemon = subprocess.Popen([sys.executable, "-c", KILLED, json.dumps([str(steps.root), steps.group])])
    try:
        wait_for(lambda: len(steps.cgroups.pids(f"{steps.group}/step")) >= 2, timeout_s=30)
        here = str(steps.root)
        assert here not in Path("/proc/self/mounts").read_text(), "its mounts are its world's"
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        wait_for(lambda: steps.leftovers() == [], timeout_s=5, what="nothing is left")
    finally:
        daemon.kill()
        daemon.wait()


KILLED = """
import asyncio, json, sys
from pathlib import Path
sys.path[:0] = ["tests", "tests/engine"]
from test_build_steps import Steps, mount, secrets
root, group = json.loads(sys.argv[1])
steps = Steps(Path(root), group)
secrets.token_hex = lambda _: "step"
asyncio.run(steps.run("sleep 1000 & (setsid sleep 1000 &); sleep 1000", mount("secret", "/s", id="token")))
"""
