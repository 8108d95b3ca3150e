"""Volumes outlive containers, crashes and half-done work; new ones are filled from the image."""

import asyncio
import os
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from bennu.api.http.query import Filters
from bennu.api.routes.volumes import volume_filter, volume_json
from bennu.confined.client import Failure
from bennu.confined.tree import resolve
from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound
from bennu.store import Delete, Put, SqliteStore, Transaction, open_sqlite
from bennu.volumes import Volume, Volumes
from bennu.volumes.copyup import copy_up, needs_filling
from bennu.volumes.mounting import check_options, is_mounted

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "volumes"


async def opened(root: Path, store: SqliteStore) -> Volumes:
    volumes = Volumes(root, store)
    await volumes.open()
    return volumes


@pytest.fixture
async def volumes(root: Path, store: SqliteStore) -> Volumes:
    return await opened(root, store)


def data(volume: Volume) -> Path:
    return Path(volume.mountpoint)


# --- life -------------------------------------------------------------------------------------------------------


async def test_a_volume_is_a_folder_and_is_there_again_after_a_restart(root: Path, store: SqliteStore) -> None:
    volume = await (await opened(root, store)).create("db", labels={"a": "b"})
    (data(volume) / "file").write_text("kept")
    again = (await opened(root, store)).find("db")
    assert again == volume
    assert (data(again) / "file").read_text() == "kept"
    assert data(volume) == root / "db" / "_data"
    assert stat.S_IMODE(data(volume).stat().st_mode) == 0o755


async def test_creating_one_that_exists_answers_it_unchanged(volumes: Volumes) -> None:
    first = await volumes.create("db", labels={"a": "b"})
    assert await volumes.create("db", labels={"c": "d"}) is first


async def test_without_a_name_it_is_anonymous_and_has_64_hex_digits(volumes: Volumes) -> None:
    volume = await volumes.create("", labels={"a": "b"})
    assert volume.anonymous and len(volume.name) == 64 and int(volume.name, 16)
    assert volume.labels == {"a": "b", "com.docker.volume.anonymous": ""}
    assert not (await volumes.create("named")).anonymous


@pytest.mark.parametrize("name", ["-x", "a b", "a/b", "..", ".a", "a\n", "é1", "/abs"])
async def test_names_are_checked(volumes: Volumes, name: str) -> None:
    with pytest.raises(InvalidParameter, match="includes invalid characters for a local volume name"):
        await volumes.create(name)


async def test_one_letter_is_too_short_and_256_too_long(volumes: Volumes) -> None:
    with pytest.raises(InvalidParameter, match="create a: volume name is too short"):
        await volumes.create("a")
    with pytest.raises(InvalidParameter, match="too long"):
        await volumes.create("a" * 256)
    assert volumes.list() == []


async def test_an_unknown_driver_is_not_found(volumes: Volumes) -> None:
    with pytest.raises(NotFound) as caught:
        await volumes.create("db", "bogus")
    assert str(caught.value) == 'create db: error looking up volume plugin bogus: plugin "bogus" not found'


async def test_one_in_use_is_not_removed(volumes: Volumes) -> None:
    await volumes.create("db")
    volumes.users = lambda name: ["c1", "c2"]
    with pytest.raises(Conflict) as caught:
        await volumes.remove("db")
    assert str(caught.value) == "remove db: volume is in use - [c1, c2]"
    volumes.users = lambda name: ["c1"]
    await volumes.remove("db", by_container="c1")
    with pytest.raises(NotFound, match="get db: no such volume"):
        volumes.find("db")


async def test_removal_takes_the_data_and_force_tolerates_absence(volumes: Volumes, root: Path) -> None:
    volume = await volumes.create("db")
    (data(volume) / "deep" / "er").mkdir(parents=True)
    await volumes.remove("db")
    assert list(root.iterdir()) == []
    await volumes.remove("db", force=True)
    with pytest.raises(NotFound, match="get db: no such volume"):
        await volumes.remove("db")


