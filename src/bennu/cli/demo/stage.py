"""The place of a demo: a bennud with roots, socket, mounts and network of its own, all gone afterwards.

The daemon gets a network and a mount namespace for itself, so whatever it makes there ends with it. Its socket is an
ordinary file: another terminal can look in while the demo runs.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import bennu
from bennu.cli.client import ApiClient
from bennu.cli.failure import CommandFailure
from bennu.cli.output import say

SOURCE: Final = Path(bennu.__file__).parents[2]  # examples live in the source tree, not in the package
PROGRAMS: Final = Path(sys.executable).parent
START_TIMEOUT_S: Final = 20.0
COMMAND_TIMEOUT_S: Final = 300.0
ENDINGS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
BOLD, DIM, GREEN, RED, RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


@dataclass(slots=True)
class DemoStage:
    """Types docker commands at one daemon, and checks what they print."""

    docker: str
    folder: Path
    daemon: "PrivateDaemon"
    pace_s: float
    colours: bool
    surprises: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.daemon.host

    @property
    def environment(self) -> dict[str, str]:
        private = {
            "DOCKER_HOST": self.host,
            "BENNU_HOST": self.host,
            "DOCKER_CONFIG": str(self.folder / "docker"),
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CLI_HINTS": "false",
        }
        return {**os.environ, **private}

    def paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{RESET}" if self.colours else text

    def tell(self, text: str) -> None:
        """Print a sentence of the narrator."""
        say("")
        say(self.paint(BOLD, f"# {text}"), styled=True)
        time.sleep(self.pace_s)

    def type(self, *words: str, expect: str = "", code: int = 0) -> str:
        """Type a docker command and show its output; an output or exit code other than promised is remembered."""
        return self._run("docker", [self.docker, *words], words, expect, code)

    def type_bennu(self, *words: str, expect: str = "", code: int = 0) -> str:
        """Type a command of bennu's own."""
        return self._run("bennu", [str(PROGRAMS / "bennu"), *words], words, expect, code)

    def type_host(self, *words: str, expect: str = "", code: int = 0) -> str:
        """Run another program on the daemon's own host."""
        return self._run(words[0], self.daemon.inside(*words), words[1:], expect, code)

    def _run(self, program: str, argv: Sequence[str], words: Sequence[str], expect: str, code: int) -> str:
        self._show(program, words)
        done = subprocess.run(
            argv,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        output = done.stdout.decode(errors="replace")
        sys.stdout.write(output)
        if done.returncode:
            say(self.paint(DIM, f"(exit code {done.returncode})"), styled=True)
        if done.returncode != code:
            self.surprise(f"exit code {done.returncode} instead of {code}", program, *words)
        if expect not in output:
            self.surprise(f"expected to read: {expect}", program, *words)
        time.sleep(self.pace_s)
        return output

    def follow(self, *words: str, seconds: float) -> None:
        """Type a docker command that does not end, and watch it for some seconds."""
        self._show("docker", words)
        watched = subprocess.Popen([self.docker, *words], env=self.environment, stdin=subprocess.DEVNULL)
        time.sleep(seconds)
        if watched.poll() is not None:
            self.surprise("ended by itself", "docker", *words)
        watched.send_signal(signal.SIGINT)
        watched.wait()
        say("^C")

    def _show(self, program: str, words: Sequence[str]) -> None:
        said = shlex.join([program, *words])
        say(self.paint(GREEN, "$ ") + said, styled=True)
        sys.stdout.flush()

    def surprise(self, text: str, *words: str) -> None:
        self.surprises.append(f"{' '.join(words)}: {text}")
        say(self.paint(RED, f"!! {text}"), styled=True)


class PrivateDaemon:
    """A bennud that can be killed and started again; a process that only waits keeps its network and mounts."""

    def __init__(self, folder: Path) -> None:
        self.run = Path(f"/run/bennu-demo-{secrets.token_hex(3)}")
        self.run.mkdir(mode=0o711)
        self.host = f"unix://{self.run}/bennu.sock"
        self._folder = folder
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is for the demo, which ends the rest in order
        )
        assert self._keeper.stdout
        self._keeper.stdout.readline()
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._daemon.pid if self._daemon else 0

    def inside(self, *words: str) -> list[str]:
        """Write the command line that runs `words` where the daemon's ports are published."""
        return ["nsenter", f"--target={self._keeper.pid}", "--mount", "--net", *words]

    def start(self) -> None:
        """Start it and wait until it answers. Raises: CommandFailure with its log."""
        words = [str(PROGRAMS / "bennud"), "--data-root", str(self._folder / "data"), "--exec-root", str(self.run)]
        with (self._folder / "log").open("ab") as log:
            # A command that was interrupted may still become a container while the rest is cleaned up.
            argv = self.inside(*words, "-H", self.host, "--shutdown-containers")
            self._daemon = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        wait_for_answer(self.host, self._daemon, self._folder / "log")

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()

    def end(self) -> None:
        """Remove everything, in whatever state the demo was left. Idempotent."""
        with contextlib.suppress(CommandFailure):
            if self._daemon is None or self._daemon.poll() is not None:
                self.start()  # containers outlive a daemon, and it takes one to remove them
            remove_everything(ApiClient(self.host))
        if self._daemon is not None:
            self._daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._daemon.wait(30)
            self.kill()
        self._keeper.kill()
        self._keeper.wait()
        shutil.rmtree(self.run, ignore_errors=True)


@contextlib.contextmanager
def private_daemon(folder: Path) -> Iterator[PrivateDaemon]:
    """Run a daemon for the block. Raises: CommandFailure with its log when it does not start.

    SIGTERM, SIGINT and a closed terminal end the block, and are not heard while it is cleaned up.
    """
    former = {number: signal.signal(number, _leave) for number in ENDINGS}
    try:
        daemon = PrivateDaemon(folder)
        try:
            daemon.start()
            yield daemon
        finally:
            for number in ENDINGS:
                signal.signal(number, signal.SIG_IGN)
            daemon.end()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def wait_for_answer(host: str, daemon: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        if daemon.poll() is not None or time.monotonic() > end:
            raise CommandFailure(f"bennud did not start:\n{log.read_text(errors='replace')}")
        try:
            ApiClient(host).call("GET", "/_ping")
        except CommandFailure:
            time.sleep(0.05)
        else:
            return


def remove_everything(client: ApiClient) -> None:
    """Remove all that the demo made; the swarm first, for it would replace its tasks' containers."""
    if client.json("GET", "/info")["Swarm"]["LocalNodeState"] != "inactive":
        client.call("POST", "/swarm/leave", query={"force": True})
    for container in client.json("GET", "/containers/json", query={"all": True}):
        client.call("DELETE", f"/containers/{container['Id']}", query={"force": True, "v": True})


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="bennu-demo-"))
    try:
        (folder / "docker").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def base_image(name: str) -> Path:
    """Answer the tar file of a base image, building it when it never was. Raises: CommandFailure."""
    recipe = SOURCE / "examples/base-images"
    if not recipe.exists():
        raise CommandFailure("the demo needs Bennu's source tree: clone it and run ./dev demo")
    if subprocess.run([recipe], check=False).returncode != 0:
        raise CommandFailure("the base images could not be built; ./dev demo installs what is missing")
    cache = Path(os.environ.get("BENNU_CACHE") or SOURCE / ".cache")
    return cache / "images" / f"{name}.tar"
