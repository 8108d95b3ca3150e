"""What the build cache keeps, and what it gives up: records and layers on a real store and real folders."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.build.cache import RECORDS, Cache, CacheRecord
from bennu.build.snapshots import Snapshots, StepSnapshot
from bennu.images.layers import Layers
from bennu.store import Store, open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


class Host:
    """The folders of one host; each `cache` is that of another daemon on it."""

    def __init__(self, root: Path, store: Store) -> None:
        self._store = store
        self.layers = Layers(root / "images")
        self.layers.open()
        self.snapshots = Snapshots(root / "build", self.layers)

    async def cache(self, boot: str = "now") -> Cache:
        cache = Cache(self._store, self.snapshots, self.layers, boot)
        await cache.read()
        await cache.open()
        return cache

    async def add(self, cache: Cache, key: str, below: StepSnapshot) -> CacheRecord:
        async with self.snapshots.work() as work:
            (work / "diff").mkdir()
            (work / "diff" / key).write_text(key)
            layer = await self.snapshots.keep(work)
        record = CacheRecord(id=layer, key=key, layers=[*below.layers, layer])
        await cache.add(record)
        return record


@pytest.fixture
def host(tmp_path: Path, store: Store) -> Host:
    return Host(tmp_path, store)


async def test_a_daemon_that_was_killed_finds_whole_records_and_nothing_else(host: Host, store: Store) -> None:
    cache = await host.cache()
    one = await host.add(cache, "one", StepSnapshot())
    two = await host.add(cache, "two", one.snapshot)
    lost = await host.add(cache, "lost", two.snapshot)
    (host.snapshots.path(lost.id) / "diff").rename(host.snapshots.path(lost.id) / "damaged")
    async with host.snapshots.work() as work:  # kept, and killed before the record
        (work / "diff").mkdir()
        orphan = await host.snapshots.keep(work)
        (work / "half").mkdir()
        cache = await host.cache()
    assert [cache.find(key) is not None for key in ("one", "two", "lost")] == [True, True, False]
    assert set(host.snapshots.names()) == {one.id, two.id} and orphan not in host.snapshots.names()
    assert {entry.key.removeprefix(RECORDS) for entry in await store.read_prefix(RECORDS)} == {one.id, two.id}
    assert not list((host.snapshots.path(one.id).parents[1] / "work").iterdir())


async def test_a_record_goes_with_a_layer_below_it(host: Host) -> None:
    cache = await host.cache()
    one = await host.add(cache, "one", StepSnapshot())
    await host.add(cache, "two", one.snapshot)
    await host.snapshots.remove([one.id])
    cache = await host.cache()
    assert cache.find("two") is None and host.snapshots.names() == []


async def test_what_a_power_failure_may_have_taken_is_given_up(host: Host) -> None:
    cache = await host.cache("first boot")
    await host.add(cache, "written", StepSnapshot())
    await cache.flush()
    await host.add(cache, "perhaps", StepSnapshot())
    cache = await host.cache("second boot")
    assert cache.find("written") is not None and cache.find("perhaps") is None


async def test_nothing_is_removed_that_a_build_or_another_record_needs(host: Host) -> None:
    cache = await host.cache()
    one = await host.add(cache, "one", StepSnapshot())
    two = await host.add(cache, "two", one.snapshot)
    assert await cache.remove([one.id]) == []
    with cache.holding() as hold:
        hold(two.layers)
        assert await cache.remove([one.id, two.id]) == []
    assert set(await cache.remove([one.id, two.id])) == {one.id, two.id}
    assert host.snapshots.names() == [] and cache.find("one") is None
