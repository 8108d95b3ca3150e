"""Images under the docker command."""

import contextlib
import json
import socket
import subprocess
import tarfile
import time
from datetime import datetime
from pathlib import Path

import docker
import pytest
from images_fixtures import Server, busybox_tar, image_server  # noqa: F401 - a fixture
from images_helpers import digest_of, entry, make_tar

from bennu.images.platform import host_architecture
from support.cli import Cli
from support.waiting import wait_for


def test_import_makes_an_image_with_the_changes_asked_for(server: Server) -> None:
    changes = ["-c", "ENV A=b", "-c", "HEALTHCHECK --interval=7s CMD true", "-c", "STOPSIGNAL SIGUSR1", "-m", "mine"]
    tar = make_tar([entry("f", b"x" * 1000)])
    identifier = server.docker("import", *changes, "-", "imported:v1", stdin=tar).line
    found = server.inspect("imported:v1")
    assert found["Id"] == identifier and found["RepoTags"] == ["imported:v1"] and found["Comment"] == "mine"
    assert found["RootFS"] == {"Type": "layers", "Layers": [digest_of(tar)]} and found["Size"] == 1000
    assert found["Config"]["Env"] == ["A=b"] and found["Config"]["StopSignal"] == "SIGUSR1"
    assert found["Config"]["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 7 * 10**9}
    config = server.images_root / "blobs" / identifier.removeprefix("sha256:")
    assert digest_of(config.read_bytes()) == identifier
    server.docker("rmi", "imported:v1")


def test_inspect_has_the_keys_of_dockerd_28_in_its_order(server: Server) -> None:
    status, body = server.request("GET", "/v1.51/images/base/json")
    found = json.loads(body)
    assert status == 200
    assert list(found) == [
        *("Id", "RepoTags", "RepoDigests", "Parent", "Comment", "Created", "DockerVersion", "Author", "Config"),
        *("Architecture", "Os", "Size", "GraphDriver", "RootFS", "Metadata"),
    ]
    assert list(found["Config"]) == [
        *("User", "Env", "Cmd", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels"),
    ]
    old = json.loads(server.request("GET", "/v1.49/images/base/json")[1])
    assert list(old["Config"]) == [
        *("Hostname", "Domainname", "User", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin"),
        *("StdinOnce", "Env", "Cmd", "Image", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels"),
    ]
    older = json.loads(server.request("GET", "/v1.43/images/base/json")[1])
    assert "VirtualSize" in older and older["ContainerConfig"]["Volumes"] is None


def test_a_list_entry_has_dockers_keys(server: Server) -> None:
    found = json.loads(server.request("GET", "/v1.51/images/json")[1])
    assert {tuple(item) for item in found} == {
        ("Containers", "Created", "Id", "Labels", "ParentId", "RepoDigests", "RepoTags", "SharedSize", "Size")
    }


def test_tag_and_rmi_say_what_docker_says(server: Server) -> None:
    server.docker("tag", "base", "user/second:v2")
    assert server.docker("rmi", "user/second:v2").lines == ["Untagged: user/second:v2"]
    assert server.error("DELETE", "/images/user/second:v2") == (404, "No such image: user/second:v2")
    assert server.error("POST", "/images/base/tag?repo=UPPER") == (
        400,
        "invalid reference format: repository name (library/UPPER) must be lowercase",
    )
    assert server.error("POST", "/images/nosuch/tag?repo=x")[0] == 404
    assert server.error("POST", "/images/base/tag?repo=sha256&tag=x") == (
        400,
        "refusing to create an ambiguous tag using digest algorithm as name",
    )


def test_filters_choose(server: Server) -> None:
    server.docker("import", "-c", "LABEL team=red", "-", "filter/a:1", stdin=make_tar([entry("a", b"a")]))
    server.docker("import", "-", "filter/b:1", stdin=make_tar([entry("b", b"b")]))
    server.docker("import", "-", "filter/b:1", stdin=make_tar([entry("c", b"c")]))

    def chosen(*filters: str) -> list[str]:
        words = [word for text in filters for word in ("--filter", text)]
        return sorted(server.docker("images", "--format", "{{.Repository}}:{{.Tag}}", *words).lines)

    assert chosen("reference=filter/*") == ["filter/a:1", "filter/b:1"]
    assert chosen("label=team") == chosen("label=team=red") == ["filter/a:1"]
    assert chosen("label=team=blue") == []
    assert chosen("dangling=true") == ["<none>:<none>"]
    assert chosen("reference=filter/*", "dangling=false") == ["filter/a:1", "filter/b:1"]
    assert chosen("reference=filter/*", "since=filter/a:1") == ["filter/b:1"]
    assert chosen("reference=filter/*", "before=filter/b:1") == ["filter/a:1"]
    refused = server.docker("images", "--filter", "color=red", ok=False)
    assert refused.code == 1 and "invalid filter 'color'" in refused.err
    assert server.error("GET", "/images/json?filters=%7B%22dangling%22:%5B%22perhaps%22%5D%7D")[0] == 400
    pruned = server.docker("image", "prune", "-f").lines
    assert pruned[0] == "Deleted Images:" and pruned[-1].startswith("Total reclaimed space: ")
    assert chosen("dangling=true") == []
    server.docker("rmi", "filter/a:1", "filter/b:1")


def test_history_is_newest_first(server: Server) -> None:
    lines = server.docker("history", "--format", "{{.ID}} {{.Comment}}", "base").lines
    assert lines == [f"{server.inspect('base')['Id'][7:19]} Imported from -"]


def test_events_tell_what_happened_to_images(server: Server) -> None:
    server.docker("import", "-", "told:1", stdin=make_tar([entry("told", b"t")]))
    identifier = server.inspect("told:1")["Id"]
    server.docker("tag", "told:1", "told:2")
    archive = server.root / "told.tar"
    server.docker("save", "-o", archive, "told:1")
    server.docker("rmi", "told:1", "told:2")
    server.docker("load", "-i", archive)
    server.docker("rmi", "told:1")
    out = server.docker(
        "events",
        "--since",
        "1",
        "--until",
        str(int(time.time()) + 1),
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
        "--filter",
        f"image={identifier}",
    )
    names = {identifier: "ID"}
    told = [" ".join(names.get(word, word) for word in line.split()) for line in out.lines]
    assert told == [
        *("tag told:1", "import ID", "tag told:2", "save ID", "untag ID", "untag ID", "delete ID"),
        *("load ID", "untag ID", "delete ID"),
    ]


def test_save_and_load_are_inverse_and_tell_their_tags(server: Server) -> None:
    server.docker("tag", "base", "copy:1")
    archive = server.root / "copy.tar"
    server.docker("save", "-o", archive, "copy:1", "base")
    server.docker("rmi", "copy:1")
    assert server.docker("load", "-i", archive).lines == ["Loaded image: copy:1", "Loaded image: base:latest"]
    server.docker("rmi", "copy:1")
    refused = server.docker("load", stdin=b"no archive", ok=False)
    assert refused.code == 1 and "unexpected EOF" in refused.err
    assert server.docker("save", "nosuch", ok=False).err.strip().endswith("No such image: nosuch:latest")
    archive.unlink()


def test_a_repository_is_saved_with_all_its_tags_and_an_image_is_as_old_as_it_is(server: Server) -> None:
    for tag in ("1", "2"):
        server.docker("import", "-", f"several:{tag}", stdin=make_tar([entry("f", tag.encode())]))
    archive = server.root / "several.tar"
    server.docker("save", "-o", archive, "several", "base")
    with tarfile.open(archive) as tar:
        found = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert [one["RepoTags"] for one in found] == [["several:1"], ["several:2"], ["base:latest"]]
        for one in found:
            created = datetime.fromisoformat(server.inspect(one["RepoTags"][0])["Created"])
            assert tar.getmember(one["Config"]).mtime == int(created.timestamp())
    server.docker("rmi", "several:1", "several:2")
    archive.unlink()


def test_an_import_may_be_empty_and_for_another_platform(server: Server) -> None:
    for asked, expected in (
        ("", ("linux", host_architecture(), None)),
        ("LINUX", ("linux", host_architecture(), None)),
        ("linux/sparc64", ("linux", "sparc64", None)),
        ("linux/arm64/v9", ("linux", "arm64", "v9")),
    ):
        assert server.request("POST", f"/images/create?fromSrc=-&repo=platform&platform={asked}", b"")[0] == 200
        found = server.inspect("platform")
        assert (found["Os"], found["Architecture"], found.get("Variant")) == expected and found["Size"] == 0
        server.docker("rmi", "platform")
    for query in ("/images/create?fromSrc=-&repo=x", "/images/create?fromImage=x", "/build?t=x"):
        for platform, words in (
            ("nintendo64", "unknown operating system or architecture"),
            ("macos", "operating system is not supported"),
            ("%20", "is an invalid OS component"),
        ):
            status, message = server.error("POST", f"{query}&platform={platform}", b"")
            assert (status, words in message) == (400, True), message


def test_layers_that_images_share_are_told_when_asked_for(server: Server) -> None:
    tar = make_tar([entry("f", b"x" * 1000)])
    for name in ("first", "second"):
        server.docker("import", "-c", f"ENV NAME={name}", "-", f"sharing:{name}", stdin=tar)

    def sizes(query: str) -> set[int]:
        listed = json.loads(server.request("GET", f"/images/json?{query}")[1])
        return {one["SharedSize"] for one in listed if one["RepoTags"][0].startswith("sharing:")}

    assert sizes("") == {-1} and sizes("shared-size=1") == {1000}
    server.docker("rmi", "sharing:second")
    assert sizes("shared-size=1") == {0}
    server.docker("rmi", "sharing:first")


def test_skopeo_reads_what_is_saved_both_ways(server: Server) -> None:
    archive = server.root / "both.tar"
    server.docker("save", "-o", archive, "base")
    identifier = server.inspect("base")["Id"]
    for transport in ("docker-archive", "oci-archive"):
        command = ["skopeo", "inspect", "--raw", f"{transport}:{archive}"]
        found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
        assert found["config"]["digest"] == identifier
    archive.unlink()


def test_a_broken_import_is_an_error_and_leaves_nothing(server: Server) -> None:
    before = sorted(path.name for path in (server.images_root / "layers").iterdir())
    tar = busybox_tar()[:100_000]
    assert server.error("POST", "/images/create?fromSrc=-&repo=x", tar) == (500, "unexpected EOF")
    assert server.error("POST", "/images/create?fromSrc=-&repo=X", tar)[0] == 400
    assert server.error("POST", "/images/create?fromSrc=-&changes=RUN+x", tar) == (
        400,
        "RUN is not a valid change command",
    )
    assert sorted(path.name for path in (server.images_root / "layers").iterdir()) == before


def test_docker_py_finds_everything_where_it_expects_it(server: Server) -> None:
    client = docker.DockerClient(base_url=f"unix://{server.root}/s", version="1.51", timeout=60)
    with contextlib.closing(client):
        client.api.import_image_from_data(make_tar([entry("p", b"p")]), repository="py", tag="1")
        image = client.images.get("py:1")
        assert image.tags == ["py:1"] and image.tag("py", "2") and client.images.get("py:2").id == image.id
        assert image.id in {found.id for found in client.images.list("py")}
        archive = b"".join(image.save(named=True))
        client.images.remove("py:2")
        client.images.remove("py:1")
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get("py:1")
        assert [loaded.id for loaded in client.images.load(archive)] == [image.id]
        assert [step["Comment"] for step in client.images.get(image.id).history()] == ["Imported from -"]
        client.images.remove(image.id, force=True)
        assert client.images.prune({"dangling": True})["SpaceReclaimed"] == 0


@pytest.mark.parametrize("path", ["/images/load", "/images/create?fromSrc=-", "/build"])
@pytest.mark.parametrize("head", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
def test_a_client_that_leaves_in_the_middle_of_its_data_leaves_nothing(server: Server, path: str, head: str) -> None:
    before = sorted(path.name for path in (server.images_root / "layers").iterdir())
    data = busybox_tar()[:600_000]
    body = data if head.startswith("Content") else b"%x\r\n%b\r\n" % (len(data), data)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.root / "s"))
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + body)
        wait_for(lambda: list((server.images_root / "tmp").iterdir()), what="the data to arrive")
    wait_for(lambda: not list((server.images_root / "tmp").iterdir()), what="everything to be cleaned away")
    assert sorted(path.name for path in (server.images_root / "layers").iterdir()) == before
    assert server.request("GET", "/images/json")[0] == 200


@pytest.mark.slow
def test_dockerd_and_we_understand_each_others_archives(server: Server, oracle: Cli, tmp_path: Path) -> None:
    server.docker("import", "-c", "HEALTHCHECK CMD true", "-", "ours:1", stdin=make_tar([entry("f", b"x")]))
    server.docker("save", "-o", tmp_path / "ours.tar", "ours:1", "base")
    assert sorted(oracle("load", "-i", tmp_path / "ours.tar").lines) == [
        "Loaded image: base:latest",
        "Loaded image: ours:1",
    ]
    theirs = json.loads(oracle("image", "inspect", "ours:1").out)[0]
    ours = server.inspect("ours:1")
    assert theirs["Id"] == ours["Id"] and theirs["Config"]["Healthcheck"] == ours["Config"]["Healthcheck"]
    assert theirs["RootFS"] == ours["RootFS"] and theirs["Size"] == ours["Size"]
    oracle("tag", "ours:1", "theirs:1")
    oracle("save", "-o", tmp_path / "theirs.tar", "theirs:1")
    assert server.docker("load", "-i", tmp_path / "theirs.tar").lines == ["Loaded image: theirs:1"]
    assert server.inspect("theirs:1")["Id"] == ours["Id"]
    server.docker("rmi", "ours:1", "theirs:1")
