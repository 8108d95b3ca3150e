"""The image routes as a server of their own, a registry on loopback, and a small image to work with."""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from images_helpers import entry, is_root, make_tar, needs_root

from support import registries
from support.cli import Cli, client_environment, find_docker
from support.daemon import UnixConnection
from support.waiting import wait_for

SERVER = Path(__file__).with_name("images_server.py")
APPLETS = ("sh", "echo", "cat", "sleep", "ls", "id", "env", "ps", "true", "false", "pwd", "stat")


@dataclass
class Server:
    root: Path
    docker: Cli
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        (self.root / "s").unlink(missing_ok=True)
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, SERVER, self.root, self.root / "s"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self._is_ready, what="the image server", describe=self.log)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        return "ready" in self.log()

    def log(self) -> str:
        return (self.root / "log").read_text()

    def restart(self) -> None:
        """After its death."""
        self.process.wait(10)
        self.start()

    @property
    def images_root(self) -> Path:
        return self.root / "images"

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        with contextlib.closing(UnixConnection(self.root / "s", 60)) as connection:
            connection.request(method, path, body, {"Connection": "close", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def messages(self, method: str, path: str, body: bytes | None = None, **headers: str) -> list[dict[str, Any]]:
        status, answer = self.request(method, path, body, **headers)
        assert status == 200, answer
        return [json.loads(line) for line in answer.splitlines()]

    def error(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        status, answer = self.request(method, path, body)
        return status, json.loads(answer)["message"]

    def inspect(self, ref: str) -> dict[str, Any]:
        return json.loads(self.docker("image", "inspect", ref).out)[0]


def busybox_tar() -> bytes:
    """A root filesystem with a shell."""
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("busybox is not installed (./dev setup)")
    links = [entry(f"bin/{name}", kind=b"2", linkname="busybox", mode=0o777) for name in APPLETS]
    folders = [entry(name, kind=b"5") for name in ("./", "bin/", "etc/", "proc/", "dev/", "sys/")]
    folders.append(entry("tmp/", kind=b"5", mode=0o1777))
    return make_tar([*folders, entry("bin/busybox", Path(program).read_bytes(), mode=0o755), *links])


@pytest.fixture(scope="module", name="server")
def image_server() -> Iterator[Server]:
    """A server with the image `base`."""
    program = find_docker()
    if not is_root() or program is None:
        pytest.skip(needs_root if not is_root() else "no docker command (./dev setup)")
    root = Path(tempfile.mkdtemp(prefix="bennu-images-"))
    (root / "home/docker").mkdir(parents=True)
    server = Server(root, Cli(program, client_environment(f"unix://{root}/s", root / "home")))
    try:
        server.start()
        server.docker("import", "-c", 'CMD ["sh"]', "-", "base", stdin=busybox_tar())
        yield server
        assert server.process.poll() is None, server.log()
        assert list((root / "images/tmp").iterdir()) == []
        server.process.terminate()
        assert server.process.wait(20) == 0, server.log()
        assert str(root) not in Path("/proc/self/mountinfo").read_text()
    finally:
        server.process.kill()
        server.process.wait(20)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module", name="registry")
def plain_registry() -> Iterator[str]:
    """host:port of a registry that speaks plain HTTP."""
    if registries.program() is None:
        pytest.skip("docker-registry is not installed (./dev setup)")
    with registries.run_registry() as registry:
        yield registry
