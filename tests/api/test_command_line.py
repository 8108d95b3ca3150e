"""What a person sees of a container's life from the command line."""

import errno
import os
import pty
import re
import select
import signal
import time
import uuid
from pathlib import Path

import pytest

from support.cli import Cli, Said
from support.waiting import wait_for

SECONDS = 20.0


def run(docker: Cli, *words: str, stdin: str | None = None) -> Said:
    return docker("run", "--rm", "--network", "none", *words, stdin=stdin, ok=False)


@pytest.fixture
def name() -> str:
    """A name of this test's own."""
    return "cli-" + uuid.uuid4().hex[:12]


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, docker: Cli, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(docker.program, [docker.program, *words], dict(docker.environment))
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def expect(self, pattern: bytes) -> None:
        end = time.monotonic() + SECONDS
        while not re.search(pattern, self.seen):
            assert time.monotonic() < end, f"{pattern!r} not in {self.seen!r}"
            if select.select([self.fd], [], [], 0.1)[0] and not self._read():
                assert re.search(pattern, self.seen), f"{pattern!r} not in {self.seen!r}"

    def _read(self) -> bool:
        try:
            data = os.read(self.fd, 65536)
        except OSError as error:
            assert error.errno == errno.EIO
            data = b""
        self.seen += data
        return bool(data)

    def end(self) -> int:
        """The exit code, when it ends by itself."""
        while self._read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_client_over_ssh_reaches_the_daemon(bennu: Cli) -> None:
    """`docker -H ssh://HOST` speaks HTTP over the streams of `docker system dial-stdio` there."""
    said = bennu("system", "dial-stdio", stdin="GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert said.out.startswith("HTTP/1.1 200 OK") and said.out.endswith("OK")


def test_both_streams_and_the_exit_code_arrive(docker: Cli, busybox: str) -> None:
    done = run(docker, busybox, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.out, done.err, done.code) == ("out\n", "err\n", 7)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["busybox", "nosuch"], 127, "executable file not found in $PATH"),
        (["busybox", "/bin/nosuch"], 127, "no such file or directory"),
        (["busybox", "/etc"], 126, "permission denied"),
        (["--no-such-flag", "busybox"], 125, "unknown flag: --no-such-flag"),
        (["-m", "1k", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
        (
            ["--restart", "always", "busybox", "true"],
            125,
            "conflicting options: cannot specify both --restart and --rm",
        ),
    ],
    ids=["not in PATH", "no such path", "a folder", "bad flag", "refused by the daemon", "options that exclude"],
)
@pytest.mark.recent_docker
def test_a_run_that_fails_tells_how(docker: Cli, busybox: str, words: list[str], code: int, text: str) -> None:
    done = run(docker, *words)
    assert done.code == code, done.err
    assert text in done.err
    assert "Run 'docker run --help' for more information" in done.err


def test_input_ends_when_it_ends_here(docker: Cli, busybox: str) -> None:
    text = "".join(f"line {number}\n" for number in range(50_000))
    done = run(docker, "-i", busybox, "cat", stdin=text)
    assert done.out == text
    assert done.code == 0


@pytest.mark.recent_docker
def test_a_container_lives_and_dies_by_its_commands(docker: Cli, busybox: str, name: str) -> None:
    script = "echo one; echo two >&2; exec sleep 1000"
    started = docker("run", "-d", "--network", "none", "--name", name, busybox, "sh", "-c", script)
    assert re.fullmatch(r"[0-9a-f]{64}\n", started.out), started.err
    wait_for(lambda: docker("logs", name).err == "two\n")
    assert docker("logs", name).out == "one\n"
    listed = docker("ps", "-f", f"name={name}")
    heading = listed.out.split("\n")[0]
    assert " ".join(heading.split()) == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    assert "Up " in listed.out
    assert docker("rm", name, ok=False).code == 1
    assert docker("kill", name).out == f"{name}\n"
    assert docker("wait", name).out == "137\n"
    assert "Exited (137)" in docker("ps", "-a", "-f", f"name={name}", "--format", "{{.Status}}").out
    assert docker("inspect", "-f", "{{.State.ExitCode}}", name).out == "137\n"
    assert docker("rm", name).out == f"{name}\n"
    gone = docker("rm", name, ok=False)
    assert (gone.code, gone.err) == (1, f"Error response from daemon: No such container: {name}\n")
    assert docker("rm", "-f", name).code == 0


def test_what_ran_with_rm_is_gone_when_the_command_returns(docker: Cli, busybox: str, name: str) -> None:
    run(docker, "--name", name, busybox, "true")
    assert docker("inspect", name, ok=False).err == f"Error: No such object: {name}\n"


def test_start_attached_gives_output_and_code(docker: Cli, busybox: str, name: str) -> None:
    docker("create", "--network", "none", "--name", name, busybox, "sh", "-c", "echo again; exit 3")
    for _ in range(2):
        done = docker("start", "-a", name, ok=False)
        assert (done.out, done.code) == ("again\n", 3)


