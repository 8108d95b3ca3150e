"""What the writes of a round make of the rows: one transaction, with the reasons and what the agents know beside."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bennu.cluster.round_rows import KEPT_REASONS, Facts, StoredState, change_of, with_facts
from bennu.cluster.state import Change, ClusterState, open_state
from bennu.cluster.tables import BoundPort, Reason, ServiceRow
from bennu.engine.events import Journal
from bennu.orchestration.model.actions import Action, CreateTask, DeleteTask, SetDesired, SetRollout
from bennu.orchestration.model.nouns import ServiceId, TaskId, UpdateStatus
from bennu.orchestration.model.revisions import create_service
from bennu.orchestration.model.spec import Replicated, ServiceSpec, TaskSpec
from bennu.orchestration.model.states import TaskState, UpdateState
from bennu.orchestration.round import Round
from bennu.orchestration.scheduler.failures import FailureLog
from bennu.orchestration.scheduler.node_set import NodeSet
from bennu.orchestration.tasks.observe import Report
from bennu.store import open_sqlite

WEB = ServiceId("web")


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[ClusterState]:
    async with open_sqlite(tmp_path / "state.db") as store:
        journal = Journal(store)
        await journal.open()
        async with open_state(store, journal) as opened:
            task = TaskSpec(container=b'{"ContainerSpec":{"Image":"nothing"}}')
            spec = ServiceSpec("web", Replicated(1), task, labels={"tier": "front"})
            change = Change()
            change.put(opened.services, ServiceRow(id=WEB, service=create_service(WEB, spec, now_ns=1)))
            await opened.commit(change)
            yield opened


def a_round(state: ClusterState) -> Round:
    return Round(StoredState(state), NodeSet(), FailureLog(), new_task_id=lambda: f"t{len(state.tasks.rows) + 1}")


async def write(state: ClusterState, *actions: Action) -> Change:
    work = a_round(state)
    for action in actions:
        work.apply(action, WEB, now_ns=7)
    change = await change_of(state, work.writes, {})
    await state.commit(change)
    return change


async def test_a_task_is_stored_with_why_it_was_made_and_why_it_is_to_end(state: ClusterState) -> None:
    await write(state, CreateTask(1, "slot 1 is empty"))
    row = state.tasks.rows["t1"]
    assert (row.name, row.service_labels, row.why_made) == ("web.1.t1", {"tier": "front"}, "slot 1 is empty")
    await write(state, SetDesired(TaskId("t1"), TaskState.SHUTDOWN, "scaled down"))
    row = state.tasks.rows["t1"]
    assert (row.task.desired, row.why_made, row.why_desired) == (TaskState.SHUTDOWN, "slot 1 is empty", "scaled down")
    await write(state, DeleteTask(TaskId("t1"), "it is over"))
    assert not state.tasks.rows


async def test_what_is_made_and_deleted_in_one_round_was_never_there(state: ClusterState) -> None:
    change = await write(state, CreateTask(1, "made"), DeleteTask(TaskId("t1"), "and deleted"))
    assert not change.puts
    assert not state.tasks.rows


async def test_what_an_agent_knows_of_a_container_is_kept_beside_what_it_reports(state: ClusterState) -> None:
    await write(state, CreateTask(1, "slot 1 is empty"))
    bound = (BoundPort("0.0.0.0", 8080, 80, "tcp"),)
    told = {"t1": with_facts(state.tasks.rows["t1"], Facts(container_id="c", pid=4, bound=bound))}
    work = a_round(state)
    work.take_in(TaskId("t1"), Report(TaskState.RUNNING, "started"), now_ns=8)
    await state.commit(await change_of(state, work.writes, told))
    row = state.tasks.rows["t1"]
    assert (row.task.state, row.container_id, row.pid, row.bound) == (TaskState.RUNNING, "c", 4, bound)
    assert with_facts(row, Facts()) == row


async def test_each_decision_about_a_rollout_leaves_its_reason_and_is_told_if_clients_see_it(
    state: ClusterState,
) -> None:
    status = UpdateStatus(UpdateState.UPDATING, "update in progress")
    change = await write(
        state, SetRollout(status, None, "it is outdated"), SetRollout(status, None, "nothing that a client sees")
    )
    assert state.services.rows[WEB].reasons == (Reason(7, "it is outdated"), Reason(7, "nothing that a client sees"))
    (event,) = change.events
    assert event.actor.attributes == {"name": "web", "updatestate.new": "updating"}
    await write(state, *(SetRollout(status, None, f"decision {number}") for number in range(KEPT_REASONS)))
    assert [reason.text for reason in state.services.rows[WEB].reasons][:: KEPT_REASONS - 1] == [
        "decision 0",
        f"decision {KEPT_REASONS - 1}",
    ]
