"""What builds keep from one to the next, and what they fetch from elsewhere."""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images_helpers import entry, make_tar

from support.cli import Cli, Said
from support.daemon import Daemon
from support.images import import_base
from support.waiting import wait_for

pytestmark = pytest.mark.slow
CACHED = " ---> Using cache"


def build(docker: Cli, *lines: str, options: tuple[str, ...] = (), ok: bool = True, **files: str) -> Said:
    members = [entry("Dockerfile", "\n".join(lines).encode())]
    members += [entry(name, text.encode()) for name, text in files.items()]
    return docker("build", "--network=host", *options, "-", stdin=make_tar(members), ok=ok, timeout_s=90)


def cached_steps(said: Said) -> int:
    return said.lines.count(CACHED)


# --- the cache --------------------------------------------------------------------------------------------------------


def test_steps_are_found_again_by_what_they_depend_on_and_by_nothing_else(docker: Cli) -> None:
    import_base(docker, "busybox")
    lines = (
        "FROM busybox AS made",
        "ARG NUMBER",
        "RUN echo of $NUMBER > /dev/null; echo same > /same",
        "FROM busybox",
        "COPY --from=made /same /same",
        "COPY used /used",
        "RUN cat /same /used",
    )
    options = ("--build-arg", "NUMBER=1", "-t", "kept")
    first = build(docker, *lines, options=options, used="a", other="b")
    assert cached_steps(first) == 0
    again = build(docker, *lines, options=options, used="a", other="changed")
    assert cached_steps(again) == 4 and again.lines[-2:] == first.lines[-2:]
    argued = build(docker, *lines, options=("--build-arg", "NUMBER=2"), used="a")
    assert cached_steps(argued) == 3, "the stage is made anew, and gives the same file"
    changed = build(docker, *lines, options=options, used="c")
    assert cached_steps(changed) == 2 and "samec" in changed.out.replace("\n", "")
    docker("rmi", "kept")


def test_stages_that_do_not_need_each_other_run_side_by_side_and_unused_ones_not_at_all(docker: Cli) -> None:
    import_base(docker, "busybox")
    meet = "RUN --mount=type=cache,id=meeting,target=/m touch /m/{0}; for i in $(seq 300); do [ -e /m/{1} ] && exit 0; "
    meet += "sleep 0.1; done; exit 1"
    build(
        docker,
        *("FROM busybox AS one", meet.format("one", "two")),
        *("FROM busybox AS two", meet.format("two", "one")),
        *("FROM busybox AS unused", "RUN exit 9"),
        *("FROM busybox", "COPY --from=one /bin/busybox /1", "COPY --from=two /bin/busybox /2"),
        options=("--no-cache",),
    )


