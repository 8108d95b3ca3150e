"""The images of a host: names, removal, sharing, survival of crashes, root filesystems."""

import asyncio
import contextlib
import gzip
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from images_helpers import digest_of, entry, is_root, make_image, make_tar, needs_root, stream

from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound
from bennu.images import Images
from bennu.images.importing import commit_image, import_image
from bennu.images.loading import Loaded, load
from bennu.images.platform import host_architecture
from bennu.images.reference import parse_reference
from bennu.images.removal import chain_ids, prune_images, remove_image
from bennu.images.saving import choose, save
from bennu.store import SqliteStore, open_sqlite

pytestmark = pytest.mark.skipif(not is_root(), reason=needs_root)
BASE = make_tar([entry("./", kind=b"5", mode=0o751), entry("etc/base", b"base"), entry("etc/both", b"base")])
TOP = make_tar([entry("etc/both", b"top"), entry("etc/.wh.base")])


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


class Users:
    """Containers by the image that they were made from: their ids, and whether they run."""

    def __init__(self) -> None:
        self.of: dict[str, list[tuple[str, bool]]] = {}

    def users_of_image(self, image_id: str) -> list[tuple[str, bool]]:
        return self.of.get(image_id, [])


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
async def images(tmp_path: Path, store: SqliteStore, users: Users) -> Images:
    return await reopen(tmp_path, store, users)


async def reopen(tmp_path: Path, store: SqliteStore, users: Users | None = None) -> Images:
    images = Images(tmp_path / "images", store, users)
    await images.open()
    return images


def files_of(images: Images) -> list[str]:
    return sorted(path.name for path in [*images.layers.root.iterdir(), *images.layers.blobs.iterdir()])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_an_image_is_found_by_every_name_it_has(images: Images) -> None:
    image = await make_image(images, [BASE], "app:v1", "localhost:5000/x/app")
    hex_id = image.id.removeprefix("sha256:")
    for ref in ("app:v1", "docker.io/library/app:v1", "localhost:5000/x/app:latest", image.id, hex_id, hex_id[:12]):
        assert images.find(ref) is image
    assert images.find(f"sha256:{hex_id[:8]}") is image
    for ref, message in (
        ("app", "No such image: app:latest"),
        ("nosuch:1", "No such image: nosuch:1"),
        (f"sha256:{'0' * 64}", f"No such image: sha256:{'0' * 64}"),
    ):
        with pytest.raises(NotFound) as caught:
            images.find(ref)
        assert str(caught.value) == message
    with pytest.raises(InvalidParameter, match="invalid reference format"):
        images.find("!")


async def test_everything_survives_a_restart(tmp_path: Path, store: SqliteStore, images: Images) -> None:
    image = await make_image(images, [BASE, TOP], "app:v1", Cmd=["x"])
    await images.tag(image, parse_reference("other"))
    again = (await reopen(tmp_path, store)).find("other")
    assert (again.id, again.repo_tags, again.diff_ids) == (image.id, ["app:v1", "other:latest"], image.diff_ids)
    assert again.config.cmd == ["x"] and again.size == image.size == 4 + 4 + 3
    assert again.last_tag_ns == image.last_tag_ns > 0


async def test_what_a_killed_daemon_left_half_done_is_gone_after_the_next_start(
    tmp_path: Path, store: SqliteStore, images: Images
) -> None:
    image = await make_image(images, [BASE], "app")
    half = images.layers.tmp / "half"
    (half / "diff").mkdir(parents=True)
    (images.layers.tmp / "blob").write_bytes(b"half")
    stray = images.layers.root / ("a" * 64)
    (stray / "diff").mkdir(parents=True)  # no `meta`: its rename never happened
    (images.layers.blobs / ("b" * 64)).write_bytes(b"of no image")
    with images.layers.hold() as hold:  # complete, and its image was never made
        await images.layers.add(await images.layers.receive(stream(TOP)), hold)
    before = files_of(images)
    again = await reopen(tmp_path, store)
    assert list(again.layers.tmp.iterdir()) == []
    hexes = [image.id.removeprefix("sha256:"), digest_of(BASE).removeprefix("sha256:")]
    assert files_of(again) == sorted([*hexes, hexes[1]]) and len(before) > 3
    assert again.find("app").id == image.id


