"""A bennud of the test's own: private roots, real process, its log at hand, nothing left of it afterwards."""

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.cli import Cli, client_environment, find_docker
from support.waiting import wait_for

BENNUD = Path(sys.executable).with_name("bennud")
BENNU = Path(sys.executable).with_name("bennu")
START_TIMEOUT_S = 30.0


def why_not() -> str:
    """The reason why no daemon can run here; "" when one can."""
    if os.geteuid() != 0:
        return "containers need root"
    tools = [name for name in ("conmon", "nft", "ip", "busybox") if shutil.which(name) is None]
    if not (shutil.which("crun") or shutil.which("runc")):
        tools.append("crun")
    if find_docker() is None:
        tools.append("docker")
    if tools:
        return f"not installed: {', '.join(tools)} (./dev setup)"
    return "" if BENNUD.exists() else f"{BENNUD} is missing (./dev setup)"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, for what no client command says."""

    def __init__(self, path: Path, timeout_s: float = 20.0) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Daemon:
    """`start()`, then use `docker`, `bennu`, `request`; `discard()` ends it and removes every trace."""

    program: Sequence[str | Path] = (BENNUD,)
    options: Sequence[str | Path] = ()
    root: Path = field(init=False)
    exec_root: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="bennu-test-"))
        # Short, for a socket's path has 108 bytes; below /run, as in earnest.
        self.exec_root = Path(f"/run/bt-{secrets.token_hex(4)}")
        (self.root / "home/docker").mkdir(parents=True)

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    @property
    def socket(self) -> Path:
        return self.exec_root / "s"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def log_path(self) -> Path:
        return self.root / "bennud.log"

    @property
    def environment(self) -> dict[str, str]:
        return client_environment(self.host, self.root / "home")

    @property
    def docker(self) -> Cli:
        program = find_docker()
        assert program, "no docker command"
        return Cli(program, self.environment)

    @property
    def bennu(self) -> Cli:
        return Cli(str(BENNU), self.environment)

    @property
    def pid(self) -> int:
        assert self.process is not None, "the daemon has not been started"
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, *more: str | Path) -> "Daemon":
        assert self.process is None or self.process.poll() is not None, "already running"
        argv = [*self.program, "--data-root", self.data_root, "--exec-root", self.exec_root, "-H", self.host]
        self.exec_root.mkdir(mode=0o711, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, *self.options, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        wait_for(self._answers, timeout_s=START_TIMEOUT_S, what="bennud to answer", describe=self.log)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"bennud ended with {code} instead of starting\n{self.log()}"
        try:
            return self.request("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def request(
        self, method: str, path: str, body: str | bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One HTTP request as it is, unversioned; status and body."""
        connection = UnixConnection(self.socket)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def kill(self) -> None:
        """As by the OOM killer; containers live on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 30.0) -> int:
        """As by the service manager; containers live on. The exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"bennud did not end within {timeout_s:g} s of SIGTERM\n{self.log()}") from None

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None
