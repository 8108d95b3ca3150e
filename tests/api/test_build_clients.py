"""Builds by real clients that speak BuildKit's protocol: docker with buildx, bake, and compose v2."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bennu.build.wire.messages import StatusResponse
from support.build_clients import BuildClient, find_build_clients
from support.cli import Cli, Said
from support.daemon import Daemon
from support.waiting import wait_for

TAR = {"Content-Type": "application/x-tar"}
CLIENTS = find_build_clients()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CLIENTS, reason="no docker command with buildx (./dev setup)"),
]


NEWEST = CLIENTS[:1]  # first by name, and so it is with Debian's suites
EACH = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@pytest.fixture(params=NEWEST, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> BuildClient:
    found: BuildClient = request.param
    return found


@pytest.fixture
def docker(client: BuildClient, daemon: Daemon, busybox: str) -> Cli:
    cli = client.at(daemon.host, daemon.root)
    cli("tag", busybox, "base")
    return cli


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "context"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one\n")
    (folder / "sub/b.txt").write_text("two\n")
    (folder / "secret.txt").write_text("not for the image\n")
    (folder / "link").symlink_to("sub/b.txt")
    (folder / ".dockerignore").write_text("secret.txt\n")
    yield folder


def run(docker: Cli, image: str, *words: str) -> str:
    return docker("run", "--rm", "--network=none", image, *words).out


def build(docker: Cli, context: Path, dockerfile: str, *words: str | Path, ok: bool = True) -> Said:
    (context / "Dockerfile").write_text(dockerfile)
    return docker("build", *words, context, ok=ok)


@EACH
def test_a_folder_becomes_an_image_with_the_names_and_files_that_were_asked_for(
    docker: Cli, context: Path, tmp_path: Path
) -> None:
    dockerfile = """\