async def test_an_image_whose_layer_was_damaged_is_left_out_and_the_others_work(
    tmp_path: Path, store: SqliteStore, images: Images
) -> None:
    await make_image(images, [BASE], "good")
    bad = await make_image(images, [BASE, TOP], "bad")
    (images.layers.root / digest_of(TOP).removeprefix("sha256:") / "meta").write_text("{")
    again = await reopen(tmp_path, store)
    assert [image.repo_tags for image in again.list()] == [["good:latest"]]
    with pytest.raises(NotFound):
        again.find(bad.id)


async def test_images_share_layers_and_the_last_one_takes_them_along(images: Images) -> None:
    one = await make_image(images, [BASE], "one")
    two = await make_image(images, [BASE, TOP], "two")
    assert len(list(images.layers.root.iterdir())) == 2
    removal = await remove_image(images, "two")
    chains = chain_ids(two.diff_ids)
    assert removal.records == [{"Untagged": "two:latest"}, {"Deleted": two.id}, {"Deleted": chains[1]}]
    assert removal.reclaimed == 3
    assert [event[0] for event in removal.events] == ["untag", "delete"]
    removal = await remove_image(images, one.id)
    assert removal.records == [{"Untagged": "one:latest"}, {"Deleted": one.id}, {"Deleted": one.diff_ids[0]}]
    assert files_of(images) == []


async def test_a_tag_moves_and_its_former_image_stays_without_it(images: Images) -> None:
    one = await make_image(images, [BASE], "app")
    two = await make_image(images, [TOP], "app")
    assert (one.repo_tags, two.repo_tags) == ([], ["app:latest"])
    assert images.find("app") is two and images.find(one.id) is one


async def test_removal_conflicts_are_dockers(images: Images, users: Users) -> None:
    image = await make_image(images, [BASE], "app", "other/app")
    short = image.id[7:19]
    containers = users.of[image.id] = []

    async def refused(ref: str, *, force: bool = False) -> str:
        with pytest.raises(Conflict) as caught:
            await remove_image(images, ref, force=force)
        return str(caught.value)

    assert await refused(short) == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    assert (await remove_image(images, "other/app")).records == [{"Untagged": "other/app:latest"}]
    containers.append(("c" * 64, False))
    assert await refused("app") == (
        f'conflict: unable to remove repository reference "app" (must force) - container {"c" * 12} is using its '
        f"referenced image {short}"
    )
    assert await refused(short) == (
        f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container {'c' * 12}"
    )
    containers[0] = ("d" * 64, True)
    assert await refused(short, force=True) == (
        f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container {'d' * 12}"
    )
    # By name, a forced removal of the last name of an image that runs only takes the name.
    assert (await remove_image(images, "app", force=True)).records == [{"Untagged": "app:latest"}]
    assert images.find(short) is image


async def test_an_image_with_children_cannot_be_deleted(images: Images, tmp_path: Path) -> None:
    parent = await make_image(images, [BASE], "parent")
    upper = tmp_path / "c"
    merged = await images.mount(parent, upper)
    (merged / "new").write_text("new")
    await images.unmount(upper)
    child = await commit_image(images, upper, parent, {"Cmd": ["x"]}, name=parse_reference("child"), comment="why")
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        await remove_image(images, parent.id, force=True)
    assert (await remove_image(images, "parent")).records == [{"Untagged": "parent:latest"}]
    records = (await remove_image(images, "child")).records
    assert [record for record in records if record.get("Deleted") in (child.id, parent.id)] == [
        {"Deleted": child.id},
        {"Deleted": parent.id},
    ]
    assert files_of(images) == []


async def test_a_removed_images_layers_stay_until_its_last_container_is_gone(
    tmp_path: Path, store: SqliteStore, images: Images, users: Users
) -> None:
    image = await make_image(images, [BASE], "app")
    users.of[image.id] = [("c" * 64, False)]
    records = (await remove_image(images, image.id, force=True)).records
    assert records == [{"Untagged": "app:latest"}, {"Deleted": image.id}]
    with pytest.raises(NotFound):
        images.find(image.id)
    again = await reopen(tmp_path, store, users)
    assert again.list() == []
    merged = await again.mount(again.by_id(image.id), tmp_path / "c")
    assert (merged / "etc/base").read_text() == "base"
    await again.remove_upper(tmp_path / "c")
    users.of.clear()
    await again.let_go(image.id)
    assert files_of(again) == []


async def test_an_image_cannot_lose_its_layers_while_a_container_is_being_made(images: Images, tmp_path: Path) -> None:
    image = await make_image(images, [BASE], "app")
    with images.in_use(image):
        await remove_image(images, "app")
        assert (await images.mount(image, tmp_path / "c") / "etc/base").exists()
    await images.remove_upper(tmp_path / "c")
    await images.let_go(image.id)
    assert files_of(images) == []


