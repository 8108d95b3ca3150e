"""Whatever an image or a container has in its files, copying, exporting and unpacking them runs nothing of it."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import Cli
from support.daemon import Daemon
from support.images import base_image
from support.traps import MARKER, bomb, plant_traps, was_caught


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tar of a busybox full of traps."""
    root = tmp_path_factory.mktemp("traps") / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", base_image("busybox"), "-C", root], check=True)
    plant_traps(root)
    (root / "Dockerfile").write_text("FROM trapped\nCOPY . /again\nRUN ls /\n")
    tar = root.parent / "traps.tar"
    subprocess.run(["tar", "-cf", tar, "-C", root, "."], check=True)
    return tar


@pytest.fixture
def trapped(docker: Cli, traps: Path) -> Iterator[str]:
    docker("import", traps, "trapped")
    yield "trapped"
    assert not was_caught()
    docker("rmi", "-f", "trapped")


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


def test_out_of_a_container_that_never_ran(docker: Cli, daemon: Daemon, trapped: str) -> None:
    container = docker("create", trapped, "true").out.strip()
    assert MARKER not in names(daemon.request("GET", f"/containers/{container}/export")[1])
    assert names(daemon.request("GET", f"/containers/{container}/archive?path=/etc")[1])[0] == "etc"
    assert docker("diff", container).out == ""


def test_out_of_a_running_container_and_into_it(docker: Cli, daemon: Daemon, trapped: str, tmp_path: Path) -> None:
    container = docker("run", "-d", trapped, "sleep", "600").out.strip()
    docker("cp", f"{container}:/etc", tmp_path)
    assert (tmp_path / "etc/nsswitch.conf").exists()
    docker("cp", tmp_path / "etc", f"{container}:/copied")
    assert docker("exec", container, "cat", "/copied/nsswitch.conf").out.startswith("passwd: evil")
    daemon.request("PUT", f"/containers/{container}/archive?path=/", bomb())
    docker("exec", "-u", "nobody:nogroup", container, "true", ok=False)
    docker("exec", container, "mkdir", "-p", "/".join(["", *["d"] * 1500]))
    docker("commit", container, "trapped-again")
    docker("run", "--rm", "--network=none", "trapped-again", "test", "-d", "/".join(["", *["d"] * 1500]))
    docker("diff", container)
    assert docker("exec", container, "ls", "/").out.split().count(MARKER) == 0
    docker("rmi", "-f", "trapped-again")


def test_out_of_an_archive_and_a_context(docker: Cli, trapped: str, traps: Path, tmp_path: Path) -> None:
    docker("save", "-o", tmp_path / "saved.tar", trapped)
    docker("rmi", trapped)
    docker("load", "-i", tmp_path / "saved.tar")
    docker("build", "-t", "trapped-built", "-", stdin=traps.read_bytes(), timeout_s=120)
    assert MARKER not in docker("run", "--rm", "--network=none", "trapped-built", "ls", "/", "/again").out
    docker("rmi", "-f", "trapped-built")


def test_a_new_volume_is_filled_from_it(docker: Cli, trapped: str) -> None:
    out = docker("run", "--rm", "-v", "/etc", "--network=none", trapped, "cat", "/etc/nsswitch.conf").out
    assert out.startswith("passwd: evil")


def test_what_is_no_tar_gets_words_and_no_traceback(daemon: Daemon, docker: Cli, busybox: str) -> None:
    container = docker("create", busybox, "true").out.strip()
    for content in (bomb(), b"no tar at all" * 1000, b"\x1f\x8b broken"):
        status, body = daemon.request("PUT", f"/containers/{container}/archive?path=/tmp", content)
        assert status == 400 and b"Traceback" not in body and b"message" in body, body
    assert "Traceback" not in daemon.log()
