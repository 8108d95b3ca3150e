"""docker diff, export and commit."""

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Iterator

import pytest

from support.cli import Cli
from support.daemon import Daemon, UnixConnection
from support.waiting import wait_for


def test_diff_tells_added_modified_and_deleted(docker: Cli, busybox: str) -> None:
    docker("run", "--name", "df", busybox, "sh", "-c", "echo x > /new; echo y >> /etc/passwd; rm /bin/wc")
    lines = docker("diff", "df").lines
    assert {"A /new", "C /etc", "C /etc/passwd", "D /bin/wc"} <= set(lines)


def test_diff_of_a_container_that_changed_nothing_is_empty(docker: Cli, busybox: str) -> None:
    docker("run", "--name", "df0", busybox, "true")
    assert docker("diff", "df0").out == ""


def test_export_is_a_tar_of_the_root_filesystem(daemon: Daemon, docker: Cli, busybox: str) -> None:
    docker("run", "--name", "ex", "-v", "/data", busybox, "sh", "-c", "echo hello > /greeting; echo x > /data/hidden")
    status, body = daemon.request("GET", "/containers/ex/export")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        greeting = archive.extractfile("greeting")
        assert greeting is not None
        assert greeting.read() == b"hello\n"
        assert "data/hidden" not in archive.getnames()


def test_commit_keeps_what_was_written_and_the_configuration(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "cm", "-e", "A=1", busybox, "sh", "-c", "echo kept > /kept; rm /bin/wc; sleep 600")
    docker("exec", "cm", "cat", "/kept")
    image = docker("commit", "-a", "me", "-m", "why not", "-c", 'CMD ["cat", "/kept"]', "cm", "committed:1").line
    assert image.startswith("sha256:")
    assert docker("inspect", "-f", "{{.State.Status}}", "cm").line == "running"
    assert docker("run", "--rm", "committed:1").out == "kept\n"
    assert docker("run", "--rm", "committed:1", "sh", "-c", "echo $A; test -e /bin/wc || echo gone").out == "1\ngone\n"
    assert "why not" in docker("history", "--no-trunc", "committed:1").out
    events = docker("events", "--since=1", f"--until={time.time() + 1}", "--filter=type=image").lines
    assert [line.split()[2] for line in events if image in line][:2] == ["create", "tag"]
    docker("rmi", "committed:1")


@pytest.mark.parametrize("made", [["create"], ["run"]], ids=["never-ran", "ran"])
def test_a_commit_of_nothing_written_adds_no_layer(daemon: Daemon, docker: Cli, busybox: str, made: list[str]) -> None:
    name = f"plain-{made[0]}"
    docker(*made, "--name", name, busybox, "true")
    image = docker("commit", name, f"{name}:1").line
    ours, base = (json.loads(daemon.request("GET", f"/images/{one}/json")[1]) for one in (image, busybox))
    assert ours["RootFS"] == base["RootFS"] and ours["Size"] == base["Size"]
    assert ours["Parent"] == base["Id"] != image
    assert json.loads(daemon.request("GET", f"/images/{image}/history")[1])[0]["Size"] == 0
    assert docker("run", "--rm", f"{name}:1", "echo", "runs").out == "runs\n"
    docker("rmi", f"{name}:1")


def test_a_commit_has_what_the_container_wrote_and_nothing_of_the_engine(
    daemon: Daemon, docker: Cli, busybox: str
) -> None:
    docker("run", "--name", "wrote", busybox, "sh", "-c", "echo x > /etc/mine; chmod 711 /bin; rm /bin/wc")
    docker("commit", "wrote", "wrote:1")
    _, archive = daemon.request("GET", "/images/wrote:1/get")
    with tarfile.open(fileobj=io.BytesIO(archive)) as saved:
        manifest = saved.extractfile("manifest.json")
        assert manifest is not None
        last = saved.extractfile(json.load(manifest)[0]["Layers"][-1])
        with tarfile.open(fileobj=last) as layer:
            modes = {member.name: member.mode for member in layer}
    assert list(modes) == ["bin", "bin/.wh.wc", "etc", "etc/mine"] and modes["bin"] == 0o711
    docker("rmi", "wrote:1")


def coming_in(daemon: Daemon) -> int:
    """Bytes on their way into the store."""
    return sum(path.stat().st_size for path in (daemon.data_root / "images/tmp").iterdir() if path.is_file())


@contextlib.contextmanager
def endless_commit(daemon: Daemon, name: str) -> Iterator[UnixConnection]:
    """Of a container with a file of more zeros than any disk has room for; under way in the block."""
    daemon.docker("exec", name, "dd", "if=/dev/zero", "of=/zeros", "bs=1", "count=0", "seek=3000G")
    with contextlib.closing(UnixConnection(daemon.socket)) as client:
        client.request("POST", f"/commit?container={name}&repo=endless")
        wait_for(lambda: coming_in(daemon) > 0, what="the commit to write")
        yield client


def test_a_commit_ends_with_its_client_and_its_container_runs_on(daemon: Daemon, docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "left", busybox, "sleep", "600")
    with endless_commit(daemon, "left"):
        pass
    wait_for(lambda: coming_in(daemon) == 0, timeout_s=5, what="what it wrote to be gone")
    wait_for(lambda: docker("inspect", "-f", "{{.State.Status}}", "left").line == "running", what="it to run on")
    assert docker("images", "-q", "endless").out == ""


def test_a_commit_ends_with_its_container(daemon: Daemon, docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "removed", busybox, "sleep", "600")
    with endless_commit(daemon, "removed") as client:
        docker("rm", "-f", "removed")
        answer = client.getresponse()
        assert answer.status == 409 and b"which is being removed" in answer.read()
    wait_for(lambda: coming_in(daemon) == 0, timeout_s=5, what="what it wrote to be gone")
    assert "Traceback" not in daemon.log()
