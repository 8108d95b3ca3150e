"""What a container has put where the engine reads or writes for somebody: nodes, pipes, links that change meanwhile."""

import io
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import Cli
from support.daemon import Daemon


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of the host, as a container may name it by its numbers."""
    image = tmp_path / "disk"
    image.write_bytes(bytes(1 << 20))
    done = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no loop device here")
    yield Path(done.stdout.strip())
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


@pytest.mark.parametrize("running", [True, False])
def test_a_copy_replaces_a_node_and_does_not_write_through_it(
    docker: Cli, daemon: Daemon, busybox: str, disk: Path, running: bool
) -> None:
    number = disk.stat().st_rdev
    made = docker("run", "-d", "--network=none", busybox, "sleep", "600").line
    docker("exec", made, "mknod", "/tmp/settings", "b", str(os.major(number)), str(os.minor(number)))
    if not running:
        docker("kill", made)
        docker("wait", made)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        settings = tarfile.TarInfo("settings")
        settings.size = 512
        archive.addfile(settings, io.BytesIO(b"x" * 512))
    assert daemon.request("PUT", f"/containers/{made}/archive?path=/tmp", tar.getvalue())[0] == 200
    subprocess.run(["sync"], check=True)
    assert disk.read_bytes()[:8] == bytes(8), "written onto the host's disk"
    _, packed = daemon.request("GET", f"/containers/{made}/archive?path=/tmp/settings")
    with tarfile.open(fileobj=io.BytesIO(packed)) as copied:
        assert copied.getmembers()[0].isreg()


@pytest.mark.parametrize(
    ("options", "path", "status", "said"),
    [
        (["--read-only"], "/tmp", 400, "container rootfs is marked read-only"),
        (["--read-only"], "/kept", 200, ""),
        (["--read-only"], "/shown", 400, "mounted volume is marked read-only"),
        ([], "/shown", 400, "mounted volume is marked read-only"),
        ([], "/none", 404, "Could not find the file /none in container"),
        ([], "/bin/busybox", 400, "extraction point is not a directory"),
        ([], "/bin/busybox/", 400, "not a directory (/bin/busybox/)"),
    ],
)
@pytest.mark.parametrize("verb", [["run", "-d"], ["create"]])
def test_a_copy_is_refused_in_words_where_the_container_could_not_write(
    docker: Cli, daemon: Daemon, busybox: str, options: list[str], path: str, status: int, said: str, verb: list[str]
) -> None:
    mounts = ["-v", "kept:/kept", "-v", "kept:/shown:ro"]
    made = docker(*verb, "--network=none", *options, *mounts, busybox, "sleep", "600").line
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("settings"))
    answer = daemon.request("PUT", f"/containers/{made}/archive?path={path}", tar.getvalue())
    assert answer[0] == status and said in answer[1].decode()
    assert daemon.request("PUT", f"/containers/{made}/archive?path=/kept", b"")[0] == 200, "nothing is to be copied"


def test_a_volume_is_filled_and_emptied_through_a_container_that_does_not_run(
    docker: Cli, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "settings").write_text("of the host")
    docker("create", "--name=fills", "-v", "kept:/kept/deep", "-v", f"{tmp_path}/made:/bound", busybox, "true")
    docker("cp", tmp_path / "settings", "fills:/kept/deep/")
    docker("cp", tmp_path / "settings", "fills:/bound")
    assert (tmp_path / "made/settings").read_text() == "of the host"
    reads = docker("run", "-v", "kept:/else", "--name=reads", busybox, "sh", "-c", "cat /else/*; echo more >/else/more")
    assert reads.out == "of the host"
    docker("cp", "reads:/else/more", tmp_path / "more")
    assert (tmp_path / "more").read_text() == "more\n"
    docker("cp", "fills:/kept", tmp_path / "all")
    assert sorted(path.name for path in (tmp_path / "all/deep").iterdir()) == ["more", "settings"]
    docker("start", "-a", "fills")
    assert "/kept/deep/settings" not in docker("diff", "fills").out
    docker("export", "-o", tmp_path / "exported", "fills")
    with tarfile.open(tmp_path / "exported") as exported:
        assert not [name for name in exported.getnames() if "settings" in name]


def test_mounts_inside_mounts_and_on_files_are_seen_while_a_container_does_not_run(
    docker: Cli, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("one file")
    (tmp_path / "outer").mkdir()
    mounts = (
        f"{tmp_path}/file:/outer/inner/file",
        "inner:/outer/inner",
        f"{tmp_path}/outer:/outer",
        "/proc:/outer/proc",
    )
    docker("create", "--name=nested", *(f"--volume={mount}" for mount in mounts), busybox, "true")
    docker("cp", "nested:/outer", tmp_path / "all")
    assert (tmp_path / "all/inner/file").read_text() == "one file"
    assert list((tmp_path / "all/proc").iterdir()) == [], "the kernel's files are nobody's to be copied"
    docker("cp", tmp_path / "file", "nested:/outer/inner/more")
    assert docker("run", "--rm", "-v", "inner:/x", busybox, "ls", "/x").out.split() == ["file", "more"]


def test_a_volume_behind_a_link_is_mounted_inside_the_root(docker: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "of-the-host").mkdir()
    docker("run", "--name=links", busybox, "ln", "-s", f"../../../..{tmp_path}/of-the-host", "/link")
    docker("commit", "links", "linked")
    docker("create", "--name=led", "-v", "behind-link:/link/below", "linked", "true")
    (tmp_path / "settings").write_text("x")
    docker("cp", tmp_path / "settings", "led:/link/below/settings")
    assert list((tmp_path / "of-the-host").iterdir()) == []
    assert docker("run", "--rm", "-v", "behind-link:/x", busybox, "ls", "/x").line == "settings"


def test_no_place_of_a_mount_is_looked_up_through_another_ones_kernel_files(
    docker: Cli, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "settings").write_text("x")
    for number, source in enumerate(("/proc", "/")):
        inside = "/host" if source == "/proc" else "/host/proc"
        volume = f"kept{number}:{inside}/self/root{tmp_path}/made"
        docker("create", f"--name=led{number}", "-v", f"{source}:/host:ro", "-v", volume, busybox, "true")
        docker("cp", tmp_path / "settings", f"led{number}:/tmp/", ok=False)
        assert [path.name for path in tmp_path.iterdir()] == ["settings"]


@pytest.mark.parametrize("running", [True, False])
def test_a_copy_onto_a_pipe_does_not_wait_for_a_reader(
    docker: Cli, busybox: str, tmp_path: Path, running: bool
) -> None:
    (tmp_path / "settings").write_text("x")
    made = docker("run", "-d", "--network=none", busybox, "sleep", "600").line
    docker("exec", made, "mkfifo", "/tmp/settings")
    if not running:
        docker("kill", made)
        docker("wait", made)
    docker("cp", tmp_path / "settings", f"{made}:/tmp/settings", timeout_s=10)


SWAPS = """
mkdir -p /a /z /spare; touch /z/own; i=0
while [ $i -lt 300 ]; do : >/a/$i; i=$((i+1)); done; touch /ready
while :; do mv /z /spare/z; ln -s {folder} /z; rm /z; mv /spare/z /z; done
"""


@pytest.mark.parametrize("what", ["commit", "diff"])
def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(
    docker: Cli, busybox: str, tmp_path: Path, what: str
) -> None:
    (tmp_path / "of-the-host").write_text("secret")
    tmp_path.chmod(0o755)
    made = docker("run", "-d", "--network=none", busybox, "sh", "-c", SWAPS.format(folder=tmp_path)).line
    while docker("exec", made, "test", "-e", "/ready", ok=False).code:
        time.sleep(0.1)
    for _ in range(8):
        if what == "diff":
            assert "of-the-host" not in docker("diff", made, ok=False).out
            continue
        image = docker("commit", "--pause=false", made, ok=False).out.strip()
        if image:
            said = docker("run", "--rm", "--network=none", image, "ls", "/z", ok=False)
            assert "of-the-host" not in said.out


def test_a_client_that_does_not_read_its_export_holds_up_nobody(docker: Cli, busybox: str) -> None:
    made = docker("run", "-d", "--network=none", busybox, "sh", "-c", "truncate -s 8T /sparse; sleep 600").line
    with docker.running("export", made):
        docker("exec", made, "true")
        docker("kill", made, timeout_s=10)
        docker("wait", made, timeout_s=10)
        docker("start", made, timeout_s=10)
        docker("rm", "-f", made, timeout_s=10)


def test_names_that_are_no_text_are_told_as_far_as_they_are(docker: Cli, daemon: Daemon, busybox: str) -> None:
    script = (
        "touch $(printf '/tmp/a\\377'); ln -s $(printf '/\\377') /tmp/link; ln -s $(printf %4000s | tr ' ' x) /tmp/long"
    )
    made = docker("run", "-d", "--network=none", busybox, "sh", "-c", f"{script}; sleep 600").line
    while docker("exec", made, "test", "-L", "/tmp/long", ok=False).code:
        time.sleep(0.1)
    assert "A /tmp/a\ufffd" in docker("diff", made).out
    for link in ("link", "long"):
        assert daemon.request("GET", f"/containers/{made}/archive?path=/tmp/{link}")[0] == 200


def test_all_of_a_running_container_can_be_copied_without_the_kernels_files(
    docker: Cli, daemon: Daemon, busybox: str
) -> None:
    made = docker(
        "run", "-d", "--network=none", "-v", "/volume", busybox, "sh", "-c", "touch /volume/f; sleep 600"
    ).line
    while docker("exec", made, "test", "-e", "/volume/f", ok=False).code:
        time.sleep(0.1)
    status, packed = daemon.request("GET", f"/containers/{made}/archive?path=//")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        names = tar.getnames()
    assert status == 200 and "/volume/f" in names
    assert not [name for name in names if name.startswith(("/proc/", "/sys/"))]
