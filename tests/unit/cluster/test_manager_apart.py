"""One service's trouble is its own, and a great number of tasks is made in portions, with turns for others between."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.cluster import thinking
from bennu.cluster.limits import check_size
from bennu.cluster.manager import Manager
from bennu.cluster.state import Change, Changed, ClusterState, open_state
from bennu.cluster.tables import NodeRow, ServiceRow
from bennu.cluster.thinking import Thinking, TooLong
from bennu.cluster.troubles import FIRST_NS, MOST_NS, Troubles
from bennu.engine.events import Journal
from bennu.errors import BennuError, InvalidParameter, Unavailable
from bennu.orchestration.model.nouns import Node, NodeId, NodeResources, ServiceId
from bennu.orchestration.model.revisions import create_service
from bennu.orchestration.model.spec import Placement, Replicated, ServiceSpec, TaskSpec
from bennu.orchestration.model.states import NodeState, TaskState
from bennu.orchestration.round import FULL
from bennu.store import open_sqlite

MANY = 3_000
LONGEST_TURN_S = 0.5  # of the processor; all of it in one piece takes several times as long
TEMPLATE = b'{"ContainerSpec":{"Image":"nothing"}}'


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[ClusterState]:
    async with open_sqlite(tmp_path / "state.db") as store:
        journal = Journal(store)
        await journal.open()
        async with open_state(store, journal) as opened:
            yield opened


@contextlib.asynccontextmanager
async def managed(state: ClusterState) -> AsyncIterator[Manager]:
    node = Node(id=NodeId("n"), state=NodeState.READY, resources=NodeResources(10**12, 10**12))
    change = Change()
    change.put(state.nodes, NodeRow(id="n", node=node))
    async with state.lock:
        await state.commit(change)
    await state.hold_alive("n", 10**12)
    manager = Manager(state)
    managing = asyncio.create_task(manager.run())
    try:
        yield manager
    finally:
        managing.cancel()
        manager.close()


async def put(state: ClusterState, name: str, replicas: int, *constraints: str) -> None:
    task = TaskSpec(container=TEMPLATE, placement=Placement(constraints=constraints))
    service = create_service(ServiceId(name), ServiceSpec(name, Replicated(replicas), task), now_ns=1)
    change = Change()
    change.put(state.services, ServiceRow(id=name, service=service))
    async with state.lock:
        await state.commit(change)


async def until(condition: object, limit_s: float = 30) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


def assigned(state: ClusterState, name: str) -> int:
    return sum(row.task.state is TaskState.ASSIGNED for row in state.tasks_of(name))


async def test_a_service_on_which_the_core_fails_is_let_alone_and_says_so_while_others_are_managed(
    state: ClusterState,
) -> None:
    async with managed(state) as manager:
        await put(state, "bad", 2, "this is no constraint")
        await until(lambda: manager.waits.get("bad"))
        await put(state, "good", 3)
        await until(lambda: assigned(state, "good") == 3)
        (wait,) = manager.waits["bad"]
        assert wait.subject == "service"
        assert "nothing can be decided about it: BadConstraint: constraint expected one operator" in wait.reason
        assert state.tasks_of("bad") == []
        await put(state, "bad", 2, "node.id==n")
        await until(lambda: assigned(state, "bad") == 2)
        assert not [wait for wait in manager.waits["bad"] if wait.subject == "service"]


async def test_what_could_not_be_written_about_a_node_is_decided_again(
    state: ClusterState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bennu.cluster.manager.RETRY_S", 0.01)
    change = Change()
    change.put(state.nodes, NodeRow(id="n", node=Node(id=NodeId("n"), state=NodeState.DOWN)))
    await state.commit(change)
    await state.hold_alive("n", 10**12)
    commit, refusals = state.commit, [Unavailable("the disk is full")]

    async def full_once(change: Change) -> int:
        if refusals:
            raise refusals.pop()
        return await commit(change)

    monkeypatch.setattr(state, "commit", full_once)
    manager = Manager(state)
    managing = asyncio.create_task(manager.run())
    try:
        await until(lambda: state.nodes.rows["n"].node.state is NodeState.READY, 10)
    finally:
        managing.cancel()
        manager.close()
    assert not refusals


async def test_a_great_number_of_tasks_is_made_in_portions_between_which_others_have_their_turn(
    state: ClusterState,
) -> None:
    sizes: list[int] = []
    state.watchers.append(lambda told: sizes.append(len([one for one in told if one.table == "tasks"])))
    async with managed(state):
        await put(state, "many", MANY, "node.id==elsewhere")
        longest, last = 0.0, time.thread_time()
        while not any(row.task.status.err for row in state.tasks_of("many")) or len(state.tasks_of("many")) < MANY:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            longest, last = max(longest, now - last), now
        await put(state, "late", 1)
        await until(lambda: assigned(state, "late") == 1)
    assert max(sizes) <= FULL + 1
    assert longest < LONGEST_TURN_S


async def test_a_small_service_does_not_wait_for_the_end_of_a_great_one(state: ClusterState) -> None:
    order: list[str] = []

    def note(told: list[Changed]) -> None:
        order.extend(item.after.task.service_id for item in told if item.table == "tasks" and item.after)  # type: ignore[attr-defined]

    state.watchers.append(note)
    await put(state, "great", MANY)
    await put(state, "small", 1)
    async with managed(state):
        await until(lambda: assigned(state, "great") == MANY)
    assert order.index("small") < 2 * FULL


async def test_a_decision_that_does_not_end_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinking, "PATIENCE_S", 0.1)
    mind, free = Thinking(), threading.Event()
    with pytest.raises(TooLong, match="takes more than"):
        await mind.think("s", 10**6, free.wait)
    with pytest.raises(TooLong, match="an earlier decision"):
        await mind.think("s", 1, lambda: 1)
    assert await mind.think("other", 10**6, lambda: 2) == 2
    free.set()
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(TooLong):
                assert await mind.think("s", 1, lambda: 3) == 3
                return
            await asyncio.sleep(0.01)


async def test_what_was_long_once_is_decided_in_a_thread_and_what_it_raises_is_raised() -> None:
    mind = Thinking()
    threads = [await mind.think("s", 1, lambda: (time.sleep(0.03), threading.current_thread())[1]) for _ in range(2)]
    assert threads[0] is threading.main_thread() is not threads[1]

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await mind.think("s", 1, fail)


def test_the_more_often_it_fails_the_longer_a_service_is_let_alone() -> None:
    troubles, now_ns = Troubles(), 0
    delays = []
    for _ in range(12):
        trouble = troubles.note("s", ValueError("x"), now_ns=now_ns)
        assert troubles.rests("s", now_ns=trouble.until_ns - 1) and not troubles.rests("s", now_ns=trouble.until_ns)
        delays.append(trouble.delay_ns)
        now_ns = trouble.until_ns
    assert delays[:3] == [FIRST_NS, 2 * FIRST_NS, 4 * FIRST_NS] and delays[-1] == MOST_NS
    troubles.over("s")
    assert not troubles.rests("s", now_ns=0)


def test_what_all_tasks_of_a_service_or_of_a_swarm_would_take_is_bounded() -> None:
    def asks(replicas: int, size: int = 10) -> ServiceSpec:
        return ServiceSpec("s", Replicated(replicas), TaskSpec(container=b"x" * size))

    check_size(asks(10_000), [asks(10_000)] * 4)
    with pytest.raises(InvalidParameter, match="50001 tasks in all are too many"):
        check_size(asks(1), [asks(10_000)] * 5)
    with pytest.raises(BennuError, match="raft message is too large"):
        check_size(asks(1, 2_000_000), [])
    with pytest.raises(InvalidParameter, match="all tasks of a service may have"):
        check_size(asks(1_000, 1_000_000), [])
