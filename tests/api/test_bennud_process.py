"""bennud as a process: how it starts beside others, how it ends, and what it leaves."""

import os
import signal
import stat
import subprocess
from collections.abc import Callable

import pytest

from support import images
from support.daemon import BENNUD, Daemon
from support.waiting import wait_for

MakeDaemon = Callable[..., Daemon]


def run_bennud(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BENNUD, *map(str, words)], capture_output=True, text=True, timeout=20, check=False)


def test_version_and_help_need_nothing() -> None:
    assert run_bennud("--version").stdout.startswith("bennud version ")
    assert "--data-root" in run_bennud("--help").stdout


def test_a_wrong_word_is_one_line_and_exit_1() -> None:
    done = run_bennud("--bogus")
    assert (done.returncode, done.stderr) == (1, "bennud: unknown flag: --bogus\n")
    done = run_bennud("-H", "tcp://127.0.0.1:2375")
    assert done.returncode == 1
    assert "only with --tlsverify" in done.stderr


def test_validate_starts_nothing(tmp_path: object) -> None:
    done = run_bennud("--validate", "--data-root", f"{tmp_path}/d", "--storage-driver", "overlay2")
    assert (done.returncode, done.stdout) == (0, "configuration OK\n")
    assert not os.path.exists(f"{tmp_path}/d")  # noqa: PTH110


def test_the_socket_is_for_root_and_its_group(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
    assert daemon.stop() == 0
    assert not daemon.socket.exists()


def test_a_second_one_on_the_same_roots_names_the_first_and_harms_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    for roots in (
        ["--data-root", daemon.data_root, "--exec-root", f"{daemon.root}/other"],
        ["--data-root", f"{daemon.root}/other", "--exec-root", daemon.exec_root],
    ):
        done = run_bennud(*roots, "-H", f"unix://{daemon.root}/s2")
        assert done.returncode == 1
        assert f"is in use by another bennud (pid {daemon.pid})" in done.stderr
    done = run_bennud("--data-root", f"{daemon.root}/d2", "--exec-root", f"{daemon.root}/e2", "-H", daemon.host)
    assert done.returncode == 1
    assert "another process listens there" in done.stderr
    assert daemon.request("GET", "/_ping") == (200, b"OK")


def test_dockerds_flags_start_it_with_a_warning_each(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(options=["--storage-driver", "overlay2", "--userland-proxy-path=/x", "--live-restore"])
    warnings = [line for line in daemon.log().splitlines() if "has no effect" in line]
    assert len(warnings) == 3
    assert "containers always live on" in warnings[2]


def test_the_pid_file_lives_as_long_as_the_process(make_daemon: MakeDaemon, tmp_path: object) -> None:
    path = f"{tmp_path}/bennud.pid"
    daemon = make_daemon(options=["--pidfile", path])
    with open(path) as file:  # noqa: PTH123
        assert file.read() == str(daemon.pid)
    daemon.stop()
    assert not os.path.exists(path)  # noqa: PTH110


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGINT", "kill -9"])
def test_containers_outlive_it_and_the_next_one_takes_them_up(make_daemon: MakeDaemon, ending: str) -> None:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    daemon.docker("run", "-d", "--name", "lasting", "--network", "none", "busybox", "sleep", "1000")
    pid = int(daemon.docker("inspect", "-f", "{{.State.Pid}}", "lasting").line)
    if ending == "kill -9":
        daemon.kill()
    else:
        assert daemon.process is not None
        daemon.process.send_signal(signal.Signals[ending])
        assert daemon.process.wait(20) == 0
    os.kill(pid, 0)
    daemon.start()
    assert int(daemon.docker("inspect", "-f", "{{.State.Pid}}", "lasting").line) == pid
    assert daemon.docker("exec", "lasting", "echo", "here").out == "here\n"
    daemon.docker("rm", "-f", "lasting")


def test_open_streams_do_not_hold_up_its_end(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    daemon.docker(
        "run", "-d", "--name", "talking", "--network", "none", "busybox", "sh", "-c", "while true; do echo; done"
    )
    with (
        daemon.docker.running("attach", "talking"),
        daemon.docker.running("logs", "-f", "talking"),
        daemon.docker.running("events"),
        daemon.docker.running("wait", "talking"),
        daemon.docker.running("exec", "talking", "sleep", "100"),
    ):
        wait_for(lambda: daemon.docker("inspect", "-f", "{{.ExecIDs}}", "talking").line != "[]")
        assert daemon.stop(timeout_s=15) == 0
    daemon.start()
    daemon.docker("rm", "-f", "talking")


def test_a_hang_up_without_a_file_changes_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "Reloaded configuration" in daemon.log())
    assert daemon.request("GET", "/_ping") == (200, b"OK")


def test_a_shells_limit_on_open_files_is_that_of_containers_and_not_of_bennud(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(program=("prlimit", "--nofile=64:4096", BENNUD))
    images.import_base(daemon.docker, "busybox")
    for _ in range(30):  # each takes two descriptors and more
        daemon.docker("run", "-d", "--network=none", "busybox", "sleep", "1000")
    shown = ("sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn)")
    assert daemon.docker("run", "--rm", "--network=none", "busybox", *shown).line == "64 4096"
    assert daemon.docker("run", "--rm", "--network=none", "--ulimit=nofile=80:90", "busybox", *shown).line == "80 90"
    first, *others = daemon.docker("ps", "-q").lines
    assert (daemon.docker("exec", first, *shown).line, len(others)) == ("64 4096", 29)
    daemon.docker("rm", "-f", first, *others)
