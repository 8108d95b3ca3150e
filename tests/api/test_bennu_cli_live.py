"""The `bennu` command against a real daemon, with real containers.

A daemon with roots of its own is started for this file; BENNU_TEST_HOST=unix:///… uses a running one instead.
"""

import errno
import io
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

BENNU = Path(sys.executable).with_name("bennu")
BENNUD = Path(sys.executable).with_name("bennud")
BUSYBOX = shutil.which("busybox")
SECONDS = 20.0

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(BUSYBOX is None, reason="busybox-static is not installed"),
    pytest.mark.skipif(not BENNU.exists(), reason="the package is not installed in this environment"),
]


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """The address of a daemon that has the image `box`."""
    given = os.environ.get("BENNU_TEST_HOST")
    if given:
        import_box(given)
        yield given
        return
    root = Path(tempfile.mkdtemp(prefix="bennu-cli-", dir="/tmp"))
    address = f"unix://{root}/s"
    with (root / "log").open("wb") as log:
        argv = [BENNUD, "--data-root", root / "data", "--exec-root", root / "run", "-H", address]
        daemon = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: (root / "s").exists() or daemon.poll() is not None)
        assert daemon.poll() is None, (root / "log").read_text()
        import_box(address)
        yield address
        names = bennu(address, "ps", "-aq").stdout.split()
        if names:
            bennu(address, "rm", "-f", *names)
    finally:
        daemon.terminate()
        daemon.wait(30)
        shutil.rmtree(root, ignore_errors=True)


