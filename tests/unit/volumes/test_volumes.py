"""Volumes outlive containers, crashes and half-done work."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from bennu.api.http.query import Filters
from bennu.api.routes.volumes import volume_filter, volume_json
from bennu.errors import Conflict, InvalidParameter, NotFound
from bennu.store import Delete, Put, SqliteStore, Transaction, open_sqlite
from bennu.volumes import Volume, Volumes
from bennu.volumes.mounting import check_options
from support.volume_users import Users


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "volumes"


@pytest.fixture
def users() -> Users:
    return Users()


async def opened(root: Path, store: SqliteStore, users: Users | None = None) -> Volumes:
    volumes = Volumes(root, store, users)
    await volumes.open()
    return volumes


@pytest.fixture
async def volumes(root: Path, store: SqliteStore, users: Users) -> Volumes:
    return await opened(root, store, users)


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


async def test_one_in_use_is_not_removed(volumes: Volumes, users: Users) -> None:
    await volumes.create("db")
    users.of["db"] = ["c1", "c2"]
    with pytest.raises(Conflict) as caught:
        await volumes.remove("db")
    assert str(caught.value) == "remove db: volume is in use - [c1, c2]"
    users.of["db"] = ["c1"]
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


async def test_changes_are_announced_with_their_write(root: Path, store: SqliteStore) -> None:
    told: list[tuple[str, str, str]] = []

    async def commit(write: Put | Delete, action: str, volume: Volume) -> None:
        told.append((type(write).__name__, action, volume.name))
        await store.commit(Transaction([write]))

    volumes = Volumes(root, store, commit=commit)
    await volumes.open()
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