async def test_prune_takes_unused_ones_that_are_wanted(volumes: Volumes) -> None:
    used, anonymous, named = await volumes.create(""), await volumes.create(""), await volumes.create("named")
    (data(anonymous) / "file").write_bytes(b"12345")
    (data(anonymous) / "link").hardlink_to(data(anonymous) / "file")
    volumes.users = lambda name: ["c"] if name == used.name else []
    assert await volumes.prune(lambda volume: volume.anonymous) == ([anonymous.name], 5)
    assert {volume.name for volume in volumes.list()} == {used.name, named.name}


async def test_changes_are_announced_with_their_write(root: Path, store: SqliteStore) -> None:
    volumes = await opened(root, store)
    told: list[tuple[str, str, str]] = []

    async def commit(write: Put | Delete, action: str, volume: Volume) -> None:
        told.append((type(write).__name__, action, volume.name))
        await store.commit(Transaction([write]))

    volumes.commit = commit
    await volumes.create("db")
    await volumes.create("db")
    await volumes.remove("db")
    assert told == [("Put", "create", "db"), ("Delete", "destroy", "db")]


# --- crashes ----------------------------------------------------------------------------------------------------


async def test_a_creation_cut_short_leaves_nothing(root: Path, store: SqliteStore) -> None:
    (root / "half" / "_data").mkdir(parents=True)
    (root / "less").mkdir()
    assert (await opened(root, store)).list() == []
    assert list(root.iterdir()) == []


async def test_a_removal_cut_short_is_finished(root: Path, store: SqliteStore) -> None:
    volume = await (await opened(root, store)).create("db")
    (data(volume) / "file").touch()
    marked = msgspec.structs.replace(volume, removing=True)
    await store.commit(Transaction([Put("volumes/db", msgspec.json.encode(marked))]))
    assert (await opened(root, store)).list() == []
    assert list(root.iterdir()) == []
    assert await store.read("volumes/db") is None


async def test_data_without_a_record_is_never_deleted(root: Path, store: SqliteStore) -> None:
    (root / "precious" / "_data").mkdir(parents=True)
    (root / "precious" / "_data" / "file").write_text("kept")
    volumes = await opened(root, store)
    assert (data(volumes.find("precious")) / "file").read_text() == "kept"
    assert (await opened(root, store)).find("precious") == volumes.find("precious")


