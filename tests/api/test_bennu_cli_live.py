"""What a person sees of a container's life from the command line, the same from `bennu` as from `docker`.

`cli` is each of both in turn, against the same daemon.
"""

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


def run(cli: Cli, *words: str, stdin: str | None = None) -> Said:
    return cli("run", "--rm", "--network", "none", *words, stdin=stdin, ok=False)


@pytest.fixture
def name() -> str:
    """A name of this test's own."""
    return "cli-" + uuid.uuid4().hex[:12]


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(cli.program, [cli.program, *words], dict(cli.environment))
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


def test_both_streams_and_the_exit_code_arrive(cli: Cli, busybox: str) -> None:
    done = run(cli, busybox, "sh", "-c", "echo out; echo err >&2; exit 7")
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
def test_a_run_that_fails_tells_how(cli: Cli, busybox: str, words: list[str], code: int, text: str) -> None:
    done = run(cli, *words)
    assert done.code == code, done.err
    assert text in done.err
    assert f"Run '{Path(cli.program).name} run --help' for more information" in done.err


def test_input_ends_when_it_ends_here(cli: Cli, busybox: str) -> None:
    text = "".join(f"line {number}\n" for number in range(50_000))
    done = run(cli, "-i", busybox, "cat", stdin=text)
    assert done.out == text
    assert done.code == 0


@pytest.mark.recent_docker
def test_a_container_lives_and_dies_by_its_commands(cli: Cli, busybox: str, name: str) -> None:
    script = "echo one; echo two >&2; exec sleep 1000"
    started = cli("run", "-d", "--network", "none", "--name", name, busybox, "sh", "-c", script)
    assert re.fullmatch(r"[0-9a-f]{64}\n", started.out), started.err
    wait_for(lambda: cli("logs", name).err == "two\n")
    assert cli("logs", name).out == "one\n"
    listed = cli("ps", "-f", f"name={name}")
    heading = listed.out.split("\n")[0]
    assert " ".join(heading.split()) == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    assert "Up " in listed.out
    assert cli("rm", name, ok=False).code == 1
    assert cli("kill", name).out == f"{name}\n"
    assert cli("wait", name).out == "137\n"
    assert "Exited (137)" in cli("ps", "-a", "-f", f"name={name}", "--format", "{{.Status}}").out
    assert cli("inspect", "-f", "{{.State.ExitCode}}", name).out == "137\n"
    assert cli("rm", name).out == f"{name}\n"
    gone = cli("rm", name, ok=False)
    assert (gone.code, gone.err) == (1, f"Error response from daemon: No such container: {name}\n")
    assert cli("rm", "-f", name).code == 0


def test_what_ran_with_rm_is_gone_when_the_command_returns(cli: Cli, busybox: str, name: str) -> None:
    run(cli, "--name", name, busybox, "true")
    assert cli("inspect", name, ok=False).err == f"Error: No such object: {name}\n"


def test_start_attached_gives_output_and_code(cli: Cli, busybox: str, name: str) -> None:
    cli("create", "--network", "none", "--name", name, busybox, "sh", "-c", "echo again; exit 3")
    for _ in range(2):
        done = cli("start", "-a", name, ok=False)
        assert (done.out, done.code) == ("again\n", 3)


