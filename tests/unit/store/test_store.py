"""The store's contract: the same suite serves every implementation."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import pytest

from bennu.store import (
    Changes,
    Compacted,
    Compare,
    CompareFailed,
    Delete,
    LeaseLost,
    Put,
    SqliteStore,
    Store,
    Transaction,
    open_sqlite,
)

Opener = Callable[[], AbstractAsyncContextManager[Store]]
OPENERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]] = {
    "sqlite": lambda folder: open_sqlite(folder / "state.db"),
}
MS = 10**6


@pytest.fixture(params=OPENERS)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the one store of this test, again and again."""
    return lambda: OPENERS[request.param](tmp_path)


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[Store]:
    async with opener() as opened:
        yield opened


async def put(store: Store, *keys: str) -> int:
    return await store.commit(Transaction([Put(key, key.encode()) for key in keys]))


async def told(store: Store, prefix: str, after: int, count: int) -> list[Changes]:
    """The next `count` messages of a watch."""
    found: list[Changes] = []
    async with asyncio.timeout(10), aclosing(store.watch(prefix, after=after)) as watch:
        async for changes in watch:
            found.append(changes)
            if len(found) == count:
                return found
    raise AssertionError("a watch has no end")


async def test_what_was_put_is_read_with_the_revision_of_its_last_change(store: Store) -> None:
    first = await store.commit(Transaction([Put("a", b"1"), Put("b", b"1")]))
    second = await store.commit(Transaction([Put("a", b"2")]))
    a, b = await store.read("a"), await store.read("b")
    assert a and (a.value, a.revision) == (b"2", second)
    assert b and (b.value, b.revision) == (b"1", first)
    assert second == first + 1


async def test_a_prefix_is_read_in_order_of_its_keys_and_can_be_paged(store: Store) -> None:
    await store.commit(Transaction([Put(f"x/{number}", b"") for number in (3, 1, 2)] + [Put("y", b""), Put("w", b"")]))
    assert [entry.key for entry in await store.read_prefix("x/")] == ["x/1", "x/2", "x/3"]
    assert [entry.key for entry in await store.read_prefix("x/", after="x/1", limit=1)] == ["x/2"]
    assert await store.count_prefix("x/") == 3


async def test_a_failed_compare_writes_nothing(store: Store) -> None:
    revision = await store.commit(Transaction([Put("a", b"1")]))
    with pytest.raises(CompareFailed):
        await store.commit(Transaction([Put("a", b"2"), Put("b", b"2")], [Compare("a", revision - 1)]))
    assert await store.read("b") is None
    await store.commit(Transaction([Put("a", b"3")], [Compare("a", revision), Compare("new", 0)]))
    entry = await store.read("a")
    assert entry and entry.value == b"3"


async def test_of_many_who_create_the_same_key_at_once_one_succeeds(store: Store) -> None:
    create = [store.commit(Transaction([Put("one", str(n).encode())], [Compare("one", 0)])) for n in range(50)]
    outcomes = await asyncio.gather(*create, return_exceptions=True)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, CompareFailed) for outcome in outcomes) == 49


async def test_deleting_an_absent_key_is_no_error(store: Store) -> None:
    await store.commit(Transaction([Delete("nothing")]))
    assert await store.read("nothing") is None


async def test_state_survives_closing(opener: Opener) -> None:
    async with opener() as store:
        revision = await put(store, "a")
    async with opener() as store:
        entry = await store.read("a")
        assert entry and entry.revision == revision
        assert await put(store, "b") == revision + 1


# -- watches


async def test_a_watch_tells_later_transactions_whole_in_order_and_only_of_its_prefix(store: Store) -> None:
    await put(store, "x/before")
    start = (await store.snapshot("x/")).revision
    first = await put(store, "x/1", "y/1", "x/2")
    await put(store, "y/2")
    second = await store.commit(Transaction([Delete("x/1"), Put("x/2", b"new")]))
    assert await told(store, "x/", start, 2) == [
        Changes(first, {"x/1": b"x/1", "x/2": b"x/2"}),
        Changes(second, {"x/1": None, "x/2": b"new"}),
    ]


