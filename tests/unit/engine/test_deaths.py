"""The register of deaths keeps what it promises, and no more."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.engine.deaths import KEEP_REMOVED, KEEP_REMOVED_NS, Deaths
from bennu.lifecycle.death import Cause, Certificate
from bennu.store import SqliteStore, Transaction, open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


def certificate(container_id: str, life: int, finished_at_ns: int) -> Certificate:
    return Certificate(
        container_id=container_id,
        name=container_id,
        image="busybox",
        life=life,
        started_at_ns=finished_at_ns - 1,
        finished_at_ns=finished_at_ns,
        cause=Cause.EXITED,
        exit_code=life % 256,
        meaning="",
    )


async def fill(store: SqliteStore, deaths: Deaths, container_id: str, count: int, first_ns: int) -> None:
    puts = [
        put for life in range(1, count + 1) for put in deaths.puts(certificate(container_id, life, first_ns + life))
    ]
    await store.commit(Transaction(puts))


async def test_a_certificate_is_read_as_it_was_written(store: SqliteStore) -> None:
    deaths = Deaths(store)
    await fill(store, deaths, "a", 1, time.time_ns())
    [found] = await deaths.of("a")
    written = certificate("a", 1, found.finished_at_ns)
    assert (found.name, found.life, found.cause, found.asked_by) == ("a", 1, written.cause, written.asked_by)
    assert found.lived_ns == written.lived_ns


async def test_of_a_living_container_the_last_lives_are_kept(store: SqliteStore) -> None:
    deaths = Deaths(store, keep_lives=10)
    await fill(store, deaths, "a", 25, 10**18)
    await deaths.prune({"a"})
    assert [one.life for one in await deaths.of("a")] == list(range(16, 26))


async def test_of_removed_containers_a_week_or_a_thousand_are_kept(store: SqliteStore) -> None:
    deaths = Deaths(store, keep_lives=10)
    now = time.time_ns()
    await fill(store, deaths, "old", 5, now - KEEP_REMOVED_NS - 10**9)
    await fill(store, deaths, "crowd", KEEP_REMOVED + 7, now)
    await deaths.prune(set())
    assert await deaths.of("old") == []
    assert len(await deaths.of("crowd")) == KEEP_REMOVED


async def test_since_reaches_all_containers_in_order(store: SqliteStore) -> None:
    deaths = Deaths(store)
    await fill(store, deaths, "b", 2, 2000)
    await fill(store, deaths, "a", 2, 1000)
    assert [one.name async for one in deaths.since(1002)] == ["a", "b", "b"]


async def test_a_removed_container_is_found_by_its_last_name_or_its_id(store: SqliteStore) -> None:
    deaths = Deaths(store)
    await fill(store, deaths, "web", 2, 1000)
    await fill(store, deaths, "webster", 2, 2000)
    assert await deaths.find_removed("/web") == "web"
    assert await deaths.find_removed("webs") == "webster"
    assert await deaths.find_removed("nobody") is None


async def test_what_is_pruned_is_gone_from_the_index_too(store: SqliteStore) -> None:
    deaths = Deaths(store, keep_lives=1)
    await fill(store, deaths, "a", 3, 1000)
    await deaths.prune({"a"})
    assert len(await store.read_prefix("")) == 2
    assert [one.life async for one in deaths.since(0)] == [3]
