"""Images, archives, registries and build contexts made to do harm: each ends inside its own place, or as a refusal."""

import bz2
import contextlib
import gzip
import http.server
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images_fixtures import Server, busybox_tar, image_server  # noqa: F401 - a fixture
from images_helpers import Entry, digest_of, entry, is_root, make_tar, needs_root, stream

from bennu.errors import BennuError, InvalidParameter
from bennu.images import loading
from bennu.images.layers import Layers
from bennu.images.overlay import remove_tree
from bennu.images.platform import host_architecture
from support.cli import Cli
from support.daemon import UnixConnection
from support.images import import_base
from support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not is_root(), reason=needs_root)]
DIR, SYM, LNK, CHR = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE


# --- layers -----------------------------------------------------------------------------------------------------------


def cut_after_head(size_field: bytes) -> bytes:
    """A header whose size is what nobody has."""
    head = bytearray(tarfile.TarInfo("f").tobuf())
    head[124:136] = size_field
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + b"x" * 1024


@pytest.mark.parametrize(
    "tar",
    [
        pytest.param(make_tar([entry("a/" * 1000 + "f", b"deep")]), id="a-thousand-deep"),
        pytest.param(make_tar([entry("n" * 65000, b"x")]), id="name-too-long"),
        pytest.param(make_tar([entry("f", b"x", pax_headers={"path": "a\0b"})]), id="nul-in-name"),
        pytest.param(make_tar([entry("\u202egnp.exe", b"x")]), id="name-backwards"),
        pytest.param(make_tar([entry(".", b"a file")]), id="root-as-file"),
        pytest.param(make_tar([entry("./", kind=SYM, linkname="/"), entry("f", b"x")]), id="root-as-link"),
        pytest.param(make_tar([entry("f", b"x", pax_headers={"uid": str(2**40)})]), id="no-such-owner"),
        pytest.param(make_tar([entry("gone", kind=CHR, devmajor=0, devminor=0)]), id="whiteout-as-device"),
        pytest.param(make_tar([entry("l", kind=SYM, linkname="/"), entry("l/.wh.victim")]), id="whiteout-through-link"),
        pytest.param(make_tar([entry("a", kind=SYM, linkname="b"), entry("b", kind=SYM, linkname="a")]), id="loop"),
        pytest.param(make_tar([entry("l", kind=LNK, linkname="l")]), id="hard-link-to-itself"),
        pytest.param(cut_after_head(b"\xff" * 12), id="size-below-nothing"),
        pytest.param(cut_after_head(b"\x80\0\0\0\x40" + b"\0" * 7), id="size-2-to-the-62"),
        pytest.param(make_tar([entry("f", b"x", pax_headers={"size": str(8 << 30)})]), id="size-in-a-pax-header"),
    ],
)
async def test_a_layer_made_to_do_harm_ends_in_its_folder_or_as_a_refusal(tmp_path: Path, tar: bytes) -> None:
    layers = Layers(tmp_path / "images")
    layers.open()
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    before = sorted(path.name for path in [*tmp_path.iterdir(), Path("/f"), Path("/gone")] if path.exists())
    with layers.hold() as hold, contextlib.suppress(BennuError):
        layer = await layers.add(await layers.receive(stream(tar)), hold)
        root = layers.root / layers.lower_of(layer.diff_id)
        assert root.is_dir() and not root.is_symlink()
    assert victim.read_text() == "untouched" and list(layers.tmp.iterdir()) == []
    assert sorted(path.name for path in [*tmp_path.iterdir(), Path("/f"), Path("/gone")] if path.exists()) == before
    remove_tree(tmp_path / "images")  # one is deeper than whoever tidies up after tests can follow