async def test_a_watch_waits_for_what_comes(store: Store) -> None:
    waiting = asyncio.create_task(told(store, "x/", (await store.snapshot("x/")).revision, 1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await put(store, "y")
    revision = await put(store, "x/1")
    assert await waiting == [Changes(revision, {"x/1": b"x/1"})]


async def test_what_changed_nothing_is_not_told(store: Store) -> None:
    start = (await store.snapshot("x/")).revision
    await store.commit(Transaction([Delete("x/absent")]))
    with pytest.raises(CompareFailed):
        await store.commit(Transaction([Put("x/refused", b"")], [Compare("x/absent", 7)]))
    last = await put(store, "x/last")
    assert await told(store, "x/", start, 1) == [Changes(last, {"x/last": b"x/last"})]


@pytest.mark.parametrize("rests_every", [1, 3, 50])
async def test_a_watch_that_is_resumed_misses_nothing_and_hears_nothing_twice(store: Store, rests_every: int) -> None:
    start = (await store.snapshot("n/")).revision

    async def write(writer: int) -> None:
        for number in range(50):
            await put(store, f"n/{writer}-{number:02d}")

    async def hear() -> list[Changes]:
        heard: list[Changes] = []
        while len(heard) < 200:
            after = heard[-1].revision if heard else start
            heard += await told(store, "n/", after, min(rests_every, 200 - len(heard)))
        return heard

    heard, *_ = await asyncio.gather(hear(), *(write(writer) for writer in range(4)))
    revisions = [changes.revision for changes in heard]
    assert revisions == sorted(set(revisions))
    keys = [key for changes in heard for key in changes.values]
    assert sorted(keys) == sorted(f"n/{writer}-{number:02d}" for writer in range(4) for number in range(50))
    for writer in range(4):  # each writer's own order
        assert [key for key in keys if key.startswith(f"n/{writer}")] == [f"n/{writer}-{n:02d}" for n in range(50)]


async def test_a_snapshot_and_the_watch_from_it_are_the_whole_state(store: Store) -> None:
    async def write() -> None:
        for number in range(120):
            key = f"s/{number % 7}"
            await store.commit(Transaction([Delete(key)] if number % 5 == 0 else [Put(key, str(number).encode())]))

    async def mirror() -> dict[str, bytes]:
        snapshot = await store.snapshot("s/")
        state = {entry.key: entry.value for entry in snapshot.entries}
        async with aclosing(store.watch("s/", after=snapshot.revision)) as watch:
            async for changes in watch:
                for key, value in changes.values.items():
                    if key == "s/end":
                        return state
                    if value is None:
                        state.pop(key)  # it was there: nothing is told of an absent key
                    else:
                        state[key] = value
        raise AssertionError("a watch has no end")

    writing = asyncio.create_task(write())
    mirrors = []
    for _ in range(10):
        mirrors.append(asyncio.create_task(mirror()))
        await asyncio.sleep(0.002)
    await writing
    await put(store, "s/end")
    there = {entry.key: entry.value for entry in await store.read_prefix("s/") if entry.key != "s/end"}
    assert all(state == there for state in await asyncio.gather(*mirrors))


@pytest.mark.slow
async def test_a_watch_from_too_long_ago_is_told_so_and_the_newest_are_kept(store: Store) -> None:
    first = await put(store, "a")
    for _ in range(300):
        await asyncio.gather(*(put(store, "a") for _ in range(10)))
    with pytest.raises(Compacted):
        await told(store, "a", first, 1)
    last = await put(store, "a")
    assert [changes.revision for changes in await told(store, "a", last - 100, 100)] == list(range(last - 99, last + 1))


async def test_large_values_do_not_pile_up_behind_a_slow_watch(store: Store) -> None:
    first = await put(store, "a")
    for _ in range(8):
        await store.commit(Transaction([Put("big", bytes(1_000_000))]))
    with pytest.raises(Compacted):
        await told(store, "big", first, 1)


async def test_a_watch_over_a_restart_misses_nothing_or_is_told_so(opener: Opener) -> None:
    async with opener() as store:
        first = await put(store, "a")
        second = await put(store, "a")
    async with opener() as store:
        try:
            assert (await told(store, "a", first, 1))[0].revision == second
        except Compacted:
            third = await put(store, "a")
            assert (await told(store, "a", second, 1))[0].revision == third


# -- leases


async def test_what_hangs_on_a_lease_vanishes_with_it_and_watches_are_told(store: Store) -> None:
    lease = await store.grant(80 * MS)
    await store.commit(Transaction([Put("l/1", b"", lease), Put("l/2", b"", lease), Put("l/stays", b"")]))
    start = (await store.snapshot("l/")).revision
    (ended,) = await told(store, "l/", start, 1)
    assert ended.values == {"l/1": None, "l/2": None}
    assert [entry.key for entry in await store.read_prefix("l/")] == ["l/stays"]
    with pytest.raises(LeaseLost):
        store.keep_alive(lease)


@pytest.mark.slow
async def test_signs_of_life_keep_a_lease_and_cost_no_write(store: Store) -> None:
    lease = await store.grant(400 * MS)
    revision = await store.commit(Transaction([Put("l", b"", lease)]))
    for _ in range(12):
        store.keep_alive(lease)
        await asyncio.sleep(0.05)
    snapshot = await store.snapshot("l")
    assert (snapshot.revision, [entry.key for entry in snapshot.entries]) == (revision, ["l"])
    await told(store, "l", revision, 1)
    assert await store.read("l") is None


async def test_a_revoked_lease_takes_its_keys_at_once(store: Store) -> None:
    lease, other = await store.grant(10**12), await store.grant(10**12)
    await store.commit(Transaction([Put("a", b"", lease), Put("b", b"", other)]))
    await store.revoke(lease)
    assert await store.read("a") is None
    assert await store.read("b") is not None
    with pytest.raises(LeaseLost):
        await store.revoke(lease)


async def test_the_last_put_says_what_a_key_hangs_on(store: Store) -> None:
    lease, other = await store.grant(10**12), await store.grant(10**12)
    await store.commit(Transaction([Put("kept", b"", lease), Put("moved", b"", lease)]))
    await store.commit(Transaction([Put("kept", b""), Put("moved", b"", other)]))
    await store.revoke(lease)
    assert [entry.key for entry in await store.read_prefix("")] == ["kept", "moved"]
    await store.revoke(other)
    assert [entry.key for entry in await store.read_prefix("")] == ["kept"]


async def test_nothing_is_written_under_a_lease_that_has_ended(store: Store) -> None:
    lease = await store.grant(10**12)
    await store.revoke(lease)
    with pytest.raises(LeaseLost):
        await store.commit(Transaction([Put("free", b""), Put("hung", b"", lease)]))
    assert await store.read_prefix("") == []


@pytest.mark.slow
async def test_a_lease_outlives_a_restart_and_has_its_whole_time_again(opener: Opener) -> None:
    async with opener() as store:
        lease = await store.grant(300 * MS)
        await store.commit(Transaction([Put("l", b"", lease)]))
    await asyncio.sleep(0.4)
    async with opener() as store:
        assert await store.read("l") is not None
        store.keep_alive(lease)
        await told(store, "l", (await store.snapshot("l")).revision, 1)
        assert await store.read("l") is None


FROZEN = """
import asyncio, sys
from pathlib import Path
from bennu.store import Put, Transaction, open_sqlite
async def main():
    async with open_sqlite(Path(sys.argv[1])) as store:
        lease = await store.grant(600_000_000)
        await store.commit(Transaction([Put("alive", b"", lease)]))
        print("ready", flush=True)
        for _ in range(40):
            await asyncio.sleep(0.1)
            store.keep_alive(lease)
        print(await store.read("alive") is not None, flush=True)
asyncio.run(main())
"""


@pytest.mark.slow
def test_a_store_that_stood_still_does_not_judge_the_silence(tmp_path: Path) -> None:
    keeper = subprocess.Popen([sys.executable, "-c", FROZEN, str(tmp_path / "state.db")], stdout=subprocess.PIPE)
    assert keeper.stdout and keeper.stdout.readline() == b"ready\n"
    os.kill(keeper.pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(keeper.pid, signal.SIGCONT)
    assert keeper.stdout.read() == b"True\n"
    assert keeper.wait() == 0


# -- the disk


async def test_a_file_from_before_leases_is_read(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "state.db")
    old.executescript("""
        CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO kv VALUES ('a', x'31', 1);
        CREATE TABLE meta (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO meta VALUES ('revision', 1);
    """)
    old.close()
    async with open_sqlite(tmp_path / "state.db") as store:
        entry = await store.read("a")
        assert entry and (entry.value, entry.revision) == (b"1", 1)
        await store.commit(Transaction([Put("b", b"", await store.grant(10**12))]))


WRITER = """
import asyncio, sys
from pathlib import Path
from bennu.store import Put, Transaction, open_sqlite
async def main():
    async with open_sqlite(Path(sys.argv[1])) as store:
        for number in range(10**9):
            await store.commit(Transaction([Put(f"n/{number:09d}", b"x" * 500), Put("last", str(number).encode())]))
            print(number, flush=True)
asyncio.run(main())
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout
        acknowledged = -1
        for line in writer.stdout:
            acknowledged = int(line)
            if acknowledged >= 40:
                break
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in writer.stdout.read().splitlines())])
        writer.wait()
        store = SqliteStore(path)
        last = store._select("WHERE key = ?", ("last",))
        assert int(last[0].value) >= acknowledged
        store.close()


async def test_it_is_read_while_every_thread_of_the_daemon_waits_for_something_else(tmp_path: Path) -> None:
    waiting = threading.Event()
    threads = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(threads)
    async with open_sqlite(tmp_path / "state.db") as store:
        await store.commit(Transaction([Put("a", b"1")]))
        blocked = asyncio.ensure_future(asyncio.to_thread(waiting.wait))
        try:
            async with asyncio.timeout(5):
                entry = await store.read("a")
                assert entry is not None and entry.value == b"1"
                assert (await store.snapshot("")).revision == entry.revision
                assert await store.count_prefix("") == 1
        finally:
            waiting.set()
            await blocked