async def test_pruning_takes_what_nobody_uses(images: Images, users: Users) -> None:
    old = await make_image(images, [BASE], "app")
    new = await make_image(images, [BASE], "app", Labels={"new": "1"})
    used = await make_image(images, [TOP])
    users.of[used.id] = [("c" * 64, False)]
    removal = await prune_images(images, dangling_only=True, accept=lambda image: True)
    assert removal.records == [{"Deleted": old.id}] and removal.reclaimed == 0
    removal = await prune_images(images, dangling_only=False, accept=lambda image: "new" not in image.labels)
    assert removal.records == []
    removal = await prune_images(images, dangling_only=False, accept=lambda image: True)
    assert {"Untagged": "app:latest"} in removal.records and {"Deleted": new.id} in removal.records
    assert images.list() == [used]


# --- root filesystems ------------------------------------------------------------------------------------------------


async def test_a_mount_shows_the_layers_over_each_other_and_keeps_what_is_written(
    images: Images, tmp_path: Path
) -> None:
    image = await make_image(images, [BASE, TOP], "app")
    upper = tmp_path / "with, comma: and colon"
    merged = await images.mount(image, upper)
    assert await images.mount(image, upper) == merged
    assert stat.S_IMODE(merged.stat().st_mode) == 0o751
    assert names(merged / "etc") == ["both"] and (merged / "etc/both").read_text() == "top"
    (merged / "etc/both").write_text("mine")
    await images.unmount(upper)
    await images.unmount(upper)
    assert not os.path.ismount(upper / "merged") and list((upper / "merged").iterdir()) == []
    merged = await images.mount(image, upper)
    assert (merged / "etc/both").read_text() == "mine"
    await images.remove_upper(upper)
    await images.remove_upper(upper)
    assert list(upper.iterdir()) == []
    layer = images.layers.root / images.layers.lower_of(digest_of(TOP))
    assert (layer / "etc/both").read_text() == "top"


async def test_an_image_of_nothing_can_be_mounted(images: Images, tmp_path: Path) -> None:
    merged = await images.mount(await make_image(images, []), tmp_path / "c")
    (merged / "f").write_text("x")
    await images.remove_upper(tmp_path / "c")


@pytest.mark.slow
async def test_an_image_of_120_layers_can_be_mounted(images: Images, tmp_path: Path) -> None:
    tars = [make_tar([entry(f"f{number}", b"x"), entry("last", str(number).encode())]) for number in range(120)]
    image = await make_image(images, tars)
    merged = await images.mount(image, tmp_path / "c")
    assert set(names(merged)) == {"last", ".dockerenv", *(f"f{number}" for number in range(120))}
    assert (merged / "last").read_text() == "119"
    await images.remove_upper(tmp_path / "c")


async def test_a_tree_deeper_than_the_interpreter_can_follow_is_removed(images: Images, tmp_path: Path) -> None:
    upper = tmp_path / "c"
    merged = await images.mount(await make_image(images, [BASE]), upper)
    inside = os.open(merged, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=inside)
        deeper = os.open("d", os.O_RDONLY, dir_fd=inside)
        os.close(inside)
        inside = deeper
    os.close(inside)
    await images.remove_upper(upper)
    assert list(upper.iterdir()) == []


# --- in and out ------------------------------------------------------------------------------------------------------


async def test_a_layer_wanted_by_many_at_once_is_unpacked_once(images: Images) -> None:
    tar = make_tar([entry("f", os.urandom(2_000_000))])
    made = await asyncio.gather(*(make_image(images, [tar], f"app:{number}") for number in range(5)))
    assert len({image.id for image in made}) == 1
    assert len(list(images.layers.root.iterdir())) == 1 and list(images.layers.tmp.iterdir()) == []
    assert images.find("app:4").repo_tags == [f"app:{number}" for number in range(5)]


async def archive_of(images: Images, *refs: str) -> bytes:
    parts = [part async for part in save(images, choose(images, refs))]
    return b"".join(part if isinstance(part, bytes) else part.path.read_bytes() for part in parts)


async def load_all(images: Images, data: bytes) -> list[Loaded]:
    return [step async for step in load(images, stream(data)) if isinstance(step, Loaded)]


