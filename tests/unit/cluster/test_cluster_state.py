"""The cluster's state follows the store, whoever writes; the manager judges nodes by their leases."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.cluster import codec
from bennu.cluster.manager import Manager
from bennu.cluster.state import Change, Changed, ClusterState, open_state
from bennu.cluster.tables import BlobRow, NodeRow
from bennu.engine.events import Journal
from bennu.orchestration.model.nouns import Node, NodeId
from bennu.orchestration.model.states import NodeState
from bennu.store import Put, SqliteStore, Transaction, open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
async def state(store: SqliteStore) -> AsyncIterator[ClusterState]:
    journal = Journal(store)
    await journal.open()
    async with open_state(store, journal) as opened:
        yield opened


def a_config(name: str, size: int = 0) -> BlobRow:
    return BlobRow(id=name, name=name, data="x" * size)


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_what_was_committed_is_seen_and_told_before_the_commit_returns(state: ClusterState) -> None:
    told: list[Changed] = []
    state.watchers.append(told.extend)
    change = Change()
    change.put(state.configs, a_config("c"))
    async with state.lock:
        index = await state.commit(change)
    row = state.configs.rows["c"]
    assert row.index == index > 0
    assert row.created_ns == row.updated_ns > 0
    assert told == [Changed("configs", "c", None, row)]


async def test_what_another_wrote_is_seen_and_told_as_well(state: ClusterState, store: SqliteStore) -> None:
    told: list[Changed] = []
    state.watchers.append(told.extend)
    revision = await store.commit(Transaction([Put(state.configs.key("c"), codec.encode(a_config("c")))]))
    await until(lambda: told)
    assert state.configs.rows["c"].index == revision


async def test_a_commit_that_leaves_nothing_behind_returns(state: ClusterState) -> None:
    change = Change()
    change.put(state.configs, a_config("c"))
    change.delete(state.configs, "c")
    async with asyncio.timeout(5), state.lock:
        assert await state.commit(change) == 0


async def test_a_watcher_that_fails_keeps_nobody_from_writing(state: ClusterState) -> None:
    def fail(told: list[Changed]) -> None:
        raise ZeroDivisionError

    told: list[Changed] = []
    state.watchers += [fail, told.extend]
    change = Change()
    change.put(state.configs, a_config("c"))
    async with asyncio.timeout(5), state.lock:
        await state.commit(change)
    assert told


async def test_a_state_that_fell_behind_the_store_catches_up(state: ClusterState, store: SqliteStore) -> None:
    change = Change()
    for name in ("gone", "kept"):
        change.put(state.configs, a_config(name))
    async with state.lock:
        await state.commit(change)
    told: list[Changed] = []
    state.watchers.append(told.extend)
    writes = [
        Transaction([Put(state.configs.key(f"c{n}"), codec.encode(a_config(f"c{n}", 1 << 20)))]) for n in range(9)
    ]
    rewrite = Change()
    rewrite.delete(state.configs, "gone")
    commits = [asyncio.ensure_future(store.commit(write)) for write in writes]
    async with state.lock:
        last = asyncio.ensure_future(state.commit(rewrite))
        await asyncio.sleep(0)
        time.sleep(0.5)  # the loop stands still while the writer writes more than is kept
        await asyncio.gather(last, *commits)
    assert sorted(state.configs.rows) == [*(f"c{n}" for n in range(9)), "kept"]
    assert sorted(item.row_id for item in told) == sorted([*(f"c{n}" for n in range(9)), "gone"])


async def test_a_node_is_down_when_its_lease_ends_and_up_when_it_has_one_again(
    state: ClusterState, store: SqliteStore
) -> None:
    lease = await state.hold_alive("n", 10**12)
    change = Change()
    change.put(state.nodes, NodeRow(id="n", node=Node(id=NodeId("n"))))
    async with state.lock:
        await state.commit(change)
    manager = Manager(state)
    managing = asyncio.create_task(manager.run())
    try:
        await asyncio.sleep(0.05)
        assert state.nodes.rows["n"].node.state is NodeState.READY
        await store.revoke(lease)
        await until(lambda: state.nodes.rows["n"].node.state is NodeState.DOWN)
        assert state.nodes.rows["n"].node.message == "heartbeat failure"
        await state.hold_alive("n", 10**12)
        await until(lambda: state.nodes.rows["n"].node.state is NodeState.READY)
    finally:
        managing.cancel()
        manager.close()
