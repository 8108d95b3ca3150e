"""`docker run`, `start -a` and `attach` of the unmodified CLI: streams, terminals, exit codes."""

import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from support.cli import Cli
from support.waiting import wait_for

NOT_FOUND = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: exec: "nosuchcmd": executable file not found in $PATH: unknown'
)


def run(docker: Cli, *words: str, **how):  # type: ignore[no-untyped-def]
    return docker("run", "--rm", "--network", "none", *words, **how)


def state(docker: Cli, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(docker("inspect", "-f", "{{json .State}}", name).out)
    return found


def test_output_comes_back_on_the_stream_it_was_written_to(docker: Cli, busybox: str) -> None:
    said = run(docker, busybox, "sh", "-c", "echo out; echo err >&2")
    assert (said.out, said.err) == ("out\n", "err\n")


@pytest.mark.parametrize("code", [0, 1, 7, 44, 125, 126, 127, 128, 255])
def test_the_exit_code_is_the_processs_own(docker: Cli, busybox: str, code: int) -> None:
    assert run(docker, busybox, "sh", "-c", f"exit {code}", ok=False).code == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_death_by_signal_is_128_and_the_signal(docker: Cli, busybox: str, number: int) -> None:
    # The kernel drops signals from inside to the first process of a namespace that has no handler: a child dies.
    said = run(docker, busybox, "sh", "-c", f"sh -c 'kill -{number} $$'; exit $?", ok=False)
    assert said.code == 128 + number


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["nosuchcmd"], 127, "executable file not found in $PATH"),
        (["/nosuch/path"], 127, "no such file or directory"),
        (["/etc/passwd"], 126, "permission denied"),
        (["/etc"], 126, "is a directory: permission denied"),
        (["sh", "-c", "nosuch"], 127, "not found"),
    ],
)
def test_what_cannot_be_run_is_126_or_127(docker: Cli, busybox: str, argv: list[str], code: int, words: str) -> None:
    said = run(docker, busybox, *argv, ok=False)
    assert said.code == code
    assert words in said.err


@pytest.mark.recent_docker
def test_a_failed_start_is_remembered_and_can_be_tried_again(docker: Cli, busybox: str) -> None:
    said = docker("run", "--name", "failed", "--network", "none", busybox, "nosuchcmd", ok=False)
    assert said.err.startswith(f"docker: Error response from daemon: {NOT_FOUND}")
    left = state(docker, "failed")
    assert (left["Status"], left["ExitCode"], left["Running"]) == ("created", 127, False)
    assert left["Error"] == NOT_FOUND
    assert docker("start", "failed", ok=False).code == 1
    assert docker("wait", "failed").line == "127"


def test_errors_before_any_start_are_125(docker: Cli, busybox: str) -> None:
    assert run(docker, "-m", "1m", busybox, "true", ok=False).code == 125
    assert docker("run", "--rm", "--pull", "never", "nosuch-image:v9", ok=False).code == 125


def test_input_reaches_the_process_whole_and_its_end_too(docker: Cli, busybox: str) -> None:
    data = os.urandom(3_000_000)
    said = run(docker, "-i", busybox, "md5sum", stdin=data)
    assert said.out.split()[0] == hashlib.md5(data).hexdigest()


def test_output_goes_on_after_the_input_has_ended(docker: Cli, busybox: str) -> None:
    said = run(docker, "-i", busybox, "sh", "-c", "cat >/dev/null; sleep 0.3; echo after", stdin="x\n")
    assert said.out == "after\n"


def test_without_i_input_is_not_passed_on(docker: Cli, busybox: str) -> None:
    assert run(docker, busybox, "cat", stdin="ignored").out == ""


def test_much_output_arrives_complete(docker: Cli, busybox: str) -> None:
    said = run(docker, busybox, "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x")
    assert len(said.out) == 5_000_000


def test_not_a_byte_is_lost_of_a_process_that_ends_at_once(docker: Cli, busybox: str) -> None:
    for number in range(10):
        assert run(docker, busybox, "echo", str(number)).out == f"{number}\n"


def test_an_auto_removed_name_is_free_when_run_returns(docker: Cli, busybox: str) -> None:
    for _ in range(5):
        run(docker, "--name", "again", busybox, "true")


def test_start_attached_replays_the_same_container(docker: Cli, busybox: str) -> None:
    docker("create", "--name", "twice", "--network", "none", busybox, "sh", "-c", "echo once more; exit 3")
    for _ in range(2):
        said = docker("start", "-a", "twice", ok=False)
        assert (said.out, said.code) == ("once more\n", 3)


