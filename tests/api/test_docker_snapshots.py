"""docker diff, export and commit."""

import io
import tarfile

from support.cli import Cli
from support.daemon import Daemon


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
    docker("rmi", "committed:1")
