"""A container's /proc is the kernel's: nobody mounts anything over it, by whatever name."""

from pathlib import Path

import pytest

from support import images
from support.cli import Cli

NOT_PROC = "cannot be mounted because it is not of type proc"
INSIDE = "cannot be mounted because it is inside /proc"


def refused(docker: Cli, *words: str | Path) -> str:
    said = docker("run", "--rm", *words, "ls", "/proc", ok=False)
    assert (said.code, said.out) == (125, "")
    return said.err


@pytest.mark.parametrize(
    ("target", "why"),
    [("/proc", NOT_PROC), ("/proc/self", INSIDE), ("/proc/sys/kernel", INSIDE), ("/x/../proc/.", NOT_PROC)],
)
def test_no_volume_folder_or_tmpfs_goes_there(bennu: Cli, busybox: str, tmp_path: Path, target: str, why: str) -> None:
    for words in (("-v", f"{tmp_path}:{target}"), ("-v", f"named:{target}"), ("--tmpfs", target)):
        assert why in refused(bennu, *words, busybox)


def test_a_volume_that_an_image_declares_does_not_go_there(docker: Cli, bennu: Cli, busybox: str) -> None:
    docker("import", "-c", "VOLUME /proc", images.base_image("busybox"), "greedy")
    assert NOT_PROC in refused(bennu, "greedy")


def test_no_link_of_an_image_or_of_a_volume_leads_there(docker: Cli, bennu: Cli, busybox: str, tmp_path: Path) -> None:
    docker("run", "--name=links", busybox, "sh", "-c", "mkdir /a && ln -s ../proc /a/b && ln -s /a/b/self /c")
    docker("commit", "links", "linked")
    assert NOT_PROC in refused(bennu, "-v", f"{tmp_path}:/a/b", "linked")
    assert INSIDE in refused(bennu, "-v", f"{tmp_path}:/c", "linked")
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "b").symlink_to("/proc")
    assert NOT_PROC in refused(bennu, "-v", f"{outer}:/data", "-v", f"{tmp_path}:/data/b", busybox)


def test_what_others_put_there_still_may(docker: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("1.00 1.00\n")
    own = docker("run", "--rm", "-v", f"{tmp_path}/uptime:/proc/uptime", busybox, "cat", "/proc/uptime")
    assert own.line == "1.00 1.00"
    docker("run", "--rm", "-v", "/proc:/proc", "-v", "/sys:/sys:ro", "-v", "/proc:/host/proc:ro", busybox, "true")
