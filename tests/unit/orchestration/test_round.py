"""A round: what it decides is written in an order that may be cut anywhere, and dropped alone where it must be."""

from dataclasses import replace

import pytest
from orchestration.stage import S, Stage, a_node, a_spec

from bennu.orchestration.model.actions import DeleteTask, SetDesired
from bennu.orchestration.model.nouns import NodeId, Task, TaskId
from bennu.orchestration.model.spec import Canary, TaskRestartPolicy, TaskSpec
from bennu.orchestration.model.states import NodeState, TaskState
from bennu.orchestration.round import FULL, ORDINARY_BYTES, NodeWrite, Round, ServiceWrite, TaskWrite
from bennu.orchestration.scheduler.failures import FailureLog
from bennu.orchestration.scheduler.node_set import NodeSet
from bennu.orchestration.scheduler.nodes import ORPHAN_AFTER_NS
from bennu.orchestration.tasks.observe import Report


class Store(Stage):
    """What is stored, and a round over it; nothing of the round is stored unless the test says so."""

    def settle(self) -> None:
        self.node_set = NodeSet(self.nodes.values(), self.tasks.values())

    def begin(self) -> Round:
        self.settle()
        return self.new_round(self.node_set)

    def store(self, work: Round, first: int | None = None) -> None:
        """The first of its writes, or all."""
        for write in work.writes[:first]:
            match write:
                case TaskWrite(after=Task() as task):
                    self.tasks[task.id] = task
                case TaskWrite(before=Task() as task):
                    del self.tasks[task.id]
                case ServiceWrite(after=service):
                    self.service = service
                case NodeWrite(after=node):
                    self.nodes[node.id] = node

    def finish(self) -> None:
        """As a manager does that is not disturbed."""
        work = self.begin()
        assert work.settle(self.service.id, now_ns=self.now_ns) is not None
        self.store(work)


def shown(store: Store) -> list[tuple[int, str, str, str | None]]:
    tasks = store.tasks.values()
    return sorted((task.slot, task.state.word, task.desired.word, task.node_id) for task in tasks)


def test_what_was_looked_at_until_it_was_quiet_is_quiet_for_the_next_round_too() -> None:
    store = Store(a_spec(3))
    store.finish()
    assert shown(store) == [(n, "assigned", "running", f"n{n}") for n in (1, 2, 3)]
    again = store.begin()
    plan = again.settle(store.service.id, now_ns=store.now_ns)
    assert (again.writes, again.looks) == ([], 1)
    assert plan is not None and {wait.subject for wait in plan.waits} == {"slot 1", "slot 2", "slot 3"}


def test_writes_that_are_cut_after_any_of_them_are_completed_by_the_next_round() -> None:
    whole = Store(a_spec(2, task=TaskSpec(b"v1", TaskRestartPolicy(delay_ns=0))))
    whole.finish()
    ended = replace(whole.tasks[TaskId("t1")], status=replace(whole.tasks[TaskId("t1")].status, state=TaskState.FAILED))

    def cut_after(number: int | None) -> tuple[int, list[tuple[int, str, str, str | None]]]:
        store = Store(whole.service.spec)
        store.service, store._known = whole.service, dict(whole._known)
        store.tasks = whole.tasks | {ended.id: ended}
        work = store.begin()
        work.settle(store.service.id, now_ns=store.now_ns)
        store.store(work, number)
        store.finish()
        return len(work.writes), shown(store)

    writes, end = cut_after(None)
    assert writes > 3
    assert [cut_after(number)[1] for number in range(writes)] == [end] * writes


def test_what_was_decided_about_one_service_is_undone_as_if_it_had_never_been() -> None:
    store = Store(a_spec(2))
    store.finish()
    store.update(a_spec(4, b"v2"))
    work = store.begin()
    work.take_in(TaskId("t1"), Report(TaskState.RUNNING), now_ns=store.now_ns)
    since = len(work.writes)
    before = {task.id: task for task in work.tasks_of(store.service.id)}, work.service(store.service.id)
    work.settle(store.service.id, now_ns=store.now_ns)
    work.apply(DeleteTask(TaskId("t2"), "by hand"), now_ns=store.now_ns)
    assert {type(write) for write in work.writes[since:]} == {TaskWrite, ServiceWrite}
    work.undo(since)
    assert ({task.id: task for task in work.tasks_of(store.service.id)}, work.service(store.service.id)) == before
    assert [write.after.id for write in work.writes if isinstance(write, TaskWrite) and write.after] == ["t1"]
    assert store.node_set.infos == NodeSet(store.nodes.values(), before[0].values()).infos