# --- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bogus": "x"}, 'create db: invalid option: "bogus"'),
        ({"type": "tmpfs"}, 'create db: missing required option: "device"'),
        ({"device": "tmpfs"}, 'create db: missing required option: "type"'),
        ({"o": "size=1m"}, 'create db: missing required option: "device"'),
        ({"size": "1m"}, "create db: quota size requested but no quota support"),
    ],
)
def test_options_are_checked(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check_options("db", options)
    assert str(caught.value) == words


@needs_root
async def test_options_are_mounted_while_used(volumes: Volumes, tmp_path: Path) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k,uid=1000"}
    volume = await volumes.create("ram", options=options)
    await volumes.mount("ram")
    try:
        await volumes.mount("ram")
        assert is_mounted(volume.mountpoint) and data(volume).stat().st_uid == 1000
        volumes.running_users = lambda name: ["other"]
        await volumes.unmount_unused("ram")
        assert is_mounted(volume.mountpoint)
    finally:
        volumes.running_users = lambda name: []
        await volumes.unmount_unused("ram")
    assert not is_mounted(volume.mountpoint)
    await volumes.unmount_unused("ram")


@needs_root
async def test_removing_a_mounted_bind_leaves_what_it_showed(volumes: Volumes, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    volume = await volumes.create("bound", options={"type": "none", "device": str(elsewhere), "o": "bind"})
    await volumes.mount("bound")
    assert (data(volume) / "file").exists()
    await volumes.remove("bound")
    assert (elsewhere / "file").exists()
    assert not is_mounted(volume.mountpoint)


@needs_root
async def test_a_mount_that_fails_says_why(volumes: Volumes) -> None:
    volume = await volumes.create("bad", options={"type": "none", "device": "/nowhere", "o": "bind"})
    with pytest.raises(BennuError) as caught:
        await volumes.mount("bad")
    text = str(caught.value)
    assert text.startswith(
        f"error while mounting volume '{volume.mountpoint}': failed to mount local volume: mount /now"
    )
    assert "does not exist" in text or "No such file" in text


# --- filling from the image -------------------------------------------------------------------------------------


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    made = tmp_path / "rootfs"
    made.mkdir()
    return made


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "vol" / "_data"
    made.mkdir(parents=True)
    return made


@needs_root
def test_a_copy_keeps_owners_modes_times_links_and_attributes(rootfs: Path, volume: Path) -> None:
    source = rootfs / "var" / "lib" / "db"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("text")
    (source / "twin").hardlink_to(source / "file")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "fifo")
    os.chown(source / "file", 12, 34)
    (source / "file").chmod(0o4750)
    os.chown(source / "link", 5, 6, follow_symlinks=False)
    os.chown(source, 99, 98)
    source.chmod(0o1777)
    os.utime(source / "file", ns=(10**18, 10**18 + 1))
    os.utime(source / "sub", ns=(10**18, 10**18 + 2))
    attributes = _set_attribute(source / "file")
    asyncio.run(copy_up(rootfs, "/var/lib/db", volume))
    copied = (volume / "file").stat()
    assert (copied.st_uid, copied.st_gid, stat.S_IMODE(copied.st_mode)) == (12, 34, 0o4750)
    assert copied.st_mtime_ns == 10**18 + 1
    assert (volume / "sub").stat().st_mtime_ns == 10**18 + 2
    assert copied.st_ino == (volume / "twin").stat().st_ino
    assert (volume / "link").readlink() == Path("/etc/passwd") and (volume / "link").lstat().st_uid == 5
    assert stat.S_ISFIFO((volume / "fifo").stat().st_mode)
    assert (volume.stat().st_uid, volume.stat().st_gid, stat.S_IMODE(volume.stat().st_mode)) == (99, 98, 0o1777)
    assert not attributes or os.getxattr(volume / "file", "trusted.kind") == b"rare"


def _set_attribute(path: Path) -> bool:
    try:
        os.setxattr(path, "trusted.kind", b"rare")
    except OSError:
        return False
    return True


@needs_root
def test_a_volume_that_holds_something_is_left_alone(rootfs: Path, volume: Path) -> None:
    (rootfs / "d").mkdir()
    (rootfs / "d" / "new").touch()
    (volume / "mine").touch()
    asyncio.run(copy_up(rootfs, "/d", volume))
    assert [path.name for path in volume.iterdir()] == ["mine"]


@needs_root
def test_what_is_no_folder_or_not_there_fills_nothing(rootfs: Path, volume: Path) -> None:
    (rootfs / "file").touch()
    asyncio.run(copy_up(rootfs, "/file", volume))
    asyncio.run(copy_up(rootfs, "/absent/deep", volume))
    assert list(volume.iterdir()) == []


@needs_root
def test_links_are_followed_inside_the_root_filesystem_only(rootfs: Path, volume: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").touch()
    (rootfs / "run").mkdir()
    (rootfs / "run" / "inside").touch()
    (rootfs / "var").symlink_to("/run")
    (rootfs / "out").symlink_to(secret)
    (rootfs / "up").symlink_to("../../../../" + str(secret))
    (rootfs / "loop").symlink_to("loop")
    for target in ("/out", "/up", "/loop", "/../../" + str(secret)):
        asyncio.run(copy_up(rootfs, target, volume))
        assert list(volume.iterdir()) == []
    assert resolve(str(rootfs), "/out/../var/inside") is None
    assert resolve(str(rootfs), "/var/inside") == "run/inside"
    asyncio.run(copy_up(rootfs, "/var", volume))
    assert [path.name for path in volume.iterdir()] == ["inside"]


@needs_root
def test_a_copy_that_fails_leaves_the_volume_empty(rootfs: Path, volume: Path) -> None:
    (rootfs / "d/sub").mkdir(parents=True)
    for number in range(3):
        (rootfs / "d" / f"{number}").write_bytes(b"x" * 300_000)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", volume], check=True)
    try:
        with pytest.raises(Failure, match="No space left on device"):
            asyncio.run(copy_up(rootfs, "/d", volume))
        assert list(volume.iterdir()) == [] and [path.name for path in volume.parent.iterdir()] == ["_data"]
    finally:
        subprocess.run(["umount", volume], check=True)


@needs_root
def test_who_uses_a_volume_sees_it_filled_and_keeps_what_is_his(rootfs: Path, volume: Path) -> None:
    (rootfs / "d").mkdir()
    (rootfs / "d/file").write_text("of the image")
    folder = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    try:
        asyncio.run(copy_up(rootfs, "/d", volume))
        assert [entry.name for entry in os.scandir(folder)] == ["file"]
        Path(f"/proc/self/fd/{folder}/mine").touch()
        assert (volume / "mine").exists()
    finally:
        os.close(folder)


@needs_root
def test_filling_that_was_cut_short_is_finished_by_the_next(rootfs: Path, volume: Path) -> None:
    (rootfs / "d/sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (rootfs / "d" / name).write_text("of the image")
    (volume / "a").write_text("changed since")
    (volume / ".bennu-filling").write_text("of the im")
    volume.with_name(".filling").touch()
    assert needs_filling(volume)
    asyncio.run(copy_up(rootfs, "/d", volume))
    texts = {str(path.relative_to(volume)): path.read_text() for path in volume.rglob("*") if path.is_file()}
    assert texts == {"a": "changed since", "b": "of the image", "sub/c": "of the image"}
    assert not needs_filling(volume)


@needs_root
def test_deep_folders_are_no_problem(rootfs: Path, volume: Path) -> None:
    deep = rootfs / "d"
    for _ in range(600):
        deep = deep / "x"
    subprocess.run(["mkdir", "-p", deep], check=True)
    asyncio.run(copy_up(rootfs, "/d", volume))
    assert (volume / deep.relative_to(rootfs / "d")).is_dir()


# --- as clients see them ----------------------------------------------------------------------------------------


def test_the_shape_is_docker_s() -> None:
    volume = Volume(name="db", mountpoint="/v/db/_data", created_ns=1_790_000_000_123_456_789)
    assert volume_json(volume) == {
        "CreatedAt": "2026-09-21T14:13:20Z",
        "Driver": "local",
        "Labels": None,
        "Mountpoint": "/v/db/_data",
        "Name": "db",
        "Options": None,
        "Scope": "local",
    }


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["cache", "db", "web"]),
        ({"name": ["b"]}, ["db", "web"]),
        ({"name": ["^d", "cache"]}, ["cache", "db"]),
        ({"name": ["("]}, []),
        ({"dangling": ["true"]}, ["cache", "db"]),
        ({"dangling": ["0"]}, ["web"]),
        ({"label": ["a"]}, ["db", "web"]),
        ({"label": ["a=2"]}, ["web"]),
        ({"label": ["a", "b"]}, ["web"]),
        ({"driver": ["local"]}, ["cache", "db", "web"]),
        ({"driver": ["nfs"]}, []),
        ({"name": ["web"], "dangling": ["1"]}, []),
    ],
)
def test_filters(asked: dict[str, list[str]], found: list[str]) -> None:
    labels = {"cache": None, "db": {"a": "1"}, "web": {"a": "2", "b": ""}}
    volumes = [Volume(name=name, mountpoint="", created_ns=0, labels=given) for name, given in labels.items()]
    fits = volume_filter(Filters(asked), lambda volume: volume.name == "web")
    assert [volume.name for volume in volumes if fits(volume)] == found


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"bogus": ["a"]}, "invalid filter 'bogus'"), ({"dangling": ["maybe"]}, "invalid filter 'dangling=")],
)
def test_bad_filters(asked: dict[str, list[str]], words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        volume_filter(Filters(asked), lambda volume: False)
    assert str(caught.value).startswith(words)


async def test_what_was_born_with_a_container_that_never_came_to_be_is_swept(root: Path, store: SqliteStore) -> None:
    volumes = await opened(root, store)
    gone = await volumes.create("", born_with="never")
    kept = await volumes.create("", born_with="alive")
    freed = await volumes.create("", born_with="removed")
    named = await volumes.create("named")
    await store.commit(Transaction(volumes.set_free([freed.name, named.name])))
    again = await opened(root, store)
    await again.sweep({"never", "removed"})
    assert {volume.name for volume in again.list()} == {kept.name, freed.name, named.name}
    assert not Path(gone.mountpoint).exists()
