"""The daemon's folders are closed to other users of the host, and open to whom they serve."""

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import images
from support.daemon import Daemon

NOBODY = 65534
TRUSTED = 54321  # the group that may use the socket


@pytest.fixture
def open_daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """Of a former version: its roots let everybody in, and so do the folders above them."""
    daemon = make_daemon(options=("-G", str(TRUSTED)))
    daemon.stop()
    for folder in (daemon.root, daemon.data_root, daemon.exec_root):
        folder.chmod(0o755)
    images.import_base(daemon.start().docker, "busybox")
    return daemon


def test_no_other_user_runs_a_setuid_program_that_a_container_left_in_a_volume(open_daemon: Daemon) -> None:
    plant = "cp /bin/busybox /kept/rise && chmod 4755 /kept/rise"
    open_daemon.docker("run", "--name=plants", "-v", "kept:/kept", "busybox", "sh", "-c", plant)
    planted = open_daemon.data_root / "volumes/kept/_data/rise"
    assert planted.stat().st_mode & 0o7777 == 0o4755
    for folder in (open_daemon.data_root, open_daemon.exec_root):
        assert folder.stat().st_mode & 0o7777 == 0o710
    with pytest.raises(PermissionError):
        subprocess.run([planted, "id", "-u"], user=NOBODY, group=NOBODY, extra_groups=[], check=False)


def test_the_group_of_the_socket_gets_through_to_it_and_nobody_else(open_daemon: Daemon) -> None:
    assert can_connect(open_daemon.socket, TRUSTED)
    assert not can_connect(open_daemon.socket, NOBODY)


def can_connect(path: Path, group: int) -> bool:
    if (pid := os.fork()) == 0:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os._exit(socket.socket(socket.AF_UNIX).connect_ex(str(path)))
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert number in (0, errno.EACCES)
    return number == 0


def test_containers_of_other_users_have_all_that_is_theirs(open_daemon: Daemon) -> None:
    look = "id -u && cat /etc/hosts /etc/resolv.conf >/dev/null && touch /kept/mine && ls /bin/sh"
    docker = open_daemon.docker
    docker("run", "--rm", "-v", "kept:/kept", "busybox", "chmod", "777", "/kept")
    said = docker("run", "--rm", f"--user={NOBODY}", "-v", "kept:/kept", "busybox", "sh", "-c", look)
    assert said.lines == [str(NOBODY), "/bin/sh"]
