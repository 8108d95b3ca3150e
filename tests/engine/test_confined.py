"""The helper that touches strangers' files: what it can do, what it cannot, and that nothing of it stays."""

import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bennu.confined import client
from bennu.confined.client import Confined, Failure, Folder, Process
from bennu.errors import InvalidParameter
from support.traps import bomb, plant_traps, was_caught
from support.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the helper shuts itself in, which needs root")
OWN_PYTHON = sys.executable
OWN_VERSION = f"python3.{sys.version_info.minor}"


def program_of(name: str) -> str:
    """Where a Python really is, on the path or installed beside our own; "" where there is none."""
    beside = Path(sys.base_prefix).parent.glob(f"{name.removeprefix('python')}.*/bin/{name}")
    for program in (name, *sorted(beside)):
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run([program, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
            if done.stdout:
                return done.stdout.strip()
    return ""


OTHERS = {
    name: program
    for name in ("python3.11", "python3.12", "python3.13")
    if name != OWN_VERSION and (program := program_of(name))
}


@pytest.fixture(params=[OWN_PYTHON, *OTHERS.values()], ids=[OWN_VERSION, *OTHERS])
def helper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Confined]:
    """One for this test, on each Python that this machine has and Bennu runs on."""
    monkeypatch.setattr(client.sys, "executable", request.param)
    made = Confined()
    yield made
    made.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root filesystem whose links try to get out."""
    (tmp_path / "secret").write_text("of the host")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/real").write_text("inside")
    (root / "secret").write_text("of the container")
    for name, target in {
        "up": "../../../../../../secret",
        "absolute": "/etc/real",
        "host": str(tmp_path / "secret"),
        "loop": "loop",
        "to-dir": "/etc",
        "chain": "absolute",
        "proc": "/proc/self/root",
    }.items():
        (root / "etc" / name).symlink_to(target)
    return root


def ask(helper: Confined, task: str, *trees: Folder | Process, **arguments: Any) -> Any:
    return asyncio.run(helper.ask(task, *trees, **arguments))


def read(helper: Confined, root: Path, path: str) -> str:
    text: str = ask(helper, "read", Folder(root), path=path, limit=1000)["text"]
    return text


def test_links_mean_what_they_mean_inside(helper: Confined, root: Path) -> None:
    assert read(helper, root, "/etc/absolute") == "inside"
    assert read(helper, root, "/etc/chain") == "inside"
    assert read(helper, root, "/etc/to-dir/../etc/real") == "inside"
    assert read(helper, root, "/../../etc/real") == "inside"
    assert read(helper, root, "/etc/up") == "of the container"
    assert read(helper, root, "/etc/../../../secret") == "of the container"


@pytest.mark.parametrize("path", ["/etc/host", "/etc/proc/etc/hostname", "/etc/nothing"])
def test_nothing_outside_is_found(helper: Confined, root: Path, path: str) -> None:
    with pytest.raises(Failure) as caught:
        read(helper, root, path)
    assert caught.value.kind == "missing"


@pytest.mark.parametrize(
    ("path", "told"),
    [("/etc/loop", "too many levels of symbolic links"), ("/etc", "no such file"), ("/etc/pipe", "no such file")],
)
def test_what_is_no_file_is_not_read_nor_waited_for(helper: Confined, root: Path, path: str, told: str) -> None:
    os.mkfifo(root / "etc/pipe")
    with pytest.raises(Failure, match=told):
        read(helper, root, path)


def test_no_device_is_opened(helper: Confined, root: Path) -> None:
    """Opening one may already do something: a watchdog begins to count."""
    os.mknod(root / "etc/passwd", 0o20666, os.makedev(1, 3))
    with pytest.raises(Failure, match="permission denied"):
        read(helper, root, "/etc/passwd")
    assert ask(helper, "accounts", Folder(root)) == {"passwd": "", "group": ""}


def test_a_working_directory_is_made_inside(helper: Confined, root: Path) -> None:
    def furnish(path: str) -> bool:
        plain: bool = ask(helper, "furnish", Folder(root, writable=True), working_dir=path)["plain"]
        return plain

    assert not furnish("/srv/app/x")
    assert (root / "srv/app/x").is_dir()
    assert furnish("/srv/app/x")
    assert not furnish("/etc/to-dir/new")
    assert (root / "etc/new").is_dir()
    assert not furnish("/etc/to-dir/new")
    assert furnish("/")
    for path in ("/etc/real", "/etc/real/below", "/etc/absolute/x"):
        with pytest.raises(Failure, match=r"^Cannot mkdir: /etc/\S+ is not a directory$"):
            furnish(path)


def test_what_is_only_to_be_read_cannot_be_written(helper: Confined, root: Path) -> None:
    with pytest.raises(Failure, match="read-only file system"):
        ask(helper, "furnish", Folder(root), working_dir="/new")


# --- what is left to it ----------------------------------------------------------------------------------------------

PROBE = """
    import ctypes, errno, os, sys
    sys.path.insert(0, sys.argv[1])
    from bennu.confined import calls, jail
    system_calls = calls.compile_filter()
    home = jail.leave_host()
    tree = int(sys.argv[2])
    if os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    os.close(home)
    jail.shut_in([jail.Tree(tree, True)], enter=True, proc=jail.open_proc())
    jail.give_up([number for number in range(64) if int(sys.argv[3]) >> number & 1], system_calls)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    os.write(1, f"{sorted(os.listdir('/'))}\\n".encode())
    for word, attempt in {
        "chroot": lambda: libc.chroot(b"/"),
        "mount": lambda: libc.mount(b"x", b"/", b"proc", 0, None),
        "open_tree": lambda: libc.syscall(428, -100, b"/", 1),
        "fsopen": lambda: libc.syscall(430, b"proc", 0),
        "unshare": lambda: libc.unshare(0x10000000),
        "setns": lambda: libc.setns(0, 0),
        "execve": lambda: libc.execve(b"/program", None, None),
        "fork": lambda: libc.fork(),
        "socket": lambda: libc.socket(1, 1, 0),
        "ptrace": lambda: libc.ptrace(16, 1, 0, 0),
        "kill": lambda: libc.kill(1, 9),
        "bpf": lambda: libc.syscall(321, 0, 0, 0),
        "prctl": lambda: libc.prctl(38, 0, 0, 0, 0),
        "mmap": lambda: -1 if libc.mmap(None, 4096, 7, 34, -1, 0) == 2**64 - 1 else 0,
    }.items():
        done = attempt()
        os.write(1, f"{word} {'done' if done >= 0 else errno.errorcode[ctypes.get_errno()]}\\n".encode())
    try:
        os.open("/device", os.O_RDONLY)
    except OSError as error:
        os.write(1, f"device {errno.errorcode[error.errno]}\\n".encode())
    try:
        os.setuid(1)
    except OSError as error:
        os.write(1, f"setuid {errno.errorcode[error.errno]}\\n".encode())
    os._exit(0)
"""


def test_only_file_work_is_left(tmp_path: Path) -> None:
    """The jail itself, with every capability there is, tried from inside."""
    (tmp_path / "program").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "program").chmod(0o4755)
    os.mknod(tmp_path / "device", 0o20666, os.makedev(1, 3))
    have = re.search(r"^CapPrm:\s+(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert have
    mask = str(int(have[1], 16))
    tree = client.clone_mount(os.fsencode(tmp_path))
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                textwrap.dedent(PROBE),
                str(client.SOURCES),
                f"{tree}",
                mask,
            ],
            pass_fds=[tree],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(tree)
    first, *lines = done.stdout.splitlines()
    assert first == "['device', 'program']", done.stderr
    told = dict(line.split() for line in lines)
    assert told.pop("device") == "EACCES"
    assert told == dict.fromkeys(told, "ENOSYS") and len(told) == 15, told


def test_it_has_few_capabilities_and_namespaces_of_its_own(helper: Confined, tmp_path: Path) -> None:
    """Seen from outside, while it waits for the rest of a tar."""
    ours, theirs = socket.socketpair()

    async def look() -> dict[str, str]:
        async with helper.begin(
            "unpack", Folder(tmp_path, writable=True), input=theirs.fileno(), path="/", same_kind=False
        ):
            return await asyncio.to_thread(find_child)

    def find_child() -> dict[str, str]:
        server = helper._server
        assert server is not None
        found: dict[str, str] = {}

        def shut_in() -> bool:
            for pid in descendants(server.pid):
                text = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
                if text["NoNewPrivs"] == "1":
                    spaces = {
                        kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("mnt", "pid", "net", "ipc")
                    }
                    found.update(text | spaces | {"mounts": Path(f"/proc/{pid}/mountinfo").read_text()})
            return bool(found)

        wait_for(shut_in, what="the helper to shut itself in")
        return found

    with ours, theirs:
        seen = asyncio.run(look())
    assert seen["Seccomp"] == "2"
    kept = {0, 1, 2, 3, 4, 27, 31}
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == sum(1 << number for number in kept)
    assert int(seen["CapInh"], 16) == int(seen["CapAmb"], 16) == 0
    for kind in ("mnt", "pid", "net", "ipc"):
        assert seen[kind] != namespace("self", kind)
    assert len(seen["mounts"].splitlines()) == 1 and "nosuid,nodev,noexec" in seen["mounts"]


def namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


IDLE = (
    2  # descendants of a server that has nothing to do: the first of its process namespace, and who waits to be asked
)


def descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        with contextlib.suppress(FileNotFoundError):  # it ends as we look
            found += [int(word) for word in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
    return found[1:]


# --- a tree that wants to be run --------------------------------------------------------------------------------------


READING, WRITING = ("pack", "pack_root", "pack_layer"), ("unpack", "unpack_layer", "unpack_tree", "take_apart")


@pytest.mark.parametrize("task", [*READING, *WRITING])
async def test_nothing_of_a_hostile_tree_is_ever_run(helper: Confined, task: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    plant_traps(root)
    subprocess.run(["mkdir", "-p", root / "/".join(["d"] * 1500)], check=True)
    tree = Folder(root, writable=task in WRITING)
    more: dict[str, Any] = {
        "pack": {"path": "/"},
        "pack_layer": {"enter": False, "lowers": []},
        "unpack": {"path": "/", "same_kind": False},
        "unpack_layer": {"digest": ""},
    }.get(task, {})
    if tree.writable:
        async with helper.begin(task, tree, input=True, **more) as session:
            assert session.input is not None
            session.input.write(bomb())
            session.input.close()
            with pytest.raises(Failure) as caught:
                await session.result()
        assert caught.value.kind in ("invalid", "system"), caught.value
    else:
        async with helper.begin(task, tree, output=True, **more) as session:
            assert session.output is not None
            packed = await session.output.read()
            await session.result()
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            names = tar.getnames()
        assert any("d/d/d" in name for name in names)
    assert not was_caught(root)
    subprocess.run(["rm", "-rf", root], check=True)  # too deep for pytest's own cleaning up


async def test_a_tree_of_any_depth_is_walked_whole(helper: Confined, tmp_path: Path) -> None:
    """Its paths are longer than the kernel takes; names are bytes."""
    root = tmp_path / "root"
    root.mkdir()
    deepen = "for _ in range(700): os.mkdir('longname'); os.chdir('longname')"
    script = f"import os\n{deepen}\nopen(b'f' + bytes([255]), 'w').write('deep' + chr(10))"
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
    try:
        assert await helper.ask("measure", Folder(root)) == 5
        changes = await helper.ask("changes", Folder(root), Folder(tmp_path), enter=False, lowers=["none"])
        assert len(changes) == 701 and changes[-1][0].endswith("longname/f\ufffd")
        async with helper.begin("pack_root", Folder(root), output=True) as session:
            assert session.output is not None
            packed = await session.output.read()
            await session.result()
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            last = tar.getmembers()[-1]
            found = tar.extractfile(last)
            assert found is not None and found.read() == b"deep\n" and last.name.endswith("/f\udcff")
    finally:
        subprocess.run(["rm", "-rf", root], check=True)  # too deep for pytest's own cleaning up


async def test_a_link_through_the_kernels_files_leads_nowhere(helper: Confined, tmp_path: Path) -> None:
    """`/proc/PID/root` is the process's root as it is: with programs, devices, and what may be written."""
    root = tmp_path / "root"
    for folder in ("proc", "a b/proc"):
        (root / folder).mkdir(parents=True)
    os.mknod(root / "device", 0o20666, os.makedev(1, 3))
    script = f"mount -t proc p {root}/proc; mount -t proc p '{root}/a b/proc'; echo ready; exec sleep 60"
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    (inner,) = descendants(child.pid)[:1]
    pidfd = os.pidfd_open(inner)
    try:
        for where in (root, f"{root}/a b"):
            with pytest.raises(Failure, match="no such file"):
                await helper.ask("stat", Process(pidfd), path=f"{where}/proc/1/root{root}/device")
        async with helper.begin("pack", Process(pidfd), output=True, path=f"{root}/proc") as session:
            assert session.output is not None
            packed = await session.output.read()
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            assert tar.getnames() == ["proc"]
    finally:
        os.close(pidfd)
        child.kill()
        child.wait()
        child.stdout.close()


# --- its end ----------------------------------------------------------------------------------------------------------


async def test_who_no_longer_waits_ends_it(helper: Confined, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with helper.begin("unpack_tree", Folder(tmp_path, writable=True), input=theirs.fileno()):
            server = helper._server
            assert server is not None
            wait_for(lambda: len(descendants(server.pid)) == IDLE + 1, what="the helper to begin")
        wait_for(lambda: len(descendants(server.pid)) == IDLE, what="the helper to end")


@pytest.mark.parametrize("so_far", [b"", b'{"read": 4194304}\n', b'{"read": 4194304}\n{"do', b'{"do'])
async def test_one_that_is_ended_before_its_last_word_has_failed(so_far: bytes) -> None:
    for ask_for_it in (client.Session.result, client.Session.answer):
        answers = asyncio.StreamReader()
        answers.feed_data(so_far)
        answers.feed_eof()
        with pytest.raises(Failure, match="the helper ended without a word") as caught:
            await ask_for_it(client.Session(answers))
        assert caught.value.kind == "died"


@pytest.mark.parametrize("length", [140_000, 1_000_000])
def test_a_path_that_is_longer_than_any_is_refused_in_words(helper: Confined, root: Path, length: int) -> None:
    with pytest.raises(InvalidParameter, match=r"^file name too long$"):
        ask(helper, "furnish", Folder(root, writable=True), working_dir="/" + "x" * length)
    assert read(helper, root, "/etc/real") == "inside"


def test_it_ends_with_its_daemon(helper: Confined, root: Path) -> None:
    program = (
        "import asyncio, sys, time; from pathlib import Path; from bennu.confined.client import HELPER, Folder\n"
        f"asyncio.run(HELPER.ask('measure', Folder(Path({str(root)!r}))))\n"
        "print(HELPER._server.pid, flush=True); time.sleep(60)"
    )
    daemon = subprocess.Popen([OWN_PYTHON, "-c", program], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    server = int(daemon.stdout.readline())
    family = [server, *descendants(server)]
    daemon.kill()
    daemon.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in family), what="the server to end")
    daemon.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_server_that_died_is_started_again(helper: Confined, root: Path) -> None:
    assert read(helper, root, "/etc/real") == "inside"
    assert helper._server is not None
    os.kill(helper._server.pid, signal.SIGKILL)
    helper._server.wait()
    assert read(helper, root, "/etc/real") == "inside"


def test_one_that_dies_while_it_waits_to_be_asked_is_replaced(helper: Confined, root: Path) -> None:
    assert read(helper, root, "/etc/real") == "inside"
    assert helper._server is not None
    server = helper._server.pid

    def who_waits() -> list[int]:
        others = descendants(server)[1:]
        return [pid for pid in others if "NoNewPrivs:\t0" in Path(f"/proc/{pid}/status").read_text()]

    waiting = wait_for(who_waits, what="the next to wait")[0]
    os.kill(waiting, signal.SIGKILL)
    wait_for(lambda: not is_alive(waiting), what="its death")
    assert read(helper, root, "/etc/real") == "inside"
    assert helper._server.pid == server


def test_who_asks_at_the_moment_of_its_death_is_answered_all_the_same(helper: Confined, root: Path) -> None:
    assert read(helper, root, "/etc/real") == "inside"
    assert helper._server is not None
    os.kill(helper._server.pid, signal.SIGSTOP)  # it seems to live, while what it serves with is gone
    inner = descendants(helper._server.pid)[0]
    os.kill(inner, signal.SIGKILL)
    wait_for(lambda: not is_alive(inner), what="the server to be gone")
    assert read(helper, root, "/etc/real") == "inside"


def open_files() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def test_nothing_stays_open(helper: Confined, root: Path) -> None:
    read(helper, root, "/etc/real")
    before = open_files()
    for _ in range(20):
        read(helper, root, "/etc/real")
        with pytest.raises(Failure):
            read(helper, root, "/none")
        with pytest.raises(FileNotFoundError):
            read(helper, root / "none", "/etc/real")
    assert open_files() == before


@contextlib.contextmanager
def process_with_silent_files(folder: Path) -> Iterator[Process]:
    """A process that has a FUSE file system at `folder` whose program never answers."""
    program = f"""
        import ctypes, os, time
        fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={{fuse}},rootmode=40000,user_id=0,group_id=0".encode()
        assert ctypes.CDLL(None).mount(b"silent", {os.fsencode(folder)!r}, b"fuse", 0, options) == 0
        print("ready", flush=True)
        time.sleep(60)
    """
    argv = ["unshare", "--mount", OWN_PYTHON, "-c", textwrap.dedent(program)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    pidfd = os.pidfd_open(child.pid)
    try:
        yield Process(pidfd)
    finally:
        os.close(pidfd)
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="no FUSE in this kernel")
async def test_files_that_never_answer_hold_up_nobody_else(helper: Confined, root: Path) -> None:
    (root / "silent").mkdir()
    with process_with_silent_files(root / "silent") as tree:
        path = f"{root}/silent/x"
        asked = [asyncio.ensure_future(helper.ask("stat", tree, path=path)) for _ in range(40)]
        async with asyncio.timeout(20):
            while helper._server is None or len(descendants(helper._server.pid)) < IDLE + 40:
                await asyncio.sleep(0.05)
        server = helper._server.pid
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(os.getpid) == os.getpid()  # a thread is free
            assert (await helper.ask("read", Folder(root), path="/etc/real", limit=10))["text"] == "inside"
            with pytest.raises(Failure, match="did not answer within"):
                await helper.ask("stat", tree, path=path, limit_s=0.2)
        await client.cancel(*asked)
        wait_for(lambda: len(descendants(server)) == IDLE, what="those who waited for it to end")


async def test_who_leaves_at_once_gives_nobody_elses_files_away(helper: Confined, root: Path) -> None:
    """A cancellation while the request is on its way: its descriptors stay open until it is sent."""
    sent: list[bool] = []
    send = helper._send

    def send_late(request: bytes, passed: list[int], trees: list[Folder]) -> None:
        time.sleep(0.2)
        sent.append(all(Path(f"/proc/self/fd/{descriptor}").exists() for descriptor in passed))
        send(request, passed, trees)

    helper._send = send_late  # type: ignore[method-assign,assignment]
    asked = asyncio.ensure_future(helper.ask("read", Folder(root), path="/etc/real", limit=10))
    await asyncio.sleep(0.05)
    await client.cancel(asked)
    assert sent == [True]


def test_a_process_that_is_gone_is_not_mistaken_for_another(helper: Confined) -> None:
    child = subprocess.Popen(["sleep", "60"])
    pidfd = os.pidfd_open(child.pid)
    try:
        child.kill()
        child.wait()
        with pytest.raises(Failure, match="no such process"):
            ask(helper, "stat", Process(pidfd), path="/")
    finally:
        os.close(pidfd)


def test_the_root_of_a_process_is_seen_with_all_its_mounts(helper: Confined, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    script = f"mount -t tmpfs x {tmp_path}/volume; touch {tmp_path}/volume/inside; echo ready; sleep 60"
    child = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    pidfd = os.pidfd_open(child.pid)
    try:
        found = ask(helper, "stat", Process(pidfd), path=f"{tmp_path}/volume/inside")
        assert found["name"] == "inside" and not (tmp_path / "volume/inside").exists()
    finally:
        os.close(pidfd)
        child.kill()
        child.wait()
        child.stdout.close()