async def test_saving_and_loading_gives_the_same_images(images: Images) -> None:
    one = await make_image(images, [BASE], "app:1", Healthcheck={"Test": ["NONE"]})
    two = await make_image(images, [BASE, TOP], "app:2")
    data = await archive_of(images, "app:1", "app:2", two.id)
    for ref in ("app:1", "app:2"):
        await remove_image(images, ref)
    assert files_of(images) == []
    loaded = await load_all(images, data)
    assert [(item.image.id, [str(tag) for tag in item.tags]) for item in loaded] == [
        (one.id, ["app:1"]),
        (two.id, ["app:2"]),
    ]
    assert images.find("app:1").config.healthcheck is not None
    assert list(images.layers.tmp.iterdir()) == []


async def test_a_compressed_layer_is_saved_plain(images: Images) -> None:
    image = await import_image(images, stream(gzip.compress(BASE)), name=parse_reference("app"))
    data = await archive_of(images, "app")
    assert image.diff_ids == [digest_of(BASE)] and BASE in data
    await remove_image(images, "app")
    assert (await load_all(images, data))[0].image.id == image.id


async def test_a_save_ends_with_its_client_whatever_is_being_read(images: Images) -> None:
    image = await make_image(images, [BASE], "app")
    blob = next(images.layers.blobs.iterdir())
    blob.unlink()
    os.mkfifo(blob)  # a disk that does not answer
    saving = asyncio.create_task(archive_of(images, "app"))
    await asyncio.sleep(0.1)
    saving.cancel()
    while not saving.done():
        with contextlib.suppress(OSError):  # nobody reads it at this moment
            os.close(os.open(blob, os.O_WRONLY | os.O_NONBLOCK))
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        saving.result()
    await remove_image(images, image.id)
    assert files_of(images) == []


async def test_loading_over_a_name_says_whom_it_displaced(images: Images) -> None:
    old = await make_image(images, [BASE], "app")
    data = await archive_of(images, "app")
    new = await make_image(images, [TOP], "app")
    loaded = await load_all(images, data)
    assert loaded[0].displaced == {"app:latest": new.id} and images.find("app") is old


@pytest.mark.parametrize(
    ("members", "message"),
    [
        pytest.param({"x": b"y"}, "does not contain a manifest.json", id="no-manifest"),
        pytest.param({"manifest.json": b"{"}, "invalid archive: manifest.json", id="broken-manifest"),
        pytest.param({"manifest.json": b'[{"Config":"c"}]'}, "it has no c", id="no-config"),
        pytest.param(
            {"manifest.json": b'[{"Config":"../../../etc/passwd"}]'}, "it has no ../../../etc/passwd", id="outside"
        ),
        pytest.param(
            {"manifest.json": b'[{"Config":"c","Layers":["l"]}]', "c": b'{"rootfs":{"diff_ids":[]}}'},
            "layers length mismatch: expected 0, got 1",
            id="mismatch",
        ),
        pytest.param(
            {
                "manifest.json": b'[{"Config":"c","Layers":["l"]}]',
                "c": b'{"rootfs":{"diff_ids":["sha256:' + b"0" * 64 + b'"]}}',
                "l": TOP,
            },
            "invalid diffID",
            id="wrong-content",
        ),
        pytest.param(
            {"index.json": b'{"manifests":[{"digest":"sha256:' + b"0" * 64 + b'"}]}'}, "it has no blobs", id="oci-empty"
        ),
        pytest.param({"manifest.json": b" " * (5 << 20)}, "too large", id="huge-manifest"),
    ],
)
async def test_an_archive_that_lies_is_refused_and_leaves_nothing(
    images: Images, members: dict[str, bytes], message: str
) -> None:
    with pytest.raises(BennuError, match=message):
        await load_all(images, make_tar([entry(name, data) for name, data in members.items()]))
    assert list(images.layers.tmp.iterdir()) == [] and images.list() == []


