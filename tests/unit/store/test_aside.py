"""Records that cannot be read are set aside as they are, told with the reason, and tried again at each start."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from bennu.cluster import codec
from bennu.cluster.tables import BlobRow
from bennu.store import Put, SqliteStore, Transaction, aside, open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        await opened.commit(Transaction([Put("n/1", b"1"), Put("n/2", b"two"), Put("n/3", b"3")]))
        yield opened


async def test_one_record_that_cannot_be_read_keeps_no_other_from_being_read(store: SqliteStore) -> None:
    assert await aside.load(store, "n/", int) == [1, 3]
    assert await store.read("n/2") is None
    kept = await store.read("set-aside/n/2")
    assert kept is not None and kept.value == b"two"
    (told,) = await aside.read_aside(store)
    assert str(told).startswith("the record n/2 is set aside: ValueError: invalid literal")
    assert await aside.read_aside(store, "m/") == []


async def test_each_start_tries_again_and_what_was_mended_is_back(store: SqliteStore) -> None:
    await aside.load(store, "n/", int)
    await aside.put_back(store)
    assert await aside.load(store, "n/", int) == [1, 3]
    await store.commit(Transaction([Put("set-aside/n/2", b"2")]))
    await aside.put_back(store)
    assert await aside.load(store, "n/", int) == [1, 2, 3]
    assert await aside.read_aside(store) == []


async def test_what_has_a_newer_record_in_its_place_stays_aside(store: SqliteStore) -> None:
    await aside.load(store, "n/", int)
    await store.commit(Transaction([Put("n/2", b"22")]))
    await aside.put_back(store)
    assert await aside.load(store, "n/", int) == [1, 22, 3]
    assert [one.key for one in await aside.read_aside(store)] == ["n/2"]


@pytest.mark.parametrize("text", [b'{"id":7,"name":"c"}', b'{"id":"c"}', b"[]", b"7", b'{"id":"c","name":["c"]}'])
def test_a_row_of_another_shape_is_no_row(text: bytes) -> None:
    with pytest.raises((TypeError, AttributeError)):
        codec.decode(BlobRow, text)


async def test_a_value_that_the_database_cannot_hold_fails_alone(store: SqliteStore) -> None:
    with pytest.raises(Exception, match="cannot write state"):
        await store.grant(2**70)
    assert await store.commit(Transaction([Put("n/4", b"4")]))
    assert msgspec.json.decode((await store.read_prefix("n/4"))[0].value) == 4