def test_a_signal_to_the_command_reaches_the_container(docker: Cli, busybox: str, name: str) -> None:
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    with docker.running("run", "--network", "none", "--name", name, busybox, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"got it\n"
        assert process.wait(SECONDS) == 9


def test_a_terminal_session_has_a_size_and_a_code(docker: Cli, busybox: str) -> None:
    session = Terminal(docker, "run", "-it", "--rm", "--network", "none", busybox, "sh")
    session.expect(rb"[#$] ")
    session.type(b"stty rows 33 cols 99; stty size; exit 4\n")
    session.expect(rb"33 99")
    assert session.end() == 4


def test_detaching_leaves_the_container_running(docker: Cli, busybox: str, name: str) -> None:
    session = Terminal(docker, "run", "-it", "--network", "none", "--name", name, busybox, "sh")
    session.expect(rb"[#$] ")
    session.type(b"\x10\x11")
    assert session.end() == 0
    assert docker("inspect", "-f", "{{.State.Running}}", name).out == "true\n"
    again = Terminal(docker, "attach", "--detach-keys", "ctrl-a,x", name)
    again.type(b"echo still $((40 + 2)) there\n")
    again.expect(rb"still 42 there")
    again.type(b"\x01x")
    assert again.end() == 1
    assert again.seen.endswith(b"read escape sequence\r\n")


def test_exec_runs_beside_the_main_process(docker: Cli, busybox: str, name: str) -> None:
    docker("run", "-d", "--network", "none", "--name", name, busybox, "sleep", "1000")
    done = docker("exec", "-e", "A=b", "-w", "/tmp", name, "sh", "-c", "echo $A $PWD; echo err >&2; exit 5", ok=False)
    assert (done.out, done.err, done.code) == ("b /tmp\n", "err\n", 5)
    assert docker("exec", "-i", name, "cat", stdin="typed").out == "typed"
    session = Terminal(docker, "exec", "-it", name, "sh", "-c", "ls -l /proc/self/fd/0; exit 6")
    assert session.end() == 6
    assert b"/dev/pts/" in session.seen


def test_the_death_is_an_event(docker: Cli, busybox: str, name: str) -> None:
    run(docker, "--name", name, busybox, "sh", "-c", "exit 21")
    asked = ("events", "--since", "1m", "--until", "0s", "-f", f"container={name}", "-f", "event=die")
    shown = wait_for(lambda: docker(*asked).out)  # docker cuts the present to whole seconds
    assert re.search(rf"^\S+ container die [0-9a-f]{{64}} \(.*exitCode=21.*name={name}\)$", shown.strip())


def test_files_are_copied_in_and_out(docker: Cli, busybox: str, name: str, tmp_path: Path) -> None:
    docker("run", "-d", "--network", "none", "--name", name, busybox, "sleep", "1000")
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("content")
    (source / "link").symlink_to("deep/file")
    assert docker("cp", str(source), f"{name}:/tmp/copied").code == 0
    assert docker("exec", name, "cat", "/tmp/copied/link").out == "content"
    assert docker("cp", f"{name}:/tmp/copied/.", str(tmp_path / "back")).code == 0
    assert (tmp_path / "back" / "deep" / "file").read_text() == "content"
    assert (tmp_path / "back" / "link").readlink() == Path("deep/file")
    assert docker("cp", f"{name}:/nope", str(tmp_path), ok=False).code == 1


def test_images_travel(docker: Cli, busybox: str, tmp_path: Path) -> None:
    tag = "cli-" + uuid.uuid4().hex[:8]
    assert docker("tag", busybox, f"{tag}:1").code == 0
    assert tag in docker("images", "--format", "{{.Repository}}").out.split()
    assert docker("save", "-o", str(tmp_path / "tar"), f"{tag}:1").code == 0
    assert docker("rmi", f"{tag}:1").out == f"Untagged: {tag}:1\n"
    assert docker("load", "-i", str(tmp_path / "tar")).out == f"Loaded image: {tag}:1\n"
    assert docker("rmi", f"{tag}:1").code == 0


def test_an_image_is_built_from_a_folder(docker: Cli, busybox: str, tmp_path: Path) -> None:
    tag = "cli-" + uuid.uuid4().hex[:8]
    (tmp_path / "Dockerfile").write_text('FROM busybox\nCOPY . /app\nCMD ["cat", "/app/file"]\n')
    (tmp_path / "file").write_text("built")
    (tmp_path / "not-sent").write_text("x")
    (tmp_path / ".dockerignore").write_text("not-*\n")
    built = docker("build", "-t", tag, str(tmp_path))
    assert built.code == 0, built.err
    assert f"Successfully tagged {tag}:latest" in built.out
    assert run(docker, tag).out == "built"
    assert "not-sent" not in run(docker, tag, "ls", "/app").out
    docker("rmi", tag)


def test_words_of_a_container_do_not_steer_the_terminal_they_are_shown_on(
    docker: Cli, bennu: Cli, busybox: str, name: str
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    docker("run", f"--name={name}", busybox, "echo", evil)
    for words in (("why", name), ("why", evil)):
        terminal = Terminal(bennu, *words)
        terminal.end()
        shown = terminal.seen.decode()
        assert shown and not {"\x1b", "\x07", "\u202e"} & set(shown), f"{words}: {shown!r}"
    assert evil in bennu("why", name).out
