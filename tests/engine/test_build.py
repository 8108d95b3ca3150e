"""`docker build` through the classic endpoint: real steps, real images."""

import contextlib
import io
import json
import os
import signal
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from images_fixtures import Server, busybox_tar, image_server  # noqa: F401 - a fixture
from images_helpers import entry, make_tar

from support.cli import Said
from support.daemon import Daemon
from support.waiting import wait_for

pytestmark = pytest.mark.slow


KEEP_ALL = "keep-storage=1000000000000"


def build(server: Server, dockerfile: str, *words: str, files: dict[str, bytes] | None = None, ok: bool = True) -> Said:
    """Build a context that comes as a tar on standard input."""
    members = [entry("Dockerfile", dockerfile.encode())]
    members += [entry(name, content) for name, content in (files or {}).items()]
    return server.docker("build", *words, "-", stdin=make_tar(members), ok=ok, timeout_s=90)


def run_in(server: Server, ref: str, path: str) -> bytes:
    """A file of an image, out of its archive."""
    archive = server.root / "look.tar"
    server.docker("save", "-o", archive, ref)
    found = b""
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))  # type: ignore[arg-type]
        for layer in manifest[0]["Layers"]:
            data = outer.extractfile(layer)
            assert data is not None
            with tarfile.open(fileobj=io.BytesIO(data.read())) as inner:
                if path in inner.getnames():
                    content = inner.extractfile(path)
                    found = content.read() if content else b""
    archive.unlink()
    return found


def test_a_build_speaks_as_the_classic_builder_and_gives_the_image_asked_for(server: Server) -> None:
    dockerfile = """\
FROM base AS maker
ARG WHO=nobody
ENV GREETING="hello you"
RUN echo "$GREETING, $WHO" > /made && \\
    # a comment inside
    echo "on stderr" >&2
RUN ["echo", "exec form"]
FROM base
COPY --from=maker /made /made
COPY sub/file /tmp/
LABEL team=red
WORKDIR /work
USER 7
EXPOSE 80
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=3s --retries=2 CMD cat /made
ENTRYPOINT ["sh", "-c"]
CMD echo it runs
"""
    words = ["-t", "built:1", "-t", "also", "--build-arg", "WHO=me", "--label", "extra=1"]
    said = build(server, dockerfile, *words, files={"sub/file": b"content"})
    lines = said.lines
    found = server.inspect("built:1")
    assert "Step 1/18 : FROM base AS maker" in lines
    assert f" ---> {server.inspect('base')['Id'][7:19]}" in lines
    assert {"on stderr", "exec form", 'Step 5/18 : RUN ["echo", "exec form"]', "Step 6/18 : FROM base"} <= set(lines)
    assert [line for line in lines if line.startswith("Successfully")] == [
        f"Successfully built {found['Id'][7:19]}",
        "Successfully tagged built:1",
        "Successfully tagged also:latest",
    ]
    config = found["Config"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "cat /made"], "Interval": 3 * 10**9, "Retries": 2}
    assert (config["StopSignal"], config["User"], config["WorkingDir"]) == ("SIGQUIT", "7", "/work")
    assert (config["Entrypoint"], config["Cmd"]) == (["sh", "-c"], ["/bin/sh", "-c", "echo it runs"])
    assert config["Labels"] == {"team": "red", "extra": "1"} and config["ExposedPorts"] == {"80/tcp": {}}
    assert config["Volumes"] == {"/data": {}} and "Hostname" not in config
    assert found["Parent"] == server.inspect("base")["Id"]
    assert found["RootFS"]["Layers"][:1] == server.inspect("base")["RootFS"]["Layers"]
    assert run_in(server, "built:1", "made") == b"hello you, me\n"
    assert run_in(server, "built:1", "tmp/file") == b"content"
    assert "FROM" not in server.docker("history", "--format", "{{.Comment}}", "built:1").out
    server.docker("rmi", "built:1", "also")


