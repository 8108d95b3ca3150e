"""Run a command line client, docker's or ours, the way a person does."""

import functools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 60.0
# Spoken by newer docker clients on stderr before what the command itself has to say.
_CHATTER = re.compile(
    r"(?:DEPRECATED: The legacy builder.*\n(?:[ \t]+\S.*\n)*\n?)"
    r"|(?:time=\S+ level=error msg=\"error waiting for container: context canceled\"\n)"  # old clients, now and then
)


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended and what it said."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def line(self) -> str:
        """The one line of output."""
        assert len(self.lines) == 1, f"one line expected from {' '.join(self.words)}: {self.out!r}"
        return self.lines[0]


@dataclass(slots=True)
class Cli:
    """`cli("ps", "-a")` runs `program ps -a` against one daemon; a failure fails the test unless `ok=False`."""

    program: str
    environment: Mapping[str, str]
    timeout_s: float = TIMEOUT_S
    prefix: Sequence[str] = field(default_factory=tuple)

    def __call__(
        self,
        *words: str | Path,
        stdin: str | bytes | None = None,
        ok: bool = True,
        timeout_s: float | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Said:
        """Run to the end. `stdin=None` is closed input."""
        __tracebackhide__ = True
        argv = self._argv(words)
        data = stdin.encode() if isinstance(stdin, str) else stdin
        how = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        try:
            done = subprocess.run(  # type: ignore[call-overload]
                argv,
                capture_output=True,
                timeout=timeout_s or self.timeout_s,
                env={**self.environment, **(env or {})},
                cwd=cwd,
                check=False,
                **how,
            )
        except subprocess.TimeoutExpired as late:
            out, err = (text.decode(errors="replace") if text else "" for text in (late.stdout, late.stderr))
            raise AssertionError(f"{' '.join(argv)} did not end in {late.timeout:g} s\n{out}\n{err}") from None
        err = _CHATTER.sub("", done.stderr.decode(errors="replace"))
        said = Said(tuple(argv), done.returncode, done.stdout.decode(errors="replace"), err)
        assert not ok or said.code == 0, f"{' '.join(argv)} ended with {said.code}\n{said.out}{said.err}"
        return said

    @contextmanager
    def running(self, *words: str | Path, **how: object) -> Iterator[subprocess.Popen[bytes]]:
        """The command while it runs, with pipes; ended with the block."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        process = subprocess.Popen(  # type: ignore[call-overload]
            self._argv(words), env=dict(self.environment), start_new_session=True, **pipes
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def _argv(self, words: Sequence[str | Path]) -> list[str]:
        return [*self.prefix, self.program, *map(str, words)]


def client_environment(host: str, home: Path) -> dict[str, str]:
    """A client's whole environment: nothing of the person who runs the tests leaks in."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "DOCKER_CONFIG": str(home / "docker"),
        "DOCKER_HOST": host,
        "DOCKER_BUILDKIT": "0",
        "DOCKER_CLI_HINTS": "false",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def find_docker() -> str | None:
    """The docker command: on PATH, or the one that `./dev setup` unpacked."""
    unpacked = cache_dir() / "docker-cli/usr/bin/docker"
    return shutil.which("docker") or (str(unpacked) if unpacked.exists() else None)


@functools.cache
def docker_version() -> tuple[int, int]:
    """Of the client; (0, 0) without one."""
    program = find_docker()
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout if program else ""
    found = re.search(r"(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def cache_dir() -> Path:
    given = os.environ.get("BENNU_CACHE")
    return Path(given) if given else Path(__file__).parents[2] / ".cache"