FROM base AS maker
ARG WHO=nobody
RUN echo "made for $WHO" > /made
FROM base
COPY . /ctx
COPY --from=maker /made /made
LABEL one=two
"""
    words = ["-t", "client:1", "-t", "client:2", "--build-arg", "WHO=you", "--label", "three=four"]
    words += ["--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "metadata"]
    said = build(docker, context, dockerfile, *words)
    assert "RUN echo" in said.err
    assert "naming to docker.io/library/client:1" in said.err
    image_id = (tmp_path / "id").read_text()
    metadata = json.loads((tmp_path / "metadata").read_text())
    assert metadata["containerimage.config.digest"] == metadata["containerimage.digest"] == image_id
    assert metadata["image.name"] == "docker.io/library/client:1,docker.io/library/client:2"
    for name in ("client:1", "client:2"):
        found = json.loads(docker("image", "inspect", name).out)[0]
        assert found["Id"] == image_id
        assert found["Config"]["Labels"] == {"one": "two", "three": "four"}
    assert run(docker, "client:1", "cat", "/made", "/ctx/link") == "made for you\ntwo\n"
    assert "secret.txt" not in run(docker, "client:1", "ls", "/ctx")


def test_the_next_build_asks_only_for_what_has_changed(docker: Cli, daemon: Daemon, context: Path) -> None:
    (context / "large").write_bytes(os.urandom(3_000_000))
    dockerfile = "FROM base\nCOPY a.txt gone* large /ctx/\n"
    (context / "gone").write_text("")
    build(docker, context, dockerfile, "-t", "changed")
    trees = daemon.data_root / "build/contexts"
    before = {path.name: path.stat().st_ino for folder in trees.iterdir() for path in (folder / "tree").iterdir()}
    (context / "a.txt").write_text("another\n")
    (context / "gone").unlink()
    build(docker, context, dockerfile, "-t", "changed")
    after = {path.name: path.stat().st_ino for folder in trees.iterdir() for path in (folder / "tree").iterdir()}
    assert before["large"] == after["large"], "sent again"
    assert "gone" not in after
    assert run(docker, "changed", "cat", "/ctx/a.txt") == "another\n"
    assert run(docker, "changed", "ls", "/ctx") == "a.txt\nlarge\n"


def test_a_step_that_fails_is_told_with_its_code_and_its_line(docker: Cli, context: Path) -> None:
    said = build(docker, context, "FROM base\nRUN echo fine\nRUN echo so it ends >&2; exit 3\n", ok=False)
    assert said.code == 1
    words = 'process "/bin/sh -c echo so it ends >&2; exit 3" did not complete successfully: exit code: 3'
    assert words in said.err
    assert "so it ends" in said.err
    assert ">>> RUN echo so it ends >&2; exit 3" in said.err
    said = build(docker, context, "FROM base\nNONSENSE\n", ok=False)
    assert said.code == 1 and "unknown instruction: NONSENSE" in said.err


def test_a_step_has_this_hosts_network_only_when_its_client_allows_it(docker: Cli, context: Path) -> None:
    dockerfile = "FROM base\nRUN --network=host ip link show outside\n"
    said = build(docker, context, dockerfile, ok=False)
    assert said.code != 0 and "network.host is not allowed" in said.err
    build(docker, context, dockerfile, "--allow=network.host")


def test_a_dockerfile_is_asked_about_instead_of_built(docker: Cli, context: Path) -> None:
    if "--call" not in docker("buildx", "build", "--help").out:
        pytest.skip("this buildx cannot ask")
    dockerfile = "# tool makes it\nFROM base AS tool\nARG WHO=me\nRUN --mount=type=secret,id=key exit 9\nCMD echo hi\n"
    said = build(docker, context, dockerfile, "--check", ok=False)
    assert said.code == 1
    assert (
        "WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/" in said.out
    )
    assert "Dockerfile:5" in said.out
    assert "WHO" in build(docker, context, dockerfile, "--call=outline").out
    targets = json.loads(build(docker, context, dockerfile, "--call=targets,format=json").out)["targets"]
    assert [(target["name"], target["description"]) for target in targets] == [("tool", "makes it")]
    said = build(docker, context, "FROM base\nCMD echo hi\n")
    assert "1 warning found" in said.err and "JSONArgsRecommended" in said.err


def test_a_dockerfile_by_standard_input_and_one_beside_the_context(docker: Cli, context: Path, tmp_path: Path) -> None:
    docker("build", "-t", "by-stdin", "-", stdin="FROM base\nENV A=stdin\n")
    (tmp_path / "Else.docker").write_text("FROM base\nCOPY a.txt /a\n")
    docker("build", "-t", "beside", "-f", tmp_path / "Else.docker", context)
    assert run(docker, "by-stdin", "env").count("A=stdin\n") == 1
    assert run(docker, "beside", "cat", "/a") == "one\n"


def test_a_context_comes_as_a_tar(docker: Cli, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nCOPY a.txt secret.txt /\n")
    packed = subprocess.run(["tar", "-C", context, "-cz", "."], capture_output=True, check=True).stdout
    docker("build", "-t", "by-tar", "-", stdin=packed)
    assert run(docker, "by-tar", "cat", "/a.txt", "/secret.txt") == "one\nnot for the image\n"


class Agent:
    """An SSH agent of a client's that holds no keys: that is all it says."""

    ASK = "0000 0001 0b"  # how many bytes follow, then: which identities are there
    NONE = "0000 0005 0c 0000 0000"

    def __init__(self, place: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    while connection.recv(100) == bytes.fromhex(self.ASK):
                        connection.sendall(bytes.fromhex(self.NONE))

    def close(self) -> None:
        self._listener.close()


def test_secrets_and_agents_are_lent_to_steps_and_stay_out_of_the_image(
    docker: Cli, python: str, context: Path, tmp_path: Path
) -> None:
    place = Path(tempfile.mkdtemp(prefix="bennu-agent-")) / "agent"
    (tmp_path / "word").write_text("open sesame")
    ask = "import os, socket; s = socket.socket(1); s.connect(os.environ['SSH_AUTH_SOCK']); "
    ask += f"s.send(bytes.fromhex('{Agent.ASK}')); open('/said', 'w').write(s.recv(9, socket.MSG_WAITALL).hex())"
    dockerfile = f"""\
FROM {python}
RUN --mount=type=secret,id=word,required cp /run/secrets/word /copied
RUN --mount=type=ssh,required python3 -c "{ask}"
RUN test ! -e /run/secrets/word && test ! -S /run/buildkit/ssh_agent.0
"""
    with contextlib.closing(Agent(place)):
        words = ["--secret", f"id=word,src={tmp_path / 'word'}", "--ssh", f"default={place}"]
        build(docker, context, dockerfile, "-t", "lent", *words)
    shutil.rmtree(place.parent)
    assert run(docker, "lent", "cat", "/copied") == "open sesame"
    assert run(docker, "lent", "cat", "/said") == bytes.fromhex(Agent.NONE).hex()
    said = build(docker, context, dockerfile, "--no-cache", ok=False)
    assert said.code != 0 and "secret word: not found" in said.err


def test_named_contexts_are_folders_and_targets(docker: Cli, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM other\nCOPY --from=folder n /n\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/n").write_text("named\n")
    first = {"context": str(context), "dockerfile-inline": "FROM base\nRUN echo first > /first"}
    contexts = {"other": "target:first", "folder": str(tmp_path / "folder")}
    second = {"context": str(context), "contexts": contexts, "tags": ["linked"]}
    file = tmp_path / "bake.json"
    file.write_text(json.dumps({"target": {"first": first, "second": second}}))
    docker("buildx", "bake", "-f", file, "second")
    assert run(docker, "linked", "cat", "/first", "/n") == "first\nnamed\n"


def test_a_result_goes_to_a_folder_or_a_tarball_of_the_clients(docker: Cli, context: Path, tmp_path: Path) -> None:
    dockerfile = "FROM base AS made\nRUN mkdir -p /d && echo x > /d/f && ln -s f /d/l && ln /d/f /d/h\n"
    dockerfile += "FROM scratch\nCOPY --from=made /d /d\n"
    build(docker, context, dockerfile, "-o", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/d").iterdir()) == ["f", "h", "l"]
    assert (tmp_path / "out/d/l").readlink() == Path("f")
    assert (tmp_path / "out/d/h").read_text() == "x\n"
    build(docker, context, dockerfile, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert {"d/f", "d/h", "d/l"} <= set(archive.getnames())


def test_a_dockerfile_is_checked_without_being_built(docker: Cli, context: Path) -> None:
    if "--check" not in docker("buildx", "build", "--help").out:
        pytest.skip("this docker command's buildx cannot check (0.15 and later can)")
    said = build(docker, context, "FROM base AS Mixed\nCOPY a.txt /a\n", "--check", ok=False)
    assert "StageNameCasing" in said.out + said.err


def traced(daemon: Daemon, query: str, body: bytes) -> list[dict[str, Any]]:
    status, answer = daemon.request("POST", f"/v1.41/build?version=2&{query}", body, TAR)
    assert status == 200, answer
    return [json.loads(line) for line in answer.splitlines()]


def test_the_way_of_older_clients_tells_the_same_in_lines(docker: Cli, daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nCOPY a.txt /a\nRUN echo told\n")
    packed = subprocess.run(["tar", "-C", context, "-c", "."], capture_output=True, check=True).stdout
    lines = traced(daemon, "t=traced:1&nocache=1", packed)
    responses = [
        StatusResponse.decode(base64.b64decode(line["aux"]))
        for line in lines
        if line.get("id") == "moby.buildkit.trace"
    ]
    names = {vertex.name for response in responses for vertex in response.vertexes}
    assert {"[2/3] COPY a.txt /a", "[3/3] RUN echo told", "exporting to image"} <= names
    assert b"told" in b"".join(log.msg for response in responses for log in response.logs)
    image_id = docker("image", "inspect", "-f", "{{.Id}}", "traced:1").line
    assert lines[-1] == {"id": "moby.image.id", "aux": {"ID": image_id}}


def test_the_context_of_a_build_may_come_with_another_request(docker: Cli, daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nCOPY a.txt /a\n")
    packed = subprocess.run(["tar", "-C", context, "-c", "."], capture_output=True, check=True).stdout
    with ThreadPoolExecutor() as pool:
        building = pool.submit(traced, daemon, "t=uploaded&remote=upload-request&buildid=b1", b"")
        uploaded = daemon.request("POST", "/build?version=2&buildid=upload-request:b1", packed, TAR)
        assert uploaded[0] == 200
        assert "ID" in building.result()[-1]["aux"]
    assert run(docker, "uploaded", "cat", "/a") == "one\n"


def test_a_build_is_cancelled_by_its_name(docker: Cli, daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nRUN sleep 1000.25\n")
    packed = subprocess.run(["tar", "-C", context, "-c", "."], capture_output=True, check=True).stdout
    with ThreadPoolExecutor() as pool:
        building = pool.submit(traced, daemon, "buildid=b2&nocache=1", packed)
        wait_for(lambda: bool(sleepers()), what="the step")
        assert daemon.request("POST", "/build/cancel?id=b2")[0] == 200
        assert "error" in building.result()[-1]
    wait_for(lambda: not sleepers(), what="the end of the step", describe=lambda: str(sleepers()))


def test_targets_of_one_bake_are_built_side_by_side(docker: Cli, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM base AS one\nRUN echo 1 > /n\nFROM base AS two\nRUN echo 2 > /n\n")
    targets = {name: {"context": str(context), "target": name, "tags": [f"baked:{name}"]} for name in ("one", "two")}
    file = tmp_path / "bake.json"
    file.write_text(json.dumps({"group": {"default": {"targets": ["one", "two"]}}, "target": targets}))
    docker("buildx", "bake", "-f", file)
    assert run(docker, "baked:one", "cat", "/n") + run(docker, "baked:two", "cat", "/n") == "1\n2\n"


@EACH
def test_compose_builds_its_services(client: BuildClient, docker: Cli, context: Path) -> None:
    if not client.has("compose"):
        pytest.skip("this docker command has no plugin compose")
    (context / "Dockerfile").write_text("FROM base\nARG X=0\nRUN echo $X > /x\n")
    services = {
        "a": {"build": ".", "image": "composed:a"},
        "b": {"build": {"context": ".", "args": {"X": "1"}}, "image": "composed:b"},
    }
    (context / "compose.yaml").write_text(json.dumps({"services": services}))
    docker("compose", "-f", context / "compose.yaml", "build")
    assert run(docker, "composed:a", "cat", "/x") + run(docker, "composed:b", "cat", "/x") == "0\n1\n"


def test_a_target_is_the_base_of_another_one(docker: Cli, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nRUN echo first > /n\n")
    (context / "next").write_text("FROM below\nRUN echo second >> /n\n")
    lower = {"context": str(context), "tags": ["linked:lower"]}
    upper = {"context": str(context), "dockerfile": "next", "contexts": {"below": "target:lower"}}
    file = tmp_path / "bake.json"
    file.write_text(json.dumps({"target": {"lower": lower, "upper": {**upper, "tags": ["linked:upper"]}}}))
    said = docker("buildx", "bake", "-f", file, "lower", "upper")
    assert run(docker, "linked:upper", "cat", "/n") == "first\nsecond\n"
    assert run(docker, "linked:lower", "cat", "/n") == "first\n"
    assert "[lower] exporting to image" in said.err and "[upper] exporting to image" in said.err


def test_compose_builds_what_it_brings_up_and_again_what_has_changed(
    client: BuildClient, docker: Cli, context: Path
) -> None:
    if not client.has("compose"):
        pytest.skip("this docker command has no plugin compose")
    compose = ["compose", "-p", "composed-up", "-f", context / "compose.yaml"]
    service = {"build": ".", "command": ["cat", "/x"], "network_mode": "none"}
    (context / "compose.yaml").write_text(json.dumps({"services": {"job": service}}))
    for word in ("one", "two"):
        (context / "Dockerfile").write_text(f"FROM base\nRUN echo {word} > /x\n")
        docker(*compose, "up", "--build", "--exit-code-from", "job")
        said = docker(*compose, "logs", "--no-log-prefix", "job").out
        assert said.replace("\x1b[2K", "").split() == [word]  # some versions clear the line first
    docker(*compose, "down", "--rmi", "all")
    assert docker("images", "-q", "composed-up-job").out == ""


def test_the_builder_shows_itself(docker: Cli) -> None:
    assert "running" in docker("buildx", "ls").out
    assert "linux/" in docker("buildx", "inspect").out
    docker("buildx", "du")
    docker("buildx", "prune", "-f")
    docker("builder", "prune", "-f")


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--platform", "linux/amd64,linux/arm64"], "platform"),
        (["--allow", "security.insecure"], "security.insecure"),
    ],
    ids=["platforms", "entitlement"],
)
def test_what_is_not_here_is_refused_by_name(docker: Cli, context: Path, words: list[str], refused: str) -> None:
    said = build(docker, context, "FROM base\n", *words, ok=False)
    assert said.code != 0
    assert refused in said.err.lower()


def test_a_client_that_is_interrupted_ends_its_build(docker: Cli, daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nRUN echo begun; sleep 1000.25\n")
    argv = [docker.program, "build", "--progress=plain", context]
    with subprocess.Popen(argv, env=docker.environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(" begun"):
                break
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode != 0
    wait_for(lambda: not sleepers(), what="the end of the step", describe=lambda: str(sleepers()))


def sleepers() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"1000.25" in words:
            found.append(words.decode(errors="replace"))
    return found
