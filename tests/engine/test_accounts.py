"""Users, groups and the working directory are those of the container's own root, also if its image is known."""

import contextlib
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from bennu.images.overlay import is_left_alone, mount_overlay, unmount
from support.cli import Cli
from support.daemon import Daemon, UnixConnection

SHOW_HOME = "echo home is $HOME"
FORGED = b"root:x:0:0::/forged:/bin/sh\n" + b"#" * 4096


def restarted(docker: Cli, name: str) -> str:
    """What it says in its next life."""
    before = docker("logs", name).out
    docker("start", "-a", name)
    return docker("logs", name).out.removeprefix(before).strip()


def changed_once(docker: Cli, image: str, change: str) -> str:
    """What a container tells of root's home after it has made this change in its first life; another runs before."""
    docker("run", "--rm", image, "true")
    docker("run", "--name", "changes", image, "sh", "-c", f"{SHOW_HOME}; {change}")
    return restarted(docker, "changes")


@pytest.mark.parametrize(
    "change",
    [
        "sed -i 's#^root:.*#root:x:0:0::/moved:/bin/sh#' /etc/passwd",
        "echo root:x:0:0::/moved:/bin/sh >/new; ln -sf /new /etc/passwd",
    ],
)
def test_a_container_that_changed_its_users_has_its_own(docker: Cli, busybox: str, change: str) -> None:
    assert changed_once(docker, busybox, change) == "home is /moved"
    assert docker("run", "--rm", busybox, "sh", "-c", SHOW_HOME).line == "home is /root"


def test_a_container_that_deleted_its_users_has_none(docker: Cli, busybox: str) -> None:
    assert changed_once(docker, busybox, "rm -f /etc/passwd") == "home is /"


def test_users_behind_a_link_of_the_image_are_read_anew(docker: Cli, busybox: str) -> None:
    docker("run", "--name", "links", busybox, "sh", "-c", "mv /etc/passwd /users; ln -s /users /etc/passwd")
    docker("commit", "links", "linked")
    assert changed_once(docker, "linked", "echo root:x:0:0::/moved:/bin/sh >/users") == "home is /moved"


def test_each_container_gets_the_working_directory_that_its_image_lacks(docker: Cli, busybox: str) -> None:
    for name in ("first", "second"):
        docker("run", "--name", name, "-w", "/made/below", busybox, "sh", "-c", "pwd; stat -c %u:%g:%a /made")
        assert docker("logs", name).out.split() == ["/made/below", "0:0:755"]
    docker("run", "--name", "takes", "-w", "/srv", busybox, "sh", "-c", "rmdir /srv; touch /srv; echo taken")
    assert "Cannot mkdir: /srv is not a directory" in docker("start", "-a", "takes", ok=False).err


def test_what_is_written_into_one_container_before_its_start_is_no_other_ones(
    docker: Cli, daemon: Daemon, busybox: str
) -> None:
    """An upload that has begun goes on while the container starts, the first of its image with this folder."""
    docker("create", "--name=written", "-w", "/folder", busybox, "true")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        users = tarfile.TarInfo("passwd")
        users.size = len(FORGED)
        archive.addfile(users, io.BytesIO(FORGED))
    head, rest = packed.getvalue()[:1024], packed.getvalue()[1024:]
    with contextlib.closing(UnixConnection(daemon.socket)) as upload:
        upload.putrequest("PUT", "/containers/written/archive?path=/etc")
        upload.putheader("Content-Length", str(len(head) + len(rest)))
        upload.endheaders(head)
        time.sleep(0.5)  # it is unpacked: the daemon has begun with it
        docker("start", "-a", "written")
        upload.send(rest)
        upload.getresponse().read()
    assert docker("run", "--rm", "-w", "/folder", busybox, "sh", "-c", SHOW_HOME).line == "home is /root"


def test_a_working_directory_with_a_name_too_long_is_refused_in_words(docker: Cli, busybox: str) -> None:
    docker("run", "--rm", "-w", "/srv", busybox, "true")
    said = docker("run", "--rm", "-w", "/" + "a" * 300, busybox, "true", ok=False)
    assert "mkdir" in said.err and "file name too long" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_the_writable_layer_says_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "image/etc").mkdir(parents=True)
    (tmp_path / "image/app").mkdir()
    (tmp_path / "image/etc/passwd").touch()
    for name in ("diff", "work", "merged"):
        (tmp_path / "box" / name).mkdir(parents=True)
    upper, seen = tmp_path / "box/diff", mount_overlay(tmp_path, ["image"], tmp_path / "box")
    try:
        assert all(is_left_alone(upper, path) for path in ("/etc/passwd", "/app", "/", "", "/app/none"))
        (seen / "etc/group").touch()
        (seen / "app/new").touch()
        assert all(is_left_alone(upper, path) for path in ("/etc/passwd", "/app", "/etc/shadow"))
        assert not is_left_alone(upper, "/etc/group")
        (seen / "app/new").unlink()
        (seen / "app").rmdir()
        assert not is_left_alone(upper, "/app") and not is_left_alone(upper, "/app/below")
        (seen / "app").mkdir()
        assert not is_left_alone(upper, "/app")
        (seen / "etc/passwd").unlink()
        assert not is_left_alone(upper, "/etc/passwd")
        (seen / "up").symlink_to("/")
        assert not is_left_alone(upper, "/up/etc") and not is_left_alone(upper, "/app/../../work")
    finally:
        unmount(seen)