def test_a_signal_to_the_command_reaches_the_container(cli: Cli, busybox: str, name: str) -> None:
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    with cli.running("run", "--network", "none", "--name", name, busybox, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"got it\n"
        assert process.wait(SECONDS) == 9


def test_a_terminal_session_has_a_size_and_a_code(cli: Cli, busybox: str) -> None:
    session = Terminal(cli, "run", "-it", "--rm", "--network", "none", busybox, "sh")
    session.expect(rb"[#$] ")
    session.type(b"stty rows 33 cols 99; stty size; exit 4\n")
    session.expect(rb"33 99")
    assert session.end() == 4


def test_detaching_leaves_the_container_running(cli: Cli, busybox: str, name: str) -> None:
    session = Terminal(cli, "run", "-it", "--network", "none", "--name", name, busybox, "sh")
    session.expect(rb"[#$] ")
    session.type(b"\x10\x11")
    assert session.end() == 0
    assert cli("inspect", "-f", "{{.State.Running}}", name).out == "true\n"
    again = Terminal(cli, "attach", "--detach-keys", "ctrl-a,x", name)
    again.type(b"echo still $((40 + 2)) there\n")
    again.expect(rb"still 42 there")
    again.type(b"\x01x")
    assert again.end() == 1
    assert again.seen.endswith(b"read escape sequence\r\n")


def test_exec_runs_beside_the_main_process(cli: Cli, busybox: str, name: str) -> None:
    cli("run", "-d", "--network", "none", "--name", name, busybox, "sleep", "1000")
    done = cli("exec", "-e", "A=b", "-w", "/tmp", name, "sh", "-c", "echo $A $PWD; echo err >&2; exit 5", ok=False)
    assert (done.out, done.err, done.code) == ("b /tmp\n", "err\n", 5)
    assert cli("exec", "-i", name, "cat", stdin="typed").out == "typed"
    session = Terminal(cli, "exec", "-it", name, "sh", "-c", "ls -l /proc/self/fd/0; exit 6")
    assert session.end() == 6
    assert b"/dev/pts/" in session.seen


def test_the_death_is_an_event(cli: Cli, busybox: str, name: str) -> None:
    run(cli, "--name", name, busybox, "sh", "-c", "exit 21")
    asked = ("events", "--since", "1m", "--until", "0s", "-f", f"container={name}", "-f", "event=die")
    shown = wait_for(lambda: cli(*asked).out)  # docker cuts the present to whole seconds
    assert re.search(rf"^\S+ container die [0-9a-f]{{64}} \(.*exitCode=21.*name={name}\)$", shown.strip())


def test_files_are_copied_in_and_out(cli: Cli, busybox: str, name: str, tmp_path: Path) -> None:
    cli("run", "-d", "--network", "none", "--name", name, busybox, "sleep", "1000")
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("content")
    (source / "link").symlink_to("deep/file")
    assert cli("cp", str(source), f"{name}:/tmp/copied").code == 0
    assert cli("exec", name, "cat", "/tmp/copied/link").out == "content"
    assert cli("cp", f"{name}:/tmp/copied/.", str(tmp_path / "back")).code == 0
    assert (tmp_path / "back" / "deep" / "file").read_text() == "content"
    assert (tmp_path / "back" / "link").readlink() == Path("deep/file")
    assert cli("cp", f"{name}:/nope", str(tmp_path), ok=False).code == 1


def test_images_travel(cli: Cli, busybox: str, tmp_path: Path) -> None:
    tag = "cli-" + uuid.uuid4().hex[:8]
    assert cli("tag", busybox, f"{tag}:1").code == 0
    assert tag in cli("images", "--format", "{{.Repository}}").out.split()
    assert cli("save", "-o", str(tmp_path / "tar"), f"{tag}:1").code == 0
    assert cli("rmi", f"{tag}:1").out == f"Untagged: {tag}:1\n"
    assert cli("load", "-i", str(tmp_path / "tar")).out == f"Loaded image: {tag}:1\n"
    assert cli("rmi", f"{tag}:1").code == 0


def test_an_image_is_built_from_a_folder(cli: Cli, busybox: str, tmp_path: Path) -> None:
    tag = "cli-" + uuid.uuid4().hex[:8]
    (tmp_path / "Dockerfile").write_text('FROM busybox\nCOPY . /app\nCMD ["cat", "/app/file"]\n')
    (tmp_path / "file").write_text("built")
    (tmp_path / "not-sent").write_text("x")
    (tmp_path / ".dockerignore").write_text("not-*\n")
    built = cli("build", "-t", tag, str(tmp_path))
    assert built.code == 0, built.err
    assert f"Successfully tagged {tag}:latest" in built.out
    assert run(cli, tag).out == "built"
    assert "not-sent" not in run(cli, tag, "ls", "/app").out
    cli("rmi", tag)


def test_words_of_a_container_do_not_steer_the_terminal_they_are_shown_on(bennu: Cli, busybox: str, name: str) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    bennu("run", f"--name={name}", f"--label=said={evil}", busybox, "echo", evil)
    for words in (
        ("why", name),
        ("inspect", name),
        ("ps", "-a", "--format", "{{.Labels}}", "--filter", f"name={name}"),
        ("ps", "-a", "--no-trunc", "--filter", f"name={name}"),
        ("events", "--since=10m", "--until=0s", "--filter", f"container={name}"),
        ("inspect", "--format={{.Config.Labels.nothing.of.it}}", evil),
    ):
        terminal = Terminal(bennu, *words)
        terminal.end()
        shown = terminal.seen.decode()
        assert shown and not {"\x1b", "\x07", "\u202e"} & set(shown), f"{words}: {shown!r}"
    assert evil in bennu("ps", "-a", "--format", "{{.Labels}}", "--filter", f"name={name}").out
    assert evil in bennu("logs", name).out