def test_a_killed_daemon_finds_its_cache_whole_and_keeps_the_layers_it_needs(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon()
    import_base(daemon.docker, "busybox")
    seconds = 85000 + os.getpid() % 1000
    before = "FROM busybox\nRUN echo kept > /kept\n"
    daemon.docker("build", "-t", "made", "-", stdin=before)
    (tmp_path / "Dockerfile").write_text(f"{before}RUN echo more > /more\nRUN sleep {seconds}\n")
    with daemon.docker.running("build", tmp_path) as client:
        wait_for(lambda: is_sleeping(seconds), timeout_s=30, what="the last step to run")
        daemon.docker("rmi", "-f", "made", "busybox")
        daemon.kill()
        client.wait(10)
    daemon.start()
    import_base(daemon.docker, "busybox")
    said = daemon.docker("build", "-t", "again", "-", stdin=f"{before}RUN echo more > /more\nRUN cat /kept /more\n")
    assert cached_steps(said) == 2 and {"kept", "more"} <= set(said.lines)
    assert daemon.docker("run", "--rm", "again", "cat", "/kept").line == "kept"
    usage = json.loads(daemon.request("GET", "/system/df?type=build-cache")[1])["BuildCache"]
    assert {one["Type"] for one in usage} == {"regular"} and sum(one["UsageCount"] for one in usage) >= 2
    daemon.docker("builder", "prune", "-af")
    assert json.loads(daemon.request("GET", "/system/df?type=build-cache")[1])["BuildCache"] == []
    assert daemon.docker("run", "--rm", "again", "cat", "/more").line == "more", "images keep what they share"
    assert all(path.is_dir() for path in (daemon.data_root / "images/layers").iterdir())


def is_sleeping(seconds: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{seconds}\0".encode():
                return True
    return False


def test_programs_of_another_processor_are_refused_in_words(docker: Cli) -> None:
    foreign = "FROM --platform=linux/s390x scratch"
    build(docker, foreign, "COPY Dockerfile /x", options=("-t", "foreign"))
    refused = build(docker, foreign, "COPY Dockerfile /x", 'RUN ["/x"]', ok=False)
    assert refused.code == 1 and "cannot run programs of linux/s390x" in refused.err
    docker("rmi", "foreign")


# --- what is fetched --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server on this host: its address, and the folder it serves."""
    folder = tmp_path_factory.mktemp("site")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *words: object) -> None: ...


def test_a_file_of_the_web_is_added_as_it_is_and_once(docker: Cli, site: tuple[str, Path]) -> None:
    url, folder = site
    import_base(docker, "busybox")
    (folder / "file").write_bytes(b"of the web")
    os.utime(folder / "file", (10**9, 10**9))
    digest = hashlib.sha256(b"of the web").hexdigest()
    lines = (
        f"ADD --checksum=sha256:{digest} {url}/file /at/",
        "RUN cat /at/file; stat -c '%a %u %Y' /at/file",
    )
    said = build(docker, "FROM busybox", *lines)
    assert "of the web600 0 1000000000" in said.out.replace("\n", "")
    assert cached_steps(build(docker, "FROM busybox", *lines)) == 2
    wrong = build(docker, "FROM busybox", f"ADD --checksum=sha256:{'0' * 64} {url}/file /at/", ok=False)
    assert wrong.code == 1 and f"sha256:{digest}" in wrong.err
    missing = build(docker, "FROM busybox", f"ADD {url}/nothing /at/", ok=False)
    assert missing.code == 1 and "invalid response status 404" in missing.err
    (folder / "file").write_bytes(b"has changed")
    assert "has changed" in build(docker, "FROM busybox", f"ADD {url}/file /f", "RUN cat /f").out


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed (./dev setup)")
def test_repositories_are_added_and_built_from(docker: Cli, site: tuple[str, Path]) -> None:
    url, folder = site
    import_base(docker, "busybox")
    work = folder / "work"
    (work / "sub").mkdir(parents=True)
    (work / "sub/Dockerfile").write_text("FROM busybox\nCOPY . /all\nRUN ls -A /all\n")
    (work / "sub/ignored").write_text("x")
    (work / "sub/.dockerignore").write_text("ignored\n")

    def git(*words: str) -> str:
        told = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", *words]
        return subprocess.run(told, cwd=work, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    (work / "sub/later").write_text("later")
    git("add", "-A")
    git("commit", "-q", "-m", "two")
    git("clone", "-q", "--bare", ".", "../site.git")
    subprocess.run(["git", "update-server-info"], cwd=folder / "site.git", check=True)
    repository = f"{url}/site.git"
    said = build(docker, "FROM busybox", f"ADD {repository}#v1:sub /got", "RUN ls -A /got")
    assert {"Dockerfile", "ignored"} <= set(said.lines) and "later" not in said.lines
    assert ".git" not in said.lines
    built = docker("build", "--network=host", f"{repository}#main:sub", timeout_s=90)
    assert {"later", "Dockerfile"} <= set(built.lines) and "ignored" not in built.lines
    refused = build(docker, "FROM busybox", f"ADD {repository}#nosuch /got", ok=False)
    assert refused.code == 1 and "nosuch" in refused.err


def test_a_context_may_be_an_archive_or_a_dockerfile_of_the_web(daemon: Daemon, site: tuple[str, Path]) -> None:
    url, folder = site
    import_base(daemon.docker, "busybox")
    (folder / "context.tar").write_bytes(
        make_tar([entry("Dockerfile", b"FROM busybox\nCOPY f /f\nRUN cat /f\n"), entry("f", b"in the archive\n")])
    )
    (folder / "alone").write_bytes(b"FROM busybox\nRUN echo a file alone\n")
    for name, words in (("context.tar", "in the archive"), ("alone", "a file alone")):
        status, body = daemon.request("POST", f"/build?networkmode=host&remote={url}/{name}")
        told = [json.loads(line) for line in io.BytesIO(body)]
        assert status == 200 and any(words in one.get("stream", "") for one in told), told
        assert told[-1]["stream"].startswith("Successfully built"), told
