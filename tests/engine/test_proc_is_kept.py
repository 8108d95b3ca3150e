"""A container's /proc is the kernel's: nobody mounts anything over it, by whatever name."""

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from support import images
from support.cli import Cli

NOT_PROC = "cannot be mounted because it is not of type proc"
INSIDE = "cannot be mounted because it is inside /proc"
AT_FDCWD: Final = -100
RENAME_EXCHANGE: Final = 2


def refused(docker: Cli, *words: str | Path) -> str:
    said = docker("run", "--rm", *words, "ls", "/proc", ok=False)
    assert (said.code, said.out) == (125, "")
    return said.err


@pytest.mark.parametrize(
    ("target", "why"),
    [("/proc", NOT_PROC), ("/proc/self", INSIDE), ("/proc/sys/kernel", INSIDE), ("/x/../proc/.", NOT_PROC)],
)
def test_no_volume_folder_or_tmpfs_goes_there(docker: Cli, busybox: str, tmp_path: Path, target: str, why: str) -> None:
    for words in (("-v", f"{tmp_path}:{target}"), ("-v", f"named:{target}"), ("--tmpfs", target)):
        assert why in refused(docker, *words, busybox)


def test_a_volume_that_an_image_declares_does_not_go_there(docker: Cli, busybox: str) -> None:
    docker("import", "-c", "VOLUME /proc", images.base_image("busybox"), "greedy")
    assert NOT_PROC in refused(docker, "greedy")


def test_no_link_of_an_image_or_of_a_volume_leads_there(docker: Cli, busybox: str, tmp_path: Path) -> None:
    docker("run", "--name=links", busybox, "sh", "-c", "mkdir /a && ln -s ../proc /a/b && ln -s /a/b/self /c")
    docker("commit", "links", "linked")
    assert NOT_PROC in refused(docker, "-v", f"{tmp_path}:/a/b", "linked")
    assert INSIDE in refused(docker, "-v", f"{tmp_path}:/c", "linked")
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "b").symlink_to("/proc")
    assert NOT_PROC in refused(docker, "-v", f"{outer}:/data", "-v", f"{tmp_path}:/data/b", busybox)


def test_what_others_put_there_still_may(docker: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("1.00 1.00\n")
    own = docker("run", "--rm", "-v", f"{tmp_path}/uptime:/proc/uptime", busybox, "cat", "/proc/uptime")
    assert own.line == "1.00 1.00"
    docker("run", "--rm", "-v", "/proc:/proc", "-v", "/sys:/sys:ro", "-v", "/proc:/host/proc:ro", busybox, "true")


def test_who_is_given_the_hosts_proc_gets_what_lies_in_it(docker: Cli, busybox: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "lies", "/proc/fs"], check=True)
    try:
        shown = docker("run", "--rm", "-v", "/proc:/proc", busybox, "grep", "-c", "^lies /proc/fs ", "/proc/mounts")
    finally:
        subprocess.run(["umount", "/proc/fs"], check=True)
    assert int(shown.line) > 0


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """The two change places without end."""
    libc, done = ctypes.CDLL(None), threading.Event()
    names = os.fsencode(one), os.fsencode(other)

    def swap() -> None:
        while not done.is_set():
            assert libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(("link", "why"), [("/proc", NOT_PROC), ("/proc/sys", INSIDE)])
def test_a_folder_that_becomes_a_link_at_the_last_moment_leads_nowhere(
    docker: Cli, busybox: str, tmp_path: Path, link: str, why: str
) -> None:
    shared, forged = tmp_path / "shared", tmp_path / "forged"
    (shared / "p").mkdir(parents=True)
    (shared / "l").symlink_to(link)
    (forged / "kernel").mkdir(parents=True)
    for name in ("uptime", "kernel/ostype"):
        (forged / name).write_text("forged\n")
    too_late = f'to rootfs at "{link}": '  # where it came to lie: what was asked for is /data/p
    deadline = time.monotonic() + 20
    seen = ""
    with swapping(shared / "p", shared / "l"):
        while too_late not in seen and time.monotonic() < deadline:
            words = ("-v", f"{shared}:/data", "-v", f"{forged}:/data/p", busybox)
            said = docker("run", "--rm", *words, "cat", "/proc/uptime", "/proc/sys/kernel/ostype", ok=False)
            assert "forged" not in said.out
            seen = said.err
    assert too_late in seen
    assert why in seen
    assert not docker("ps", "-aq").lines
