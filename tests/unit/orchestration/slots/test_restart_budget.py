"""Condition, delay, attempts and window of a restart policy; design law 6 and the fact sheet's chapter on restarts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestration.stage import S, Stage, a_node, a_spec

from bennu.orchestration.model.nouns import Service, ServiceId, Task, TaskId, TaskStatus
from bennu.orchestration.model.spec import ServiceSpec, TaskRestartPolicy, TaskSpec
from bennu.orchestration.model.states import Availability, NodeState, RestartCondition, TaskState
from bennu.orchestration.slots.restart import KeepEnded, RestartTask, decide_restart, may_restart


def with_policy(**fields: object) -> TaskSpec:
    return TaskSpec(container=b"v1", restart=TaskRestartPolicy(**fields))  # type: ignore[arg-type]


def an_ended_task(policy: TaskRestartPolicy, state: TaskState, *, restarts: tuple[int, ...] = (), at: int = 0) -> Task:
    return Task(
        id=TaskId("t"),
        service_id=ServiceId("web"),
        slot=1,
        spec=TaskSpec(restart=policy),
        spec_version=0,
        desired=TaskState.RUNNING,
        created_at_ns=0,
        status=TaskStatus(state, applied_at_ns=at),
        restarts=restarts,
    )


@pytest.mark.parametrize(
    ("condition", "state", "restarts"),
    [
        pytest.param(RestartCondition.NONE, TaskState.FAILED, False, id="none-never"),
        pytest.param(RestartCondition.NONE, TaskState.RUNNING, False, id="none-not-even-off-a-dead-node"),
        pytest.param(RestartCondition.ON_FAILURE, TaskState.COMPLETE, False, id="on-failure-not-after-exit-0"),
        pytest.param(RestartCondition.ON_FAILURE, TaskState.FAILED, True, id="on-failure-after-exit-1"),
        pytest.param(RestartCondition.ON_FAILURE, TaskState.REJECTED, True, id="on-failure-after-rejection"),
        pytest.param(RestartCondition.ON_FAILURE, TaskState.SHUTDOWN, True, id="on-failure-after-shutdown"),
        pytest.param(RestartCondition.ANY, TaskState.COMPLETE, True, id="any-after-exit-0"),
        pytest.param(RestartCondition.ANY, TaskState.FAILED, True, id="any-after-exit-1"),
    ],
)
def test_the_condition_decides_by_how_the_task_ended(
    condition: RestartCondition, state: TaskState, restarts: bool
) -> None:
    task = an_ended_task(TaskRestartPolicy(condition=condition), state)
    assert (may_restart(task, is_job=False, now_ns=0) is None) is restarts


def test_a_window_looks_back_from_the_failure_and_forgets_its_far_edge() -> None:
    policy = TaskRestartPolicy(max_attempts=2, window_ns=10 * S)
    inside = an_ended_task(policy, TaskState.FAILED, restarts=(91 * S, 95 * S), at=100 * S)
    edge = replace(inside, restarts=(90 * S, 95 * S))
    later = replace(inside, restarts=(95 * S, 100 * S))
    assert may_restart(inside, is_job=False, now_ns=500 * S) == "used all 2 restart attempts within 10 s"
    assert may_restart(edge, is_job=False, now_ns=500 * S) is None
    assert may_restart(later, is_job=False, now_ns=500 * S) is None


def test_a_refusal_stays_a_refusal_however_much_time_passes() -> None:
    stage = Stage(a_spec(1, task=with_policy(max_attempts=1, window_ns=10 * S, delay_ns=0)))
    stage.advance(1)
    stage.fail_slot(1)
    stage.advance(2)
    stage.fail_slot(1)
    stage.advance(3600)
    assert stage.running() == set()
    assert "stopped for good" in stage.waits()["slot 1"]


def test_a_failed_replica_comes_back_only_after_the_restart_delay() -> None:
    stage = Stage(a_spec(2, task=with_policy(delay_ns=5 * S)), start_s=0)
    stage.advance(1)
    stage.fail_slot(1)
    stage.advance(4.9)
    assert stage.running() == {2}
    stage.advance(0.1)
    assert stage.running() == {1, 2}


def test_the_replacement_is_prepared_during_the_delay() -> None:
    stage = Stage(a_spec(1))
    stage.advance(1)
    stage.fail_slot(1)
    assert stage.shown(1) == [("ready", "ready"), ("shutdown", "failed")]
    assert stage.waits()["slot 1"] == "the restart delay of its new task is not over"


def test_two_attempts_mean_three_tasks_and_then_none() -> None:
    stage = Stage(a_spec(1, image=b"crash", task=replace(with_policy(max_attempts=2), container=b"crash")))
    stage.advance(120)
    assert stage.shown(1) == [("shutdown", "failed")] * 3
    assert "used all 2 restart attempts" in str(stage.history)


def test_a_missing_image_cycles_at_exactly_the_delay() -> None:
    stage = Stage(a_spec(1, task=replace(with_policy(delay_ns=5 * S), container=b"missing")))
    stage.advance(22)
    made = [at for at, action in stage.history if "CreateTask" in repr(action)]
    assert made == [0, 0, 5, 10, 15, 20]
    assert stage.shown(1)[0] == ("ready", "rejected")


def test_an_update_forgives_the_past() -> None:
    stage = Stage(a_spec(1, task=replace(with_policy(max_attempts=1), container=b"crash")))
    stage.advance(60)
    assert stage.running() == set()
    stage.update_image(b"v2")
    stage.advance(60)
    assert stage.images() == {1: b"v2"}


def test_scaling_does_not_refill_a_slot_that_used_up_its_attempts() -> None:
    stage = Stage(a_spec(1, task=replace(with_policy(max_attempts=1), container=b"crash")))
    stage.advance(60)
    stage.scale(2)
    stage.advance(60)
    assert len(stage.of_slot(1)) == 2
    assert all(task.has_ended for task in stage.of_slot(1))


def test_a_restart_uses_the_current_spec() -> None:
    stage = Stage(a_spec(1, task=with_policy(delay_ns=0)), start_s=0)
    stage.advance(1)
    stage.service = replace(stage.service, spec=a_spec(1, b"v2"), spec_version=5)
    stage.fail("t1")
    stage.settle()
    stage.advance(10)
    assert stage.images() == {1: b"v2"}


def test_a_drained_node_moves_its_tasks_without_the_delay_but_after_their_end() -> None:
    stage = Stage(a_spec(1), [a_node("n1"), a_node("n2")], start_s=0, stop_s=3)
    stage.advance(1)
    stage.set_node(str(stage.live(1)[0].node_id), availability=Availability.DRAIN)
    assert stage.shown(1) == [("ready", "ready"), ("shutdown", "running")]
    stage.advance(2.9)
    assert stage.shown(1)[0] == ("ready", "ready")
    stage.advance(0.2)
    assert stage.shown(1)[0] == ("running", "running")


def test_a_start_waits_a_minute_at_most_for_the_end_of_the_old_task() -> None:
    stage = Stage(a_spec(1), [a_node("n1"), a_node("n2")], start_s=0, stop_s=1000)
    stage.advance(1)
    stage.set_node(str(stage.live(1)[0].node_id), availability=Availability.DRAIN)
    stage.advance(59.9)
    assert stage.shown(1)[0] == ("ready", "ready")
    stage.advance(0.1)
    assert stage.shown(1)[0][0] == "running"


def test_a_dead_node_is_not_waited_for_but_the_delay_is() -> None:
    stage = Stage(a_spec(1), [a_node("n1"), a_node("n2")], start_s=0)
    stage.advance(1)
    stage.set_node(str(stage.live(1)[0].node_id), state=NodeState.DOWN)
    stage.advance(4.9)
    assert stage.shown(1)[0] == ("ready", "ready")
    stage.advance(0.1)
    assert stage.shown(1) == [("running", "running"), ("shutdown", "running")]


@given(
    st.lists(st.integers(0, 60), max_size=30),
    st.integers(1, 4),
    st.integers(0, 20),
)
def test_attempts_in_any_window_never_exceed_the_limit(gaps: list[int], attempts: int, window: int) -> None:
    """Law 6, for any rhythm of failures: the checker counts restarts by itself."""
    policy = TaskRestartPolicy(max_attempts=attempts, window_ns=window * S, delay_ns=0)
    spec = ServiceSpec(name="web", task=TaskSpec(restart=policy))
    service = Service(id=ServiceId("web"), spec=spec)
    now, task, made = 0, an_ended_task(policy, TaskState.FAILED), list[int]()
    for gap in gaps:
        now += gap * S + 1
        task = replace(task, status=TaskStatus(TaskState.FAILED, applied_at_ns=now))
        decision = decide_restart(task, service, of_slot=[task], at_once=False, now_ns=now)
        if isinstance(decision, KeepEnded):
            recent = [at for at in made if window == 0 or at > now - window * S]
            assert len(recent) >= attempts, decision.reason
            break
        assert isinstance(decision, RestartTask)
        made.append(now)
        assert len([at for at in made if window == 0 or at > now - window * S]) <= attempts
        task = replace(task, restarts=decision.restarts, created_at_ns=now)