async def test_a_sparse_file_of_terabytes_takes_no_room(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(4 << 40)
    tar = subprocess.run(["tar", "-C", tmp_path, "-S", "-cf", "-", "sparse"], capture_output=True, check=True).stdout
    layers = Layers(tmp_path / "images")
    layers.open()
    with layers.hold() as hold, contextlib.suppress(BennuError):
        await layers.add(await layers.receive(stream(tar)), hold)
    used = sum(path.lstat().st_blocks * 512 for path in (tmp_path / "images").rglob("*"))
    assert used < 1 << 20


# --- archives ---------------------------------------------------------------------------------------------------------


def archive(config: Any, *layers: bytes, **manifest: Any) -> bytes:
    """As `docker save` writes it; `config` may be anything at all."""
    data = config if isinstance(config, bytes) else json.dumps(config).encode()
    names = [f"{number}.tar" for number in range(len(layers))]
    described = [{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": names} | manifest]
    members = [entry("c.json", data), entry("manifest.json", json.dumps(described).encode())]
    return make_tar([*members, *(entry(name, layer) for name, layer in zip(names, layers, strict=True))])


def image_config(*layers: bytes, **config: Any) -> dict[str, Any]:
    diff_ids = [digest_of(layer) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return {"architecture": host_architecture(), "os": "linux", "config": config, "rootfs": rootfs}


LAYER = make_tar([entry("f", b"x")])
OCI_INDEX = {"schemaVersion": 2, "manifests": [{"digest": "sha256:../../../../../etc/passwd", "size": 1}]}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(archive(image_config(LAYER), LAYER, RepoTags=["../x:1"]), id="name-outside"),
        pytest.param(archive(image_config(LAYER), LAYER, RepoTags=["a\nb:1"]), id="newline-in-name"),
        pytest.param(archive(image_config(LAYER, LAYER), LAYER), id="a-layer-less"),
        pytest.param(archive(image_config(LAYER), LAYER, Layers=["/etc/passwd"]), id="layer-outside"),
        pytest.param(archive(image_config(LAYER), LAYER, Layers=["../../../etc/passwd"]), id="layer-above"),
        pytest.param(archive(image_config(LAYER), LAYER, Layers="0.tar"), id="layers-as-text"),
        pytest.param(archive({"rootfs": {"diff_ids": ["sha256:../../x"]}}, LAYER), id="digest-outside"),
        pytest.param(archive({"rootfs": {"diff_ids": [7]}}, LAYER), id="digest-as-number"),
        pytest.param(archive(b"[" * 100_000, LAYER), id="config-too-deep"),
        pytest.param(archive(b"\xff\xfe", LAYER), id="config-of-noise"),
        pytest.param(make_tar([entry("index.json", json.dumps(OCI_INDEX).encode())]), id="oci-digest-outside"),
        pytest.param(os.urandom(20_000), id="noise"),
    ],
)
def test_an_archive_made_to_do_harm_is_refused_in_words(server: Server, data: bytes) -> None:
    before = server.docker("images", "-aq").out
    status, answer = server.request("POST", "/images/load", data)
    message = json.loads(answer.splitlines()[-1])
    assert message.get("error") or message.get("message"), answer
    assert status in (200, 400, 500) and "internal error" not in answer.decode()
    assert server.docker("images", "-aq").out == before and list((server.images_root / "tmp").iterdir()) == []


def links(count: int, name_length: int) -> bytes:
    """Links in a tar, and one chain of them."""
    return make_tar(
        entry(f"{number}".rjust(name_length, "n"), kind=SYM, linkname=f"{number + 1}".rjust(name_length, "n"))
        for number in range(count)
    )


def long_gnu_links(count: int) -> bytes:
    """A million bytes of a target each; compressed it is next to nothing."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGLINK, 1 << 20
    link = entry("l", kind=SYM)[0]
    return (head.tobuf() + b"\xff" * head.size + link.tobuf()) * count


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(long_gnu_links(100), "archive/tar: header field too long", id="targets-of-a-million-bytes"),
        pytest.param(links(3000, 3500), "invalid archive: the names of its members are too long", id="long-names"),
    ],
)
def test_an_archive_of_names_alone_is_refused_before_it_fills_the_memory(
    server: Server, data: bytes, words: str
) -> None:
    before = peak_memory(server)
    status, answer = server.request("POST", "/images/load", gzip.compress(data, 1))
    last = json.loads(answer.splitlines()[-1])
    assert words in (last.get("error") or last["message"]), (status, answer)
    assert peak_memory(server) - before < 64 << 20


def peak_memory(server: Server) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) << 10


def test_a_load_ends_with_its_client_however_much_there_is_left_to_unpack(server: Server) -> None:
    tmp = server.images_root / "tmp"
    file = entry("0.tar")[0]
    file.size = 2000 * (16 << 20)
    bomb = bz2.compress(file.tobuf(tarfile.PAX_FORMAT)) + bz2.compress(bytes(16 << 20)) * 2000
    with contextlib.closing(UnixConnection(server.root / "s")) as client:
        client.request("POST", "/images/load", bomb)
        wait_for(lambda: sum(path.stat().st_size for path in tmp.glob("*/*")) > 0, what="the load to unpack")
    wait_for(lambda: list(tmp.iterdir()) == [], timeout_s=5, what="what it unpacked to be gone")


@pytest.mark.parametrize("more", [{"name": "x" * 80}, {"name": "a", "link": "b"}])
def test_an_archive_has_no_more_members_than_an_image_needs(more: dict[str, str]) -> None:
    gathering = loading.ArchiveIndex()
    for _ in range(100_000):
        gathering.hear(more)
    with pytest.raises(InvalidParameter, match="more than 100000 members"):
        gathering.hear(more)


def test_links_of_an_archive_that_lead_on_and_on_lead_nowhere(tmp_path: Path) -> None:
    parts = {f"{number}": loading.Part(f"{number}", link=f"{number + 1}") for number in range(100_000)}
    archive = loading.Archive(tmp_path, parts | {"100000": loading.Part("100000", file="1")})
    assert archive.find("99970") is not None and archive.find("0") is None


def test_one_configuration_that_many_images_of_an_archive_name_is_not_read_without_end(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"{}" + b" " * (4 << 20))
    manifest = json.dumps([{"Config": "c.json"}] * 1000).encode()
    (tmp_path / "2").write_bytes(manifest)
    parts = {"c.json": loading.Part("c.json", file="1", size=4 << 20)}
    parts["manifest.json"] = loading.Part("manifest.json", file="2", size=len(manifest))
    with pytest.raises(InvalidParameter, match="its manifests and configurations are too large"):
        loading.plan(loading.Archive(tmp_path, parts))


# --- configurations and root filesystems ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"Env": ["A=b\nC=d", "", "=x", "N=" + "x" * 50_000]}, id="environment"),
        pytest.param({"User": "../../etc"}, id="user-outside"),
        pytest.param({"User": f"{2**40}:{2**40}"}, id="no-such-user"),
        pytest.param({"WorkingDir": "/../../../../victim"}, id="folder-above"),
        pytest.param({"WorkingDir": "/" + "d" * 5000}, id="folder-too-long"),
        pytest.param({"Volumes": {"../../../victim": {}, "/../../v": {}}}, id="volumes-above"),
        pytest.param({"Volumes": {"/": {}}}, id="volume-at-the-root"),
        pytest.param({"ExposedPorts": {"99999/tcp": {}, "x/y/z": {}, "-1": {}}}, id="ports"),
        pytest.param({"StopSignal": "SIG\0NONE"}, id="signal"),
        pytest.param({"Healthcheck": {"Test": ["CMD"], "Interval": 2**63 - 1, "Retries": 2**40}}, id="health"),
        pytest.param({"Entrypoint": ["x" * 200_000]}, id="command-too-long"),
        pytest.param({"Labels": {"big": "x" * 1_000_000}, "Shell": [], "OnBuild": [""] * 1000}, id="labels"),
        pytest.param({"Cmd": "text", "Env": {"a": 1}}, id="wrong-kinds"),
    ],
)
def test_an_images_configuration_harms_no_host(docker: Cli, tmp_path: Path, config: dict[str, Any]) -> None:
    """It runs, or is refused in words; and a decent container still does."""
    base = busybox_tar()
    path = tmp_path / "image.tar"
    path.write_bytes(archive(image_config(base, **{"Cmd": ["true"], **config}), base))
    loaded = docker("load", "-i", path, ok=False)
    if loaded.code == 0:
        ran = docker("run", "--rm", "hostile:1", ok=False, timeout_s=30)
        assert ran.code == 0 or ran.err.strip()
        assert "Traceback" not in ran.err
        docker("rmi", "-f", "hostile:1", ok=False)
    assert not Path("/victim").exists() and not Path("/v").exists()
    import_base(docker, "busybox")
    assert docker("run", "--rm", "busybox", "echo", "well").line == "well"


def test_a_root_filesystem_whose_folders_are_links_leads_nowhere(docker: Cli, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    members = [entry("bin/busybox", Path(shutil.which("busybox") or "").read_bytes(), mode=0o755)]
    members += [entry("bin/sh", kind=SYM, linkname="busybox")]
    members += [entry(name, kind=SYM, linkname=str(victim)) for name in ("etc", "dev", "sys", "data", "work", "run")]
    docker("import", "-c", 'CMD ["sh"]', "-", "links", stdin=make_tar(members))
    for words in (
        ("-w", "/work"),
        ("-v", "/data/deeper"),
        ("-v", f"{tmp_path}/new:/data/deeper"),
        ("-w", "/data/../x"),
    ):
        docker("run", "--rm", *words, "links", "sh", "-c", "echo x > /work/harm; echo y > /data/harm; true", ok=False)
    docker(
        "build", "-", stdin=make_tar([entry("Dockerfile", b"FROM links\nWORKDIR /work/w\nCOPY Dockerfile /etc/x\n")])
    )
    assert list(victim.iterdir()) == []
    docker("rmi", "-f", "links")


# --- registries -------------------------------------------------------------------------------------------------------


class Liar(http.server.ThreadingHTTPServer):
    """A registry with one image, of which `lie` changes what it likes: (manifest, blobs by digest)."""

    def __init__(self, lie: Callable[[dict[str, Any], dict[str, bytes]], bytes | None]) -> None:
        config = json.dumps(image_config(LAYER)).encode()
        self.blobs = {digest_of(config): config, digest_of(LAYER): LAYER}
        kind = "application/vnd.docker."
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": f"{kind}distribution.manifest.v2+json",
            "config": {"mediaType": f"{kind}container.image.v1+json", "size": len(config), "digest": digest_of(config)},
            "layers": [{"mediaType": f"{kind}image.rootfs.diff.tar", "size": len(LAYER), "digest": digest_of(LAYER)}],
        }
        told = lie(manifest, self.blobs)
        self.kind = str(manifest.get("mediaType", f"{kind}distribution.manifest.v2+json"))
        self.manifest = json.dumps(manifest).encode() if told is None else told
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Answers(http.server.BaseHTTPRequestHandler):
    server: Liar

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        kind, data = "application/octet-stream", self.server.blobs.get(self.path.rpartition("/")[2])
        if "/manifests/" in self.path:
            kind, data = self.server.kind, self.server.manifest
        elif self.path.rstrip("/") == "/v2":
            data = b"{}"
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header("Docker-Content-Digest", digest_of(data or b""))
        self.end_headers()
        self.wfile.write(data or b"")

    do_HEAD = do_GET  # noqa: N815 - as its base calls it

    def log_message(self, format: str, *args: object) -> None:
        pass


def changed_layer(manifest: dict[str, Any], blobs: dict[str, bytes]) -> None:
    blobs[digest_of(LAYER)] = make_tar([entry("f", b"y")])


def changed_config(manifest: dict[str, Any], blobs: dict[str, bytes]) -> None:
    blobs[manifest["config"]["digest"]] = b" " * manifest["config"]["size"]


def other_content(manifest: dict[str, Any], blobs: dict[str, bytes]) -> None:
    """A layer that is as the manifest says, and not as the configuration says."""
    other = make_tar([entry("other", b"y")])
    blobs[digest_of(other)] = other
    manifest["layers"][0] |= {"digest": digest_of(other), "size": len(other)}


def wrong_size(size: int) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    return lambda manifest, blobs: manifest["layers"][0].update(size=size)


def digest_outside(manifest: dict[str, Any], blobs: dict[str, bytes]) -> None:
    manifest["layers"][0]["digest"] = "sha256:../../../../etc/passwd"


def a_layer_more(manifest: dict[str, Any], blobs: dict[str, bytes]) -> None:
    manifest["layers"] *= 2


def empty_list(manifest: dict[str, Any], blobs: dict[str, bytes]) -> None:
    manifest |= {"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "manifests": []}


@pytest.mark.parametrize(
    "lie",
    [
        changed_layer,
        changed_config,
        other_content,
        digest_outside,
        a_layer_more,
        empty_list,
        pytest.param(wrong_size(len(LAYER) - 1), id="size-too-small"),
        pytest.param(wrong_size(-1), id="size-below-nothing"),
        pytest.param(lambda manifest, blobs: b"<html>", id="no-json"),
        pytest.param(lambda manifest, blobs: b"[" * 100_000, id="too-deep"),
        pytest.param(lambda manifest, blobs: b'{"schemaVersion": 1, "fsLayers": []}', id="schema-1"),
    ],
)
def test_a_registry_that_lies_is_found_out(server: Server, lie: Any) -> None:
    before = server.docker("images", "-aq").out
    with contextlib.closing(Liar(lie)) as liar:
        _, answer = server.request("POST", f"/images/create?fromImage={liar.name}/app&tag=1")
    last = json.loads(answer.splitlines()[-1])
    assert last.get("error") or last.get("message"), answer
    assert "internal error" not in answer.decode() and "Traceback" not in answer.decode()
    assert server.docker("images", "-aq").out == before and list((server.images_root / "tmp").iterdir()) == []


def test_a_layer_is_not_fetched_from_where_a_manifest_says(server: Server) -> None:
    """Foreign addresses would have the daemon ask services in the host's network."""
    with contextlib.closing(Liar(lambda manifest, blobs: None)) as elsewhere:

        def foreign(manifest: dict[str, Any], blobs: dict[str, bytes]) -> None:
            layer = manifest["layers"][0]
            layer["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            layer["urls"] = [f"http://{elsewhere.name}/secret/{layer['digest']}"]
            del blobs[layer["digest"]]

        with contextlib.closing(Liar(foreign)) as liar:
            answer = server.request("POST", f"/images/create?fromImage={liar.name}/app&tag=1")[1]
        assert json.loads(answer.splitlines()[-1]).get("error") or b"message" in answer
    assert elsewhere.asked == []


# --- contexts of builds -----------------------------------------------------------------------------------------------

FROM: Entry = entry("real", b"FROM base\nRUN true\n")


@pytest.mark.parametrize(
    ("query", "members"),
    [
        pytest.param("", [entry("Dockerfile", kind=SYM, linkname="/etc/passwd")], id="link-outside"),
        pytest.param("", [entry("Dockerfile", kind=SYM, linkname="../../../../../../etc/passwd")], id="link-above"),
        pytest.param("", [entry("Dockerfile", kind=SYM, linkname="Dockerfile")], id="loop"),
        pytest.param("", [entry("Dockerfile", kind=tarfile.FIFOTYPE)], id="pipe"),
        pytest.param("", [entry("Dockerfile", kind=DIR)], id="folder"),
        pytest.param("", [entry("Dockerfile", kind=CHR, devmajor=1, devminor=5)], id="endless-device"),
        pytest.param("", [entry("Dockerfile", b"#" * (5 << 20))], id="too-large"),
        pytest.param("?dockerfile=../../../../../../etc/passwd", [FROM], id="name-above"),
        pytest.param("?dockerfile=/etc/passwd", [FROM], id="name-outside"),
        pytest.param("?dockerfile=d/passwd", [FROM, entry("d", kind=SYM, linkname="/etc")], id="folder-as-link"),
        pytest.param("", [entry("../Dockerfile", b"FROM base\n")], id="member-above"),
    ],
)
def test_a_dockerfile_is_a_file_of_its_context_or_none(server: Server, query: str, members: list[Entry]) -> None:
    status, message = server.error("POST", f"/build{query}", make_tar(members))
    assert status == 400 and "root:" not in message
    assert list((server.images_root / "tmp").iterdir()) == []


def test_a_link_in_a_context_copies_nothing_of_the_host(server: Server, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret of the host")
    links = [entry("l", kind=SYM, linkname=str(tmp_path)), entry("f", kind=SYM, linkname=f"{tmp_path}/secret")]
    for copy in ("COPY l/secret /x", "COPY f /x", "ADD l /x", "COPY --chown=1 . /x", "ADD l/* /x"):
        dockerfile = f"FROM base\n{copy}\nRUN cat /x /x/secret /x/l/secret /x/f || true\n".encode()
        context = make_tar([entry("Dockerfile", dockerfile), *links])
        said = server.docker("build", "--no-cache", "-", stdin=context, ok=False, timeout_s=60)
        assert "secret of the host" not in said.out + said.err