async def test_an_archive_cut_short_is_refused(images: Images) -> None:
    await make_image(images, [BASE], "app")
    data = await archive_of(images, "app")
    await remove_image(images, "app")
    for cut in (100, 700, len(data) // 2):
        with pytest.raises(InvalidParameter, match="unexpected EOF"):
            await load_all(images, data[:cut])
    assert files_of(images) == [] and list(images.layers.tmp.iterdir()) == []


async def test_an_oci_layout_is_loaded_with_its_compressed_layers_and_without_its_attestations(images: Images) -> None:
    blobs: dict[str, bytes] = {}

    def put(data: bytes | dict[str, Any]) -> dict[str, Any]:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        blobs[f"blobs/sha256/{digest_of(raw)[7:]}"] = raw
        return {"digest": digest_of(raw), "size": len(raw)}

    def image(architecture: str) -> dict[str, Any]:
        rootfs = {"type": "layers", "diff_ids": [digest_of(BASE), digest_of(TOP)]}
        config = put({"architecture": architecture, "os": "linux", "rootfs": rootfs})
        layers = [put(gzip.compress(BASE)), put(zstd(TOP))]
        platform = {"architecture": architecture, "os": "linux"}
        return put({"schemaVersion": 2, "config": config, "layers": layers}) | {"platform": platform}

    def zstd(data: bytes) -> bytes:
        return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout

    proof = put({"schemaVersion": 2, "config": put({}), "layers": [put(b"{}")]})
    proof |= {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    unknown = proof | {"platform": {"architecture": "unknown", "os": "unknown"}}
    listed = put({"schemaVersion": 2, "manifests": [unknown, image("s390x"), image(host_architecture())]})
    listed |= {"annotations": {"io.containerd.image.name": "docker.io/library/several:1"}}
    index = json.dumps({"schemaVersion": 2, "manifests": [proof, listed]}).encode()
    members = [entry(name, data) for name, data in blobs.items()]
    archive = make_tar([*members, entry("index.json", index), entry("oci-layout", b"{}")])
    loaded = await load_all(images, archive)
    assert [[str(tag) for tag in item.tags] for item in loaded] == [["several:1"]]
    assert images.find("several:1").architecture == host_architecture()
    saved = await archive_of(images, "several:1")
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        names = [member.name for member in tar]
        layer = tar.extractfile(f"blobs/sha256/{digest_of(TOP)[7:]}")
        assert layer is not None and layer.read() == TOP
        assert names[:2] == ["blobs", "blobs/sha256"] and names == sorted(names)


async def test_links_in_an_archive_stay_in_it(images: Images) -> None:
    config = b'{"rootfs":{"diff_ids":["' + digest_of(TOP).encode() + b'"]}}'
    members = [
        entry("a/layer.tar", TOP),
        entry("b/layer.tar", kind=b"2", linkname="../a/layer.tar"),
        entry("loop", kind=b"2", linkname="loop"),
        entry("c.json", config),
        entry("manifest.json", b'[{"Config":"c.json","RepoTags":["old:style"],"Layers":["b/layer.tar"]}]'),
    ]
    assert (await load_all(images, make_tar(members)))[0].image is images.find("old:style")
    members[-1] = entry("manifest.json", b'[{"Config":"loop"}]')
    with pytest.raises(InvalidParameter, match="it has no loop"):
        await load_all(images, make_tar(members))


async def test_a_commit_holds_exactly_what_was_changed(images: Images, tmp_path: Path) -> None:
    base = await make_image(images, [BASE], "base")
    upper = tmp_path / "c"
    merged = await images.mount(base, upper)
    (merged / "etc/base").unlink()
    (merged / "etc/both").write_text("changed")
    (merged / "etc/both").chmod(0o600)
    (merged / "fresh").mkdir(mode=0o700)
    (merged / "fresh/a").write_text("a")
    os.link(merged / "fresh/a", merged / "fresh/b")
    (merged / "fresh/s").symlink_to("a")
    os.setxattr(merged / "fresh/a", "user.x", b"\xff\x00y")
    await images.unmount(upper)
    image = await commit_image(
        images, upper, base, {"Cmd": ["x"], "Env": ["A=b"]}, name=parse_reference("new"), author="me", comment="c"
    )
    await images.remove_upper(upper)
    merged = await images.mount(image, upper)
    assert names(merged / "etc") == ["both"] and (merged / "etc/both").read_text() == "changed"
    assert stat.S_IMODE((merged / "etc/both").stat().st_mode) == 0o600
    assert (merged / "fresh/a").stat().st_ino == (merged / "fresh/b").stat().st_ino
    assert str((merged / "fresh/s").readlink()) == "a"
    assert os.getxattr(merged / "fresh/a", "user.x") == b"\xff\x00y"
    assert stat.S_IMODE(merged.stat().st_mode) == 0o751
    await images.remove_upper(upper)
    assert image.config.cmd == ["x"] and image.config.env == ["A=b"] and image.parent == base.id
    assert len(image.diff_ids) == 2 and image.raw["author"] == "me"