def test_the_same_build_comes_from_the_cache_unless_told_otherwise(server: Server) -> None:
    dockerfile = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /id\nRUN true\n"
    first, second = build(server, dockerfile, "-t", "cached"), build(server, dockerfile, "-t", "cached")
    assert " ---> Using cache" not in first.lines and second.lines.count(" ---> Using cache") == 2
    assert first.lines[-2:] == second.lines[-2:]
    third = build(server, dockerfile, "--no-cache", "-t", "cached")
    assert " ---> Using cache" not in third.lines and third.lines[-2] != first.lines[-2]


def test_another_build_argument_is_another_image_though_the_lines_are_the_same(server: Server) -> None:
    dockerfile = 'FROM base\nARG VERSION=1\nENV VERSION=$VERSION\nCMD ["true"]\n'
    build(server, dockerfile, "-t", "argued:1")
    build(server, dockerfile, "-t", "argued:2", "--build-arg", "VERSION=2")
    env = [server.docker("inspect", "-f", "{{.Config.Env}}", f"argued:{tag}").line for tag in (1, 2)]
    assert "VERSION=1" in env[0]
    assert "VERSION=2" in env[1]


def test_a_target_ends_the_build_there_and_quiet_says_only_the_id(server: Server) -> None:
    dockerfile = "FROM base AS one\nRUN echo 1 > /stage\nFROM one AS two\nRUN false\n"
    said = build(server, dockerfile, "-q", "--target", "one", "-t", "stage")
    assert said.line == server.inspect("stage")["Id"]
    refused = build(server, dockerfile, "--target", "three", ok=False)
    assert refused.code == 1 and 'target stage "three" could not be found' in refused.err


