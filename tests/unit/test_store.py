"""The store's contract; the same suite will serve every implementation."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.errors import Unavailable
from bennu.store import Compare, CompareFailed, Delete, Put, SqliteStore, Transaction, open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


async def test_what_was_put_is_read_with_the_revision_of_its_last_change(store: SqliteStore) -> None:
    first = await store.commit(Transaction([Put("a", b"1"), Put("b", b"1")]))
    second = await store.commit(Transaction([Put("a", b"2")]))
    a, b = await store.read("a"), await store.read("b")
    assert a and (a.value, a.revision) == (b"2", second)
    assert b and (b.value, b.revision) == (b"1", first)
    assert second == first + 1


async def test_a_prefix_is_read_in_order_of_its_keys_and_can_be_paged(store: SqliteStore) -> None:
    await store.commit(Transaction([Put(f"x/{number}", b"") for number in (3, 1, 2)] + [Put("y", b""), Put("w", b"")]))
    assert [entry.key for entry in await store.read_prefix("x/")] == ["x/1", "x/2", "x/3"]
    assert [entry.key for entry in await store.read_prefix("x/", after="x/1", limit=1)] == ["x/2"]
    assert await store.count_prefix("x/") == 3


async def test_a_failed_compare_writes_nothing(store: SqliteStore) -> None:
    revision = await store.commit(Transaction([Put("a", b"1")]))
    with pytest.raises(CompareFailed):
        await store.commit(Transaction([Put("a", b"2"), Put("b", b"2")], [Compare("a", revision - 1)]))
    assert await store.read("b") is None
    await store.commit(Transaction([Put("a", b"3")], [Compare("a", revision), Compare("new", 0)]))
    entry = await store.read("a")
    assert entry and entry.value == b"3"


async def test_of_many_who_create_the_same_key_at_once_one_succeeds(store: SqliteStore) -> None:
    create = [store.commit(Transaction([Put("one", str(n).encode())], [Compare("one", 0)])) for n in range(50)]
    outcomes = await asyncio.gather(*create, return_exceptions=True)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, CompareFailed) for outcome in outcomes) == 49


async def test_deleting_an_absent_key_is_no_error(store: SqliteStore) -> None:
    await store.commit(Transaction([Delete("nothing")]))
    assert await store.read("nothing") is None


async def test_state_survives_closing(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "state.db") as store:
        revision = await store.commit(Transaction([Put("a", b"1")]))
    async with open_sqlite(tmp_path / "state.db") as store:
        entry = await store.read("a")
        assert entry and entry.revision == revision
        assert await store.commit(Transaction([Put("b", b"")])) == revision + 1


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


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_full_disk_refuses_with_the_reason_and_keeps_the_earlier_state(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], check=True)
    try:
        async with open_sqlite(disk / "state.db") as store:
            await store.commit(Transaction([Put("a", b"kept")]))
            with pytest.raises(Unavailable, match=r"cannot write state: .*full"):
                await store.commit(Transaction([Put("b", b"x" * 2_000_000)]))
            entry = await store.read("a")
            assert entry and entry.value == b"kept"
            assert await store.read("b") is None
            await store.commit(Transaction([Put("c", b"small")]))
    finally:
        subprocess.run(["umount", disk], check=True)