def wait_until(condition: object, seconds: float = SECONDS) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def import_box(address: str) -> None:
    assert BUSYBOX is not None
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for folder in ("bin", "etc", "tmp"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        archive.add(os.path.realpath(BUSYBOX), "bin/busybox")
        for name in ("sh", "cat", "echo", "sleep", "stty", "ls", "true", "head"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    done = subprocess.run(
        [BENNU, "-H", address, "import", "-", "box"], input=data.getvalue(), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"sha256:")


def bennu(host: str, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    feed = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run([BENNU, "-H", host, *words], text=True, capture_output=True, timeout=60, **feed)  # type: ignore[call-overload, no-any-return]


def run(host: str, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return bennu(host, "run", "--rm", "--network", "none", *words, stdin=stdin)


@pytest.fixture
def name(host: str) -> Iterator[str]:
    """A container name of this test's own; what bears it at the end is removed."""
    unique = "cli-" + uuid.uuid4().hex[:12]
    yield unique
    bennu(host, "rm", "-f", "-v", unique)


class Terminal:
    """`bennu` on a terminal of its own."""

    def __init__(self, host: str, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(BENNU, [str(BENNU), "-H", host, *words])
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


def test_both_streams_and_the_exit_code_arrive(host: str) -> None:
    done = run(host, "box", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["box", "nosuch"], 127, "executable file not found in $PATH"),
        (["box", "/bin/nosuch"], 127, "no such file or directory"),
        (["box", "/etc"], 126, ""),
        (["--no-such-flag", "box"], 125, "unknown flag: --no-such-flag"),
        (["-m", "1k", "box", "true"], 125, "Minimum memory limit allowed is 6MB"),
        (["--restart", "always", "box", "true"], 125, "conflicting options: cannot specify both --restart and --rm"),
    ],
    ids=["not in PATH", "no such path", "a folder", "bad flag", "refused by the daemon", "options that exclude"],
)
def test_a_run_that_fails_tells_how(host: str, words: list[str], code: int, text: str) -> None:
    done = run(host, *words)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Run 'bennu run --help' for more information" in done.stderr


def test_input_ends_when_it_ends_here(host: str) -> None:
    text = "".join(f"line {number}\n" for number in range(50_000))
    done = run(host, "-i", "box", "cat", stdin=text)
    assert done.stdout == text
    assert done.returncode == 0


def test_a_container_lives_and_dies_by_its_commands(host: str, name: str) -> None:
    script = "echo one; echo two >&2; exec sleep 1000"
    started = bennu(host, "run", "-d", "--network", "none", "--name", name, "box", "sh", "-c", script)
    assert re.fullmatch(r"[0-9a-f]{64}\n", started.stdout), started.stderr
    wait_until(lambda: bennu(host, "logs", name).stderr == "two\n")
    assert bennu(host, "logs", name).stdout == "one\n"
    listed = bennu(host, "ps", "-f", f"name={name}")
    heading = listed.stdout.split("\n")[0]
    assert " ".join(heading.split()) == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    assert "Up " in listed.stdout
    assert bennu(host, "rm", name).returncode == 1
    assert bennu(host, "kill", name).stdout == f"{name}\n"
    assert bennu(host, "wait", name).stdout == "137\n"
    assert "Exited (137)" in bennu(host, "ps", "-a", "-f", f"name={name}", "--format", "{{.Status}}").stdout
    assert bennu(host, "inspect", "-f", "{{.State.ExitCode}}", name).stdout == "137\n"
    assert bennu(host, "rm", name).stdout == f"{name}\n"
    gone = bennu(host, "rm", name)
    assert (gone.returncode, gone.stderr) == (1, f"Error response from daemon: No such container: {name}\n")
    assert bennu(host, "rm", "-f", name).returncode == 0


def test_what_ran_with_rm_is_gone_when_the_command_returns(host: str, name: str) -> None:
    run(host, "--name", name, "box", "true")
    assert bennu(host, "inspect", name).stderr == f"Error: No such object: {name}\n"


def test_start_attached_gives_output_and_code(host: str, name: str) -> None:
    bennu(host, "create", "--network", "none", "--name", name, "box", "sh", "-c", "echo again; exit 3")
    for _ in range(2):
        done = bennu(host, "start", "-a", name)
        assert (done.stdout, done.returncode) == ("again\n", 3)


def test_a_signal_to_the_command_reaches_the_container(host: str, name: str) -> None:
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    words = [BENNU, "-H", host, "run", "--network", "none", "--name", name, "box", "sh", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "got it\n"
        assert process.wait(SECONDS) == 9


def test_a_terminal_session_has_a_size_and_a_code(host: str) -> None:
    session = Terminal(host, "run", "-it", "--rm", "--network", "none", "box", "sh")
    session.expect(rb"[#$] ")
    session.type(b"stty rows 33 cols 99; stty size; exit 4\n")
    session.expect(rb"33 99")
    assert session.end() == 4


def test_detaching_leaves_the_container_running(host: str, name: str) -> None:
    session = Terminal(host, "run", "-it", "--network", "none", "--name", name, "box", "sh")
    session.expect(rb"[#$] ")
    session.type(b"\x10\x11")
    assert session.end() == 0
    assert bennu(host, "inspect", "-f", "{{.State.Running}}", name).stdout == "true\n"
    again = Terminal(host, "attach", "--detach-keys", "ctrl-a,x", name)
    again.type(b"echo still $((40 + 2)) there\n")
    again.expect(rb"still 42 there")
    again.type(b"\x01x")
    assert again.end() == 1
    assert again.seen.endswith(b"read escape sequence\r\n")


def test_exec_runs_beside_the_main_process(host: str, name: str) -> None:
    bennu(host, "run", "-d", "--network", "none", "--name", name, "box", "sleep", "1000")
    done = bennu(host, "exec", "-e", "A=b", "-w", "/tmp", name, "sh", "-c", "echo $A $PWD; echo err >&2; exit 5")
    assert (done.stdout, done.stderr, done.returncode) == ("b /tmp\n", "err\n", 5)
    assert bennu(host, "exec", "-i", name, "cat", stdin="typed").stdout == "typed"
    session = Terminal(host, "exec", "-it", name, "sh", "-c", "ls -l /proc/self/fd/0; exit 6")
    assert session.end() == 6
    assert b"/dev/pts/" in session.seen


def test_the_death_is_an_event(host: str, name: str) -> None:
    run(host, "--name", name, "box", "sh", "-c", "exit 21")
    shown = bennu(host, "events", "--since", "1m", "--until", "0s", "-f", f"container={name}", "-f", "event=die")
    assert re.search(rf"^\S+ container die [0-9a-f]{{64}} \(.*exitCode=21.*name={name}\)$", shown.stdout.strip())


def test_files_are_copied_in_and_out(host: str, name: str, tmp_path: Path) -> None:
    bennu(host, "run", "-d", "--network", "none", "--name", name, "box", "sleep", "1000")
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("content")
    (source / "link").symlink_to("deep/file")
    assert bennu(host, "cp", str(source), f"{name}:/tmp/copied").returncode == 0
    assert bennu(host, "exec", name, "cat", "/tmp/copied/link").stdout == "content"
    assert bennu(host, "cp", f"{name}:/tmp/copied/.", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back" / "deep" / "file").read_text() == "content"
    assert (tmp_path / "back" / "link").readlink() == Path("deep/file")
    assert bennu(host, "cp", f"{name}:/nope", str(tmp_path)).returncode == 1


def test_images_travel(host: str, tmp_path: Path) -> None:
    tag = "cli-" + uuid.uuid4().hex[:8]
    assert bennu(host, "tag", "box", f"{tag}:1").returncode == 0
    assert tag in bennu(host, "images", "--format", "{{.Repository}}").stdout.split()
    assert bennu(host, "save", "-o", str(tmp_path / "tar"), f"{tag}:1").returncode == 0
    assert bennu(host, "rmi", f"{tag}:1").stdout == f"Untagged: {tag}:1\n"
    assert bennu(host, "load", "-i", str(tmp_path / "tar")).stdout == f"Loaded image: {tag}:1\n"
    assert bennu(host, "rmi", f"{tag}:1").returncode == 0


def test_an_image_is_built_from_a_folder(host: str, tmp_path: Path) -> None:
    tag = "cli-" + uuid.uuid4().hex[:8]
    (tmp_path / "Dockerfile").write_text('FROM box\nCOPY . /app\nCMD ["cat", "/app/file"]\n')
    (tmp_path / "file").write_text("built")
    (tmp_path / "not-sent").write_text("x")
    (tmp_path / ".dockerignore").write_text("not-*\n")
    built = bennu(host, "build", "-t", tag, str(tmp_path))
    assert built.returncode == 0, built.stderr
    assert f"Successfully tagged {tag}:latest" in built.stdout
    assert run(host, tag).stdout == "built"
    assert "not-sent" not in run(host, tag, "ls", "/app").stdout
    bennu(host, "rmi", tag)


def test_no_daemon_is_said_with_its_cure() -> None:
    done = bennu("unix:///nowhere/s", "ps")
    assert done.returncode == 1
    assert "Cannot connect to the Bennu daemon at unix:///nowhere/s" in done.stderr
    assert "sudo bennud" in done.stderr


def test_an_unknown_command_suggests_the_nearest() -> None:
    done = bennu("unix:///nowhere/s", "lgos")
    assert done.returncode == 1
    assert "Did you mean 'bennu logs'?" in done.stderr


def test_the_command_loads_nothing_heavy_before_it_must() -> None:
    script = (
        "import sys; from bennu.cli.main import run_command; run_command(['-H', 'unix:///nowhere/s', 'version']);"
        "print(sorted(set(sys.modules) & {'asyncio', 'aiohttp', 'rich', 'msgspec', 'http.client', 'ssl', 'email'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