@pytest.mark.parametrize(
    ("dockerfile", "code", "message"),
    [
        ("FROM base\nRUN exit 7", 7, "The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        ('FROM base\nRUN ["false"]', 1, "The command 'false' returned a non-zero code: 1"),
        (
            "FROM base\nCOPY nofile /",
            1,
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nofile: "
            "file does not exist",
        ),
        ("FROM base\nNONSENSE x", 1, "dockerfile parse error on line 2: unknown instruction: NONSENSE"),
        ("RUN x", 1, "dockerfile parse error on line 1: no build stage in current context"),
        ("FROM 127.0.0.1:1/nosuch", 1, "connect: connection refused"),
        ('FROM base\nRUN ["/nosuch"]', 1, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
    ],
)
def test_a_build_that_fails_says_why_as_docker_does(server: Server, dockerfile: str, code: int, message: str) -> None:
    said = build(server, dockerfile, ok=False)
    assert (said.code, said.err.strip().endswith(message)) == (code, True), said.err


def test_the_failing_commands_code_is_in_the_stream(server: Server) -> None:
    context = make_tar([entry("Dockerfile", b"FROM base\nRUN exit 42")])
    last = server.messages("POST", "/build", context)[-1]
    message = "The command '/bin/sh -c exit 42' returned a non-zero code: 42"
    assert last == {"errorDetail": {"code": 42, "message": message}, "error": message}
    told = server.messages("POST", "/build?q=1", context)
    assert told[-1] == last and {"stream": "Step 2/2 : RUN exit 42"} in told


def test_what_is_not_here_is_refused_by_name(server: Server) -> None:
    status, message = server.error("POST", "/build?securityopt=%5B%22x%22%5D", b"")
    assert status == 501 and "securityopt" in message
    assert server.error("POST", "/build?networkmode=mynet", b"") == (404, "network mynet not found")
    assert server.error("POST", "/build?t=UPPER", b"")[0] == 400
    assert server.error("POST", "/build?buildargs=%5B1%5D", b"")[0] == 400
    assert server.error("POST", "/build?dockerfile=a%00b", b"")[0] == 400
    assert server.error("POST", "/build?labels=%7B%22a%22:%22%5Cu0000%22%7D", b"")[0] == 400
    assert server.error("POST", "/build", b"") == (400, "EOF")
    context = make_tar([entry("other", b"FROM base")])
    assert server.error("POST", "/build", context) == (400, "Cannot locate specified Dockerfile: Dockerfile")
    outside = make_tar([entry("Dockerfile", kind=b"2", linkname="/etc/passwd")])
    assert server.error("POST", "/build", outside) == (400, "Cannot locate specified Dockerfile: Dockerfile")


def test_a_step_cannot_see_the_hosts_processes(server: Server) -> None:
    said = build(server, "FROM base\nRUN ps | cat > /seen; cat /seen", "--no-cache")
    assert "images_server" not in said.out and "pytest" not in said.out


def test_a_context_from_a_folder_and_a_dockerfile_from_elsewhere(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "ignored").write_text("i")
    (tmp_path / ".dockerignore").write_text("ignored\n")
    words = ["build", "-t", "folder", "-f", "-", str(tmp_path)]
    server.docker(*words, stdin="FROM scratch\nCOPY . /\n", timeout_s=60)
    assert run_in(server, "folder", "f") == b"f" and run_in(server, "folder", "ignored") == b""


def test_the_first_build_of_all_may_begin_from_nothing(make_daemon: Callable[..., Daemon]) -> None:
    docker = make_daemon().docker
    docker("build", "-t", "first", "-", stdin="FROM scratch\nLABEL begun=from-nothing\n")
    assert docker("inspect", "-f={{.Config.Labels.begun}}", "first").line == "from-nothing"
    docker("build", "-t", "labelled", "--label=given=outside", "-", stdin="FROM scratch\n")
    assert docker("inspect", "-f={{.Config.Labels.given}} {{.RootFS.Layers}}", "labelled").line == "outside []"


def test_steps_are_in_the_control_group_namespace_that_containers_get(make_daemon: Callable[..., Daemon]) -> None:
    docker = (daemon := make_daemon(options=("--default-cgroupns-mode=host",))).docker
    docker("import", "-", "base", stdin=busybox_tar())
    docker(
        "build", "-t", "grouped", "-", stdin="FROM base\nRUN readlink /proc/self/ns/cgroup > /namespace\n", timeout_s=90
    )
    shown = docker("run", "--rm", "grouped", "cat", "/namespace").line
    assert shown == str(Path(f"/proc/{daemon.pid}/ns/cgroup").readlink())


def test_builds_at_the_same_time_do_not_disturb_each_other(server: Server) -> None:
    def one(number: int) -> str:
        build(server, f"FROM base\nRUN echo {number} > /number", "-t", f"parallel:{number}")
        return run_in_locked(server, number)

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(one, range(3))) == ["0\n", "1\n", "2\n"]


def run_in_locked(server: Server, number: int) -> str:
    archive = server.root / f"parallel{number}.tar"
    server.docker("save", "-o", archive, f"parallel:{number}")
    with tarfile.open(archive) as outer:
        layer = json.load(outer.extractfile("manifest.json"))[0]["Layers"][-1]  # type: ignore[arg-type]
        data = outer.extractfile(layer)
        assert data is not None
        with tarfile.open(fileobj=io.BytesIO(data.read())) as inner:
            content = inner.extractfile("number")
            assert content is not None
            return content.read().decode()


def sleeping_context(server: Server, seconds: int) -> Path:
    context = server.root / f"sleepy{seconds}"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM base\nRUN sleep {seconds}\n")
    return context


def is_sleeping(seconds: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"sleep\0{seconds}\0".encode()):
                return True
    return False


def test_a_client_that_leaves_ends_its_build_and_the_step_under_way(server: Server) -> None:
    seconds = 86000 + os.getpid() % 1000
    context = sleeping_context(server, seconds)
    with server.docker.running("build", "--no-cache", str(context)) as process:
        wait_for(lambda: is_sleeping(seconds), timeout_s=30, what="the step to run")
        process.send_signal(signal.SIGINT)
        process.wait(10)
    wait_for(lambda: not is_sleeping(seconds), timeout_s=15, what="the step to end")
    wait_for(lambda: list((server.images_root / "tmp").iterdir()) == [], what="nothing to be left")
    assert build(server, "FROM base\nRUN true").lines[-1].startswith("Successfully built")


def test_a_killed_daemon_takes_its_builds_along_and_the_next_one_cleans_up(server: Server) -> None:
    seconds = 87000 + os.getpid() % 1000
    context = sleeping_context(server, seconds)
    with server.docker.running("build", "--no-cache", str(context)) as process:
        wait_for(lambda: is_sleeping(seconds), timeout_s=30, what="the step to run")
        server.process.kill()
        process.wait(10)
    wait_for(lambda: not is_sleeping(seconds), timeout_s=15, what="the step to end")
    server.restart()
    assert list((server.images_root / "tmp").iterdir()) == []
    assert build(server, "FROM base\nRUN true").lines[-1].startswith("Successfully built")


def test_pruning_drops_the_cache_and_building_goes_on(server: Server) -> None:
    build(server, "FROM base\nRUN echo pruned > /p", "-t", "pruned")
    for kept in ("filters=%7B%22until%22:%5B%2224h%22%5D%7D", "filters=%7B%22label%22:%5B%22a%22%5D%7D", KEEP_ALL):
        status, body = server.request("POST", f"/build/prune?{kept}")
        assert status == 200 and json.loads(body)["SpaceReclaimed"] == 0
    assert " ---> Using cache" in build(server, "FROM base\nRUN echo pruned > /p").lines
    assert server.error("POST", "/build/prune?filters=%7B%22x%22:%5B%221%22%5D%7D", b"")[0] == 400
    assert server.error("POST", "/build/prune?filters=%7B%22id%22:%5B%221%22,%222%22%5D%7D", b"")[0] == 400
    status, body = server.request("POST", "/build/prune?filters=%7B%22type%22:%5B%22source.local%22%5D%7D")
    assert status == 200 and json.loads(body)["SpaceReclaimed"] == 0
    build(server, "FROM base\nRUN echo nobodys > /p")
    server.docker("image", "prune", "-f")
    status, body = server.request("POST", "/build/prune")
    assert status == 200 and json.loads(body)["SpaceReclaimed"] >= len("nobodys\n")
    assert " ---> Using cache" in build(server, "FROM base\nRUN echo pruned > /p").lines, "an image has it, too"
    status, body = server.request("POST", "/build/prune?all=1")
    assert status == 200 and json.loads(body)["CachesDeleted"]
    assert run_in(server, "pruned", "p") == b"pruned\n"
    again = build(server, "FROM pruned\nRUN cat /p", "-t", "again")
    assert "pruned" in again.lines and " ---> Using cache" not in again.lines


def test_an_ignored_dockerfile_is_no_part_of_the_context_and_of_the_cache(server: Server, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("kept")
    (tmp_path / ".dockerignore").write_text("*\n!keep\n")
    for note, cached in (("", False), ("# note\n", True)):
        (tmp_path / "Dockerfile").write_text(
            f"FROM base AS maker\nCOPY . /c\n{note}FROM maker\nRUN ls -A /c > /listed\n"
        )
        said = server.docker("build", "-t", "ignored", tmp_path, timeout_s=90)
        assert (" ---> Using cache" in said.lines) == cached
    assert run_in(server, "ignored", "listed") == b"keep\n"
    context = make_tar(
        [entry("a/.dockerignore", b"*"), entry("a/x", b"x"), entry("Dockerfile", b"FROM base\nCOPY a /a\n")]
    )
    assert server.request("POST", "/build?t=whole", context)[0] == 200
    assert run_in(server, "whole", "a/.dockerignore") == b"*", "only that of the context itself counts"


def test_the_cache_comes_only_from_the_images_that_are_named(server: Server) -> None:
    dockerfile = "FROM base\nRUN echo cached"
    build(server, dockerfile, "-t", "source")
    assert " ---> Using cache" in build(server, dockerfile, "--cache-from", "source").lines
    assert " ---> Using cache" not in build(server, dockerfile, "--cache-from", "nosuch").lines


def test_no_mounts_and_no_work_are_left(server: Server) -> None:
    assert f"{server.root}/build" not in Path("/proc/self/mountinfo").read_text()
    assert list((server.root / "build/work").iterdir()) == []
