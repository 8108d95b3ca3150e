"""Events are durable, ordered, and none is lost on a reader that falls behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.engine.events import PRUNE_EVERY, RECENT, Event, Journal, event
from bennu.errors import Unavailable
from bennu.store import Put, SqliteStore, open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


async def opened_journal(store: SqliteStore) -> Journal:
    journal = Journal(store)
    await journal.open()
    return journal


async def collect(events: AsyncIterator[Event], count: int) -> list[str]:
    actions = []
    async with asyncio.timeout(20):
        async for item in events:
            actions.append(item.action)
            if len(actions) == count:
                break
    return actions


async def test_a_change_and_its_event_are_one_transaction(store: SqliteStore) -> None:
    journal = await opened_journal(store)
    before = time.time_ns()
    await journal.commit([Put("containers/a", b"changed")], [event("container", "start", "a", {"name": "n"})])
    changed = await store.read("containers/a")
    [stored] = await store.read_prefix("events/")
    assert changed and changed.revision == stored.revision
    [shown] = [item async for item in journal.follow(before, time.time_ns())]
    assert shown.actor.attributes == {"name": "n"}
    assert shown.time == shown.time_nano // 10**9


async def test_since_reaches_back_over_a_restart_of_the_daemon(store: SqliteStore) -> None:
    start = time.time_ns()
    await (await opened_journal(store)).publish("container", "die", "a", {})
    after_restart = await opened_journal(store)
    await after_restart.publish("container", "start", "a", {})
    assert await collect(after_restart.follow(start, None), 2) == ["die", "start"]


async def test_without_since_only_what_comes_is_shown(store: SqliteStore) -> None:
    journal = await opened_journal(store)
    await journal.publish("container", "old", "a", {})
    reading = asyncio.ensure_future(collect(journal.follow(None, None), 1))
    await asyncio.sleep(0)
    await journal.publish("container", "new", "a", {})
    assert await reading == ["new"]


async def test_until_alone_replays_all_and_ends(store: SqliteStore) -> None:
    journal = await opened_journal(store)
    for number in range(3):
        await journal.publish("container", str(number), "a", {})
    until = time.time_ns() + 50_000_000
    assert [item.action async for item in journal.follow(None, until)] == ["0", "1", "2"]


@pytest.mark.slow
async def test_a_reader_that_falls_behind_memory_reads_on_from_disk(store: SqliteStore) -> None:
    journal = await opened_journal(store)
    reader = journal.follow(time.time_ns(), None)
    await journal.publish("container", "first", "a", {})
    assert (await anext(reader)).action == "first"
    total = RECENT + 700
    await asyncio.gather(*(journal.publish("container", str(number), "a", {}) for number in range(total)))
    assert await collect(reader, total) == [str(number) for number in range(total)]


@pytest.mark.slow
async def test_a_reader_behind_all_that_is_kept_is_told_so_and_not_led_past_it(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bennu.engine.events.KEEP_EVENTS", 100)
    monkeypatch.setattr("bennu.engine.events.RECENT", 100)
    journal = await opened_journal(store)
    start = time.time_ns()
    slow = journal.follow(start, None)
    await journal.publish("container", "first", "a", {})
    assert (await anext(slow)).action == "first"
    for _ in range(2):
        await asyncio.gather(*(journal.publish("container", "more", "a", {}) for _ in range(PRUNE_EVERY)))
    with pytest.raises(Unavailable, match="not kept any more"):
        await collect(slow, 2 * PRUNE_EVERY)
    late = await collect(journal.follow(start, None), 100)
    assert set(late) == {"more"}, "one that only begins is shown what there is"


async def test_stamps_grow_even_when_the_clock_was_set_back(store: SqliteStore) -> None:
    journal = await opened_journal(store)
    journal._last_ns = time.time_ns() + 10**12
    await journal.publish("container", "a", "x", {})
    await journal.publish("container", "b", "x", {})
    first, second = await store.read_prefix("events/")
    assert first.key < second.key


async def test_what_is_only_told_is_shown_in_its_order_and_never_written(store: SqliteStore) -> None:
    journal = await opened_journal(store)
    start = time.time_ns()
    reading = asyncio.ensure_future(collect(journal.follow(start, None), 4))
    writing = asyncio.ensure_future(journal.publish("container", "written first", "a", {}))
    await asyncio.sleep(0)  # it has its stamp, and waits for the disk
    journal.publish_transient([event("container", "told", "a", {}), event("container", "told too", "a", {})])
    assert journal._unshown, "what was told overtook what is being written"
    await writing
    journal.publish_transient([event("container", "told last", "a", {})])
    assert await reading == ["written first", "told", "told too", "told last"]
    await journal.publish("container", "written last", "a", {})
    for since in (1, start):  # from the disk's oldest on, or from memory alone
        assert await collect(journal.follow(since, None), 4) == ["written first", "told", "told too", "told last"]
    assert await collect(journal.follow(1, None), 5) == [
        *("written first", "told", "told too", "told last", "written last"),
    ]
    assert len(await store.read_prefix("events/")) == 2
    assert await collect((await opened_journal(store)).follow(1, None), 2) == ["written first", "written last"]


async def test_an_event_that_could_not_be_written_holds_up_none(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "state.db") as store:
        journal = await opened_journal(store)
        start = time.time_ns()
        store._writer.execute("PRAGMA query_only = 1")
        with pytest.raises(Unavailable):
            await journal.publish("container", "lost", "a", {})
        journal.publish_transient([event("container", "told", "a", {})])
        assert await collect(journal.follow(start, None), 1) == ["told"]
