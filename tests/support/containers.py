"""Real containers on a root filesystem of busybox, without images, network or engine."""

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bennu.confined.client import HELPER, Folder
from bennu.logwriter.words import Job
from bennu.model import ContainerConfig, HostConfig
from bennu.runtime import (
    AttachStream,
    BundleRequest,
    Created,
    ExecProcess,
    ExitRecord,
    Runtime,
    SpecRequest,
    build_spec,
    find_user,
)
from bennu.runtime.devices import read_all_devices, read_devices

BUSYBOX = shutil.which("busybox")

needs_containers = pytest.mark.skipif(
    os.geteuid() != 0 or not BUSYBOX or not shutil.which("crun") or not shutil.which("conmon"),
    reason="needs root, crun, conmon and busybox",
)


def make_rootfs(root: Path) -> Path:
    """A tiny system: busybox under all its names, root and one more user."""
    assert BUSYBOX
    for name in ("bin", "etc", "tmp", "root", "home"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000:Ada:/home:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nada:x:1000:\nwheel:x:10:ada\nvideo:x:44:\n")
    return root


@dataclass(slots=True)
class Outcome:
    """What a container wrote and how it ended."""

    stdout: str
    stderr: str
    end: ExitRecord | None

    @property
    def exit_code(self) -> int | None:
        assert self.end is not None
        return self.end.exit_code


@dataclass(slots=True)
class Workshop:
    """Makes containers and takes them away again."""

    runtime: Runtime
    rootfs: Path
    folder: Path
    made: list[str] = field(default_factory=list)

    def new_id(self) -> str:
        container_id = secrets.token_hex(32)
        self.made.append(container_id)
        return container_id

    def log_of(self, container_id: str) -> Path:
        return self.folder / f"{container_id}.log"

    async def spec(
        self, container_id: str, *args: str, config: ContainerConfig, host: HostConfig, **more: Any
    ) -> dict[str, Any]:
        accounts = await HELPER.ask("accounts", Folder(self.rootfs))
        return build_spec(
            SpecRequest(
                container_id=container_id,
                config=config,
                host_config=host,
                host=self.runtime.host,
                args=args,
                rootfs=str(self.rootfs),
                user=find_user(config.user, host.group_add or (), accounts["passwd"], accounts["group"]),
                devices=read_all_devices() if host.privileged else read_devices(host.devices or ()),
                **more,
            )
        )

    async def create(
        self, *args: str, config: ContainerConfig | None = None, host: HostConfig | None = None, **more: Any
    ) -> tuple[str, Created]:
        config, host = config or ContainerConfig(), host or HostConfig()
        container_id = self.new_id()
        spec = await self.spec(container_id, *args, config=config, host=host, **more)
        request = BundleRequest(
            spec=spec,
            log=Job(container_id, str(self.log_of(container_id))),
            open_stdin=config.open_stdin,
            stdin_once=config.stdin_once,
        )
        return container_id, await self.runtime.create(container_id, request)

    async def start(
        self, *args: str, config: ContainerConfig | None = None, host: HostConfig | None = None, **more: Any
    ) -> tuple[str, Created]:
        container_id, created = await self.create(*args, config=config, host=host, **more)
        await self.runtime.start(container_id)
        return container_id, created

    async def run(
        self, *args: str, config: ContainerConfig | None = None, host: HostConfig | None = None, **more: Any
    ) -> Outcome:
        """From creation to the end, attached."""
        container_id, _ = await self.create(*args, config=config, host=host, **more)
        stream = await self.runtime.streams.attach(container_id)
        await self.runtime.start(container_id)
        stdout, stderr = await read_all(stream)
        await self.runtime.observer.wait_end(container_id)
        return Outcome(stdout, stderr, self.runtime.observer.read_exit(container_id))

    async def sh(
        self, script: str, *, config: ContainerConfig | None = None, host: HostConfig | None = None, **more: Any
    ) -> Outcome:
        return await self.run("sh", "-c", script, config=config, host=host, **more)


async def read_all(stream: AttachStream | ExecProcess) -> tuple[str, str]:
    """Everything until the end: stdout, stderr."""
    got = {1: bytearray(), 2: bytearray()}
    async with asyncio.timeout(20):
        while piece := await stream.read():
            got[piece[0]] += piece[1]
    if isinstance(stream, AttachStream):
        stream.close()
    return got[1].decode(), got[2].decode()


async def wait_until(question: Callable[[], Any], limit_s: float = 5.0) -> Any:
    """Ask until the answer is yes."""
    async with asyncio.timeout(limit_s):
        while not (answer := question()):
            await asyncio.sleep(0.005)
    return answer


@asynccontextmanager
async def open_workshop(folder: Path) -> AsyncIterator[Workshop]:
    """A runtime of its own; in the end nothing of it is left, or the test fails."""
    workshop = Workshop(Runtime(folder / "x"), make_rootfs(folder / "rootfs"), folder)
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    try:
        yield workshop
    finally:
        for container_id in workshop.made:
            await workshop.runtime.delete(container_id)
        workshop.runtime.logs.close()
    assert os.listdir(folder / "x/c") == []  # noqa: PTH208
    assert os.listdir(folder / "x/exits") == []  # noqa: PTH208
    for container_id in workshop.made:
        assert workshop.runtime.cgroups.folders(f"/bennu/{container_id}") == []
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # noqa: PTH208