def test_several_clients_see_the_same_output(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "-i", "--name", "shared", "--network", "none", busybox, "sh", "-c", "read x; echo got $x")
    with docker.running("attach", "--no-stdin", "shared") as watching:
        time.sleep(0.3)
        with docker.running("attach", "shared") as speaking:
            assert speaking.stdin and speaking.stdout and watching.stdout
            speaking.stdin.write(b"hello\n")
            speaking.stdin.flush()
            assert speaking.stdout.readline() == b"got hello\n"
            assert watching.stdout.readline() == b"got hello\n"


def test_attach_to_what_does_not_run_is_refused_by_the_client(docker: Cli, busybox: str) -> None:
    docker("create", "--name", "idle", "--network", "none", busybox)
    said = docker("attach", "idle", ok=False)
    assert said.code == 1
    assert "cannot attach to a stopped container" in said.err


def test_attach_to_a_paused_container_is_refused_by_the_daemon(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "frozen", "--network", "none", busybox, "sleep", "100")
    docker("pause", "frozen")
    said = docker("attach", "frozen", ok=False)
    assert "paused" in said.err


def test_a_killed_client_leaves_the_container_running(docker: Cli, busybox: str) -> None:
    with docker.running("run", "--name", "left", "--network", "none", busybox, "sleep", "100") as client:
        wait_for(lambda: docker("ps", "-q", "-f", "name=left").out)
        client.kill()
        client.wait()
    assert state(docker, "left")["Running"] is True


def test_signals_to_the_client_reach_the_process(docker: Cli, busybox: str) -> None:
    script = "trap 'echo got; exit 5' TERM; echo ready; while true; do sleep 0.05; done"
    with docker.running("run", "--rm", "--network", "none", busybox, "sh", "-c", script) as client:
        assert client.stdout
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.stdout.readline() == b"got\n"
        assert client.wait(20) == 5


# --- terminals --------------------------------------------------------------------------------------------------


class Terminal:
    """A client on a terminal of its own."""

    def __init__(self, fd: int, pid: int) -> None:
        self.fd, self.pid, self.seen = fd, pid, b""

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def read_until(self, text: bytes, seconds: float = 15) -> bytes:
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come; seen: {self.seen!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.fd, 4096)
                except OSError:
                    assert text in self.seen, f"ended without {text!r}: {self.seen!r}"
        return self.seen

    def wait(self) -> int:
        """The exit code; takes what is still written."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                with suppress(OSError):
                    self.seen += os.read(self.fd, 4096)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"the client did not end; seen: {self.seen!r}")


@contextmanager
def on_terminal(docker: Cli, *words: str) -> Iterator[Terminal]:
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(docker.program, [docker.program, *words], dict(docker.environment))
    terminal = Terminal(fd, pid)
    try:
        yield terminal
    finally:
        if terminal.pid:
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)
        os.close(fd)


def test_a_terminal_is_a_terminal_and_has_the_clients_size(docker: Cli, busybox: str) -> None:
    with on_terminal(docker, "run", "--rm", "-it", "--network", "none", busybox, "sh") as terminal:
        fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        os.kill(terminal.pid, signal.SIGWINCH)
        terminal.type(b"tty; sleep 0.5; stty size; exit 4\n")
        terminal.read_until(b"/dev/pts/0")
        terminal.read_until(b"33 101")
        assert terminal.wait() == 4


def test_detach_keys_leave_the_container_running_and_are_not_typed_into_it(docker: Cli, busybox: str) -> None:
    with on_terminal(docker, "run", "-it", "--name", "kept", "--network", "none", busybox, "cat") as terminal:
        terminal.type(b"hello\n")
        terminal.read_until(b"hello\r\nhello")
        terminal.type(b"\x10\x11")
        terminal.wait()
    assert state(docker, "kept")["Running"] is True
    with on_terminal(docker, "attach", "kept") as terminal:
        terminal.type(b"again\n")
        terminal.read_until(b"again\r\nagain")
        terminal.type(b"\x04")
        assert terminal.wait() == 0


def test_the_hosts_name_is_its_own_where_its_network_is(docker: Cli, busybox: str) -> None:
    for words in (["--network", "host"], ["--uts", "host", "--network", "none"]):
        said = docker("run", "--name", "hosted", *words, busybox, "hostname")
        assert said.line == socket.gethostname()
        assert docker("inspect", "-f", "{{.Config.Hostname}}", "hosted").line == socket.gethostname()
        docker("rm", "hosted")