@pytest.mark.parametrize(("size", "made"), [(0, FULL), (4 * ORDINARY_BYTES, FULL // 5)], ids=["small", "large"])
def test_a_round_is_full_by_the_size_of_what_it_writes(size: int, made: int) -> None:
    store = Store(a_spec(made, task=TaskSpec(b"x" * size)))
    work = store.begin()
    assert work.settle(store.service.id, now_ns=store.now_ns) is None
    assert work.is_full and len(work.writes) == made
    fewer = Store(a_spec(made // 2 - 1, task=TaskSpec(b"x" * size)))  # made, and placed
    assert fewer.begin().settle(store.service.id, now_ns=store.now_ns) is not None


def test_only_a_higher_state_of_a_task_that_is_known_is_taken_in() -> None:
    store = Store(a_spec(1))
    store.finish()
    work = store.begin()
    work.take_in(TaskId("gone"), Report(TaskState.RUNNING), now_ns=store.now_ns)
    work.take_in(TaskId("t1"), Report(TaskState.ACCEPTED), now_ns=store.now_ns)
    work.take_in(TaskId("t1"), Report(TaskState.PREPARING), now_ns=store.now_ns)
    work.take_in(TaskId("t1"), Report(TaskState.ACCEPTED), now_ns=store.now_ns)
    assert [write.after.state for write in work.writes if isinstance(write, TaskWrite) and write.after] == [
        TaskState.ACCEPTED,
        TaskState.PREPARING,
    ]


def test_what_changes_nothing_is_not_written() -> None:
    store = Store(a_spec(1))
    store.finish()
    work = store.begin()
    work.apply(SetDesired(TaskId("t1"), TaskState.READY, "lower than it is"), now_ns=store.now_ns)
    work.apply(DeleteTask(TaskId("gone"), "it is not there"), now_ns=store.now_ns)
    assert work.writes == []


def test_a_node_that_is_silent_is_down_and_after_a_day_what_it_held_is_given_up() -> None:
    store = Store(a_spec(1), [a_node("n1")])
    store.finish()
    work = store.begin()
    again_ns = work.judge_node(NodeId("n1"), is_alive=False, now_ns=store.now_ns)
    assert work.nodes[NodeId("n1")].state is NodeState.DOWN
    assert again_ns == store.now_ns + ORPHAN_AFTER_NS
    store.store(work)
    late = store.begin()
    assert late.judge_node(NodeId("n1"), is_alive=False, now_ns=again_ns) is None
    assert late.tasks_of(store.service.id)[0].state is TaskState.ORPHANED


def test_a_removed_node_loses_its_tasks_and_a_changed_one_those_that_no_longer_fit() -> None:
    store = Store(a_spec(2), [a_node("n1", labels={"disk": "ssd"}), a_node("n2", labels={"disk": "ssd"})])
    placement = replace(store.service.spec.task.placement, constraints=("node.labels.disk==ssd",))
    store.service = replace(store.service, spec=a_spec(2, task=replace(store.service.spec.task, placement=placement)))
    store.finish()
    store.nodes[NodeId("n1")] = a_node("n1")
    del store.nodes[NodeId("n2")]
    work = store.begin()
    work.enforce_on(NodeId("n1"), now_ns=store.now_ns)
    work.forget_node(NodeId("n2"), now_ns=store.now_ns)
    states = {task.node_id: task.state for task in work.tasks_of(store.service.id)}
    assert states == {"n1": TaskState.REJECTED, "n2": TaskState.ORPHANED}


def test_a_task_that_fits_nowhere_is_told_apart_from_a_service_that_only_waits() -> None:
    store = Store(a_spec(2), [a_node("n1", state=NodeState.DOWN)])
    work = store.begin()
    work.settle(store.service.id, now_ns=store.now_ns)
    assert work.has_unplaced(store.service.id)
    fits = Store(a_spec(2)).begin()
    fits.settle(store.service.id, now_ns=store.now_ns)
    assert not fits.has_unplaced(store.service.id)


def test_what_was_seen_is_asked_for_only_while_a_rollout_is_watched() -> None:
    asked: list[int] = []
    store = Store(a_spec(2, strategy=Canary()))
    store.finish()
    for state in (TaskState.READY, TaskState.RUNNING):
        for task_id, task in store.tasks.items():
            store.tasks[task_id] = replace(task, status=replace(task.status, state=state))
    plain = Store(a_spec(2))

    def round_over(stored: Store) -> Round:
        node_set = NodeSet(stored.nodes.values(), stored.tasks.values())
        return Round(
            stored,
            node_set,
            FailureLog(),
            new_task_id=stored._new_task_id,
            build_evidence=lambda service, tasks, now_ns: asked.append(len(tasks)),  # type: ignore[func-returns-value]
        )

    round_over(plain).settle(plain.service.id, now_ns=plain.now_ns)
    assert asked == []
    store.update(a_spec(2, b"v2", strategy=Canary()))
    round_over(store).settle(store.service.id, now_ns=store.now_ns + S)
    assert asked and asked[0] == 2
