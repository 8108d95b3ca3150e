"""The updater, sentence by sentence: order, parallelism, delay, monitor, failure actions, messages, rollback."""

from dataclasses import replace

import pytest
from orchestration.stage import S, Stage, a_node, a_spec

from bennu.errors import Conflict, InvalidParameter, NotFound, NotImplementedHere
from bennu.orchestration.model.actions import CreateTask, RollBack, SetDesired
from bennu.orchestration.model.nouns import NodeResources
from bennu.orchestration.model.revisions import accept_rollback, accept_rollback_to, accept_update
from bennu.orchestration.model.spec import (
    EndpointSpec,
    Global,
    PortSpec,
    Reservation,
    TaskRestartPolicy,
    TaskSpec,
    UpdateConfig,
)
from bennu.orchestration.model.states import (
    FailureAction,
    PublishMode,
    RestartCondition,
    TaskState,
    UpdateOrder,
    UpdateState,
)
from bennu.orchestration.rollout.commands import abort_rollout, pause_rollout, resume_rollout

U = UpdateState


def running_stage(replicas: int = 4, update: UpdateConfig | None = None, **fields: object) -> Stage:
    timing = {name: fields.pop(name) for name in ("start_s", "stop_s") if name in fields}
    stage = Stage(a_spec(replicas, update=update, **fields), **timing)  # type: ignore[arg-type]
    stage.advance(5)
    assert len(stage.running()) == replicas
    return stage


def when_made(stage: Stage, image: bytes = b"v2") -> list[tuple[float, int]]:
    """(seconds, slot) of the creations since the first update."""
    return [(at - 5, action.slot) for at, action in stage.history if isinstance(action, CreateTask) and at >= 5]


def test_one_slot_at_a_time_by_default() -> None:
    stage = running_stage(3)
    stage.update_image(b"v2")
    for _ in range(100):
        stage.advance(0.1)
        assert len(stage.running()) >= 2
    assert stage.images() == {1: b"v2", 2: b"v2", 3: b"v2"}


def test_parallelism_2_with_delay_3_and_monitor_4_ends_7_s_after_the_last_task_ran() -> None:
    stage = running_stage(4, UpdateConfig(parallelism=2, delay_ns=3 * S, monitor_ns=4 * S))
    stage.update_image(b"v2")
    stage.advance(1.5)  # 1 s to stop, 0.5 s to start
    assert len(stage.running()) == 4
    stage.advance(2.9)
    assert sorted(stage.images().values()).count(b"v2") == 2
    stage.advance(0.1 + 1.5)
    assert set(stage.images().values()) == {b"v2"}
    stage.advance(6.9)
    assert stage.state() is U.UPDATING
    stage.advance(0.1)
    assert (stage.state(), stage.message()) == (U.COMPLETED, "update completed")


def test_a_delay_not_shorter_than_the_monitor_is_watched_a_second_longer() -> None:
    stage = running_stage(1, UpdateConfig(delay_ns=6 * S, monitor_ns=5 * S))
    stage.update_image(b"v2")
    stage.advance(1.5 + 6 + 6.9)
    assert stage.state() is U.UPDATING
    stage.advance(0.1)
    assert stage.state() is U.COMPLETED


def test_parallelism_0_means_all_at_once() -> None:
    stage = running_stage(4, UpdateConfig(parallelism=0))
    stage.update_image(b"v2")
    assert [slot for _, slot in when_made(stage)] == [1, 2, 3, 4]


def test_there_are_no_batches_each_place_goes_on_by_itself() -> None:
    stage = running_stage(4, UpdateConfig(parallelism=2, delay_ns=1 * S))
    stage.update_image(b"v2")
    slow = stage.live(2)[-1]
    stage._known[slow.id] = TaskState.STARTING  # its node is told to start it and takes its time
    stage.advance(2.6)
    assert [slot for _, slot in when_made(stage)] == [1, 2, 3]


def test_stop_first_prepares_before_it_stops() -> None:
    stage = running_stage(1)
    stage.update_image(b"v2")
    assert stage.shown(1) == [("ready", "ready"), ("shutdown", "running")]
    made, stopped = (
        next(i for i, (_, action) in enumerate(stage.history) if isinstance(action, kind) and i > 2)
        for kind in (CreateTask, SetDesired)
    )
    assert made < stopped


def test_an_image_that_cannot_be_prepared_takes_down_nothing() -> None:
    stage = running_stage(3, UpdateConfig(parallelism=0))
    stage.update_image(b"missing")
    stage.advance(60)
    assert stage.state() is U.PAUSED
    assert stage.images() == {1: b"v1", 2: b"v1", 3: b"v1"}
    assert len(when_made(stage)) == 3  # tried once in each slot, and no more
    assert not any(
        isinstance(action, SetDesired) and stage.tasks.get(action.task_id) and
        stage.tasks[action.task_id].spec.container == b"v1"
        for at, action in stage.history if at >= 5
    )  # fmt: skip


def test_start_first_never_has_fewer_than_all_running() -> None:
    stage = running_stage(3, UpdateConfig(parallelism=2, order=UpdateOrder.START_FIRST))
    stage.update_image(b"v2")
    for _ in range(60):
        stage.advance(0.1)
        assert stage.running() == {1, 2, 3}
    assert set(stage.images().values()) == {b"v2"}


def test_the_room_of_the_old_task_is_freed_first_if_there_is_no_other() -> None:
    task = TaskSpec(container=b"v1", reservation=Reservation(memory_bytes=800))
    stage = Stage(a_spec(1, task=task), [a_node("n1", resources=NodeResources(0, 1000))])
    stage.advance(5)
    stage.update_image(b"v2")
    assert stage.shown(1) == [("ready", "pending"), ("shutdown", "running")]
    stage.advance(5)
    assert stage.images() == {1: b"v2"}


def test_a_host_port_on_every_node_is_freed_first_in_stop_first_order() -> None:
    endpoint = EndpointSpec(ports=(PortSpec(80, 8080, mode=PublishMode.HOST),))
    stage = Stage(a_spec(1, endpoint=endpoint), [a_node("n1")])
    stage.advance(5)
    stage.update_image(b"v2")
    stage.advance(5)
    assert stage.images() == {1: b"v2"}


def test_start_first_with_a_host_port_on_every_node_waits_and_says_why() -> None:
    endpoint = EndpointSpec(ports=(PortSpec(80, 8080, mode=PublishMode.HOST),))
    stage = Stage(a_spec(1, endpoint=endpoint, update=UpdateConfig(order=UpdateOrder.START_FIRST)), [a_node("n1")])
    stage.advance(5)
    stage.update_image(b"v2")
    stage.advance(3600)
    assert (stage.state(), stage.images()) == (U.UPDATING, {1: b"v1"})
    assert "host-mode port already in use on 1 node" in stage.waits()["slot 1"]


def test_a_crash_within_the_monitor_pauses_in_docker_s_words() -> None:
    stage = running_stage(3)
    stage.update_image(b"crash")
    stage.advance(30)
    culprit = next(task for task in stage.tasks.values() if task.spec.container == b"crash")
    assert stage.state() is U.PAUSED
    assert stage.message().startswith("update paused due to failure or early termination of task t")
    assert stage.message().endswith(culprit.id) or culprit.slot == 1
    assert {slot: image for slot, image in stage.images().items() if image == b"v1"} == {2: b"v1", 3: b"v1"}


def test_an_exit_with_0_within_the_monitor_counts_too() -> None:
    stage = running_stage(2)
    stage.update_image(b"v2")
    stage.advance(2)
    stage.complete(stage.live(1)[-1].id)
    stage.settle()
    assert stage.state() is U.PAUSED


def test_a_crash_after_the_monitor_does_not_count() -> None:
    stage = running_stage(1, UpdateConfig(delay_ns=1 * S, monitor_ns=2 * S))
    stage.update_image(b"v2")
    stage.advance(1.5 + 2.1)
    stage.fail_slot(1)
    stage.advance(200)
    assert stage.state() is U.COMPLETED


@pytest.mark.parametrize("order", UpdateOrder)
@pytest.mark.parametrize("parallelism", [0, 1])
def test_a_crash_while_the_update_waits_counts_though_the_monitor_is_over(parallelism: int, order: UpdateOrder) -> None:
    config = UpdateConfig(
        parallelism, delay_ns=8 * S, monitor_ns=2 * S, failure_action=FailureAction.ROLLBACK, order=order
    )
    stage = running_stage(3, config)
    stage.update_image(b"v2")
    stage.advance(1.5 + 4)
    stage.fail_slot(1)
    stage.settle()
    assert stage.state() is U.ROLLBACK_STARTED
    stage.advance(60)
    assert (stage.state(), set(stage.images().values())) == (U.ROLLBACK_COMPLETED, {b"v1"})


def test_a_crash_after_the_delay_does_not_count_though_the_update_goes_on() -> None:
    stage = running_stage(3, UpdateConfig(delay_ns=8 * S, monitor_ns=2 * S))
    stage.update_image(b"v2")
    stage.advance(1.5 + 9.1)  # the second slot is in work
    stage.fail_slot(1)
    stage.advance(200)
    assert stage.state() is U.COMPLETED


def test_the_window_of_a_rollback_is_that_of_its_own_monitor_and_delay() -> None:
    way_back = UpdateConfig(delay_ns=8 * S, monitor_ns=2 * S)
    stage = running_stage(2, UpdateConfig(failure_action=FailureAction.ROLLBACK), rollback=way_back)
    stage.update_image(b"crash")
    stage.advance(1.6)
    assert stage.state() is U.ROLLBACK_STARTED
    stage.advance(1.5 + 4)
    stage.fail_slot(1)
    stage.settle()
    assert stage.state() is U.ROLLBACK_PAUSED


def test_failures_up_to_the_ratio_are_tolerated_and_each_slot_counts_once() -> None:
    stage = running_stage(
        4, UpdateConfig(parallelism=1, max_failure_ratio=0.25), task=TaskSpec(b"v1", TaskRestartPolicy(delay_ns=S))
    )
    stage.update_image(b"v2")
    for _ in range(3):  # slot 1 fails again and again: one slot of four
        stage.advance(1.6)
        if stage.live(1)[-1].state is TaskState.RUNNING:
            stage.fail_slot(1)
    stage.advance(0.1)
    assert stage.state() is U.UPDATING
    stage.advance(60)
    assert stage.state() is U.COMPLETED


def test_continue_goes_on_to_the_end() -> None:
    stage = running_stage(2, UpdateConfig(failure_action=FailureAction.CONTINUE))
    stage.update_image(b"crash")
    stage.advance(120)
    assert (stage.state(), stage.message()) == (U.COMPLETED, "update completed")


def test_an_automatic_rollback_touches_only_the_new_tasks() -> None:
    stage = running_stage(3, UpdateConfig(failure_action=FailureAction.ROLLBACK))
    untouched = {stage.live(2)[-1].id, stage.live(3)[-1].id}
    stage.update_image(b"crash")
    started = stage.service.update_status.started_at_ns  # type: ignore[union-attr]
    stage.advance(3)
    status = stage.service.update_status
    assert status is not None
    assert status.state is U.ROLLBACK_STARTED
    assert status.message.startswith("update rolled back due to failure or early termination of task t")
    assert status.started_at_ns == started
    assert stage.service.previous is None
    assert len(stage.service.revisions) == 3
    stage.advance(60)
    assert (stage.state(), stage.message()) == (U.ROLLBACK_COMPLETED, "rollback completed")
    assert set(stage.images().values()) == {b"v1"}
    assert {stage.live(2)[-1].id, stage.live(3)[-1].id} == untouched


@pytest.mark.parametrize(
    ("action", "message"),
    [
        pytest.param(FailureAction.PAUSE, "update paused due to", id="pause-says-update-paused"),
        pytest.param(FailureAction.ROLLBACK, "rollback paused due to", id="rollback-never-rolls-back"),
    ],
)
def test_a_failing_rollback_pauses(action: FailureAction, message: str) -> None:
    stage = running_stage(1, rollback=UpdateConfig(failure_action=action), image=b"v1")
    stage.update(replace(stage.service.spec, task=TaskSpec(b"v2")))
    stage.advance(30)
    assert stage.service.previous is not None
    broken = replace(stage.service.previous.spec, task=TaskSpec(b"crash"))
    stage.service = replace(stage.service, previous=replace(stage.service.previous, spec=broken))
    stage.roll_back()
    assert (stage.state(), stage.message()) == (U.ROLLBACK_STARTED, "manually requested rollback")
    stage.advance(10)
    assert stage.state() is U.ROLLBACK_PAUSED
    assert stage.message().startswith(message)
    assert not [action for _, action in stage.history if isinstance(action, RollBack)]


def test_a_manual_rollback_swaps_and_a_second_goes_forward_again() -> None:
    stage = running_stage(2)
    stage.update_image(b"v2")
    stage.advance(60)
    stage.roll_back()
    stage.advance(60)
    assert (stage.state(), set(stage.images().values())) == (U.ROLLBACK_COMPLETED, {b"v1"})
    stage.roll_back()
    stage.advance(60)
    assert set(stage.images().values()) == {b"v2"}


def test_rolling_back_a_half_done_update_leaves_the_old_tasks_alone() -> None:
    stage = running_stage(4, UpdateConfig(delay_ns=10 * S))
    before = {slot: stage.live(slot)[-1].id for slot in (2, 3, 4)}
    stage.update_image(b"v2")
    stage.advance(5)
    stage.roll_back()
    stage.advance(60)
    assert {slot: stage.live(slot)[-1].id for slot in (2, 3, 4)} == before
    assert set(stage.images().values()) == {b"v1"}


def test_without_a_previous_spec_there_is_nothing_to_roll_back_to() -> None:
    stage = running_stage(1)
    with pytest.raises(InvalidParameter, match="service web does not have a previous spec"):
        accept_rollback(stage.service, now_ns=stage.now_ns)
    with pytest.raises(NotFound, match="no revision 7; it remembers 1"):
        accept_rollback_to(stage.service, 7, now_ns=stage.now_ns)


def test_any_remembered_revision_can_be_restored() -> None:
    stage = running_stage(1)
    for image in (b"v2", b"v3"):
        stage.update_image(image)
        stage.advance(30)
    stage.change(lambda service: accept_rollback_to(service, 1, now_ns=stage.now_ns))
    stage.advance(30)
    assert stage.images() == {1: b"v1"}


def test_scaling_a_paused_service_neither_resumes_it_nor_becomes_what_a_rollback_restores() -> None:
    stage = running_stage(2)
    stage.update_image(b"crash")
    stage.advance(30)
    assert stage.state() is U.PAUSED
    stage.scale(4)
    stage.advance(30)
    assert stage.state() is U.PAUSED
    assert stage.service.previous is not None
    assert stage.service.previous.spec.task.container == b"v1"
    stage.roll_back()
    stage.advance(60)
    assert stage.images() == dict.fromkeys((1, 2, 3, 4), b"v1")


def test_any_other_update_resumes() -> None:
    stage = running_stage(2)
    stage.update_image(b"crash")
    stage.advance(30)
    stage.update_image(b"v3")
    stage.advance(60)
    assert (stage.state(), set(stage.images().values())) == (U.COMPLETED, {b"v3"})


def test_a_second_update_cancels_the_first_and_starts_over() -> None:
    stage = running_stage(4, UpdateConfig(delay_ns=5 * S))
    stage.update_image(b"v2")
    stage.advance(4)
    first = stage.service.update_status
    stage.update_image(b"v3")
    assert stage.service.update_status is not None and first is not None
    assert stage.service.update_status.started_at_ns == first.started_at_ns + 4 * S  # type: ignore[operator]
    stage.advance(120)
    assert set(stage.images().values()) == {b"v3"}


def test_scaling_alone_shows_no_update_status() -> None:
    stage = running_stage(2)
    stage.scale(4)
    stage.advance(10)
    assert (stage.state(), stage.running()) == (None, {1, 2, 3, 4})


def test_update_status_goes_away_with_an_update_that_touches_nothing() -> None:
    stage = running_stage(2)
    stage.update_image(b"v2")
    stage.advance(60)
    stage.update(replace(stage.service.spec, labels={"a": "b"}))
    stage.advance(5)
    assert stage.state() is None


def test_slots_stopped_for_good_are_updated_too() -> None:
    policy = TaskRestartPolicy(RestartCondition.NONE)
    stage = running_stage(2, task=TaskSpec(b"v1", policy))
    stage.fail_slot(1)
    stage.advance(10)
    assert stage.running() == {2}
    stage.update(replace(stage.service.spec, task=TaskSpec(b"v2", policy)))
    stage.advance(30)
    assert stage.images() == {1: b"v2", 2: b"v2"}


def test_what_is_down_is_updated_first() -> None:
    stage = running_stage(3)
    stage.fail_slot(3)
    stage.update_image(b"v2")
    assert when_made(stage)[-1][1] == 3


def test_a_never_ready_task_holds_the_update_for_ever_and_says_so() -> None:
    stage = running_stage(2)
    stage.update_image(b"hang")
    stage.advance(36000)
    assert (stage.state(), stage.running()) == (U.UPDATING, {2})
    assert stage.waits()["slot 1"] == "its task is starting, or not healthy yet"


def test_a_global_service_is_updated_node_by_node() -> None:
    stage = Stage(a_spec(mode=Global()))
    stage.advance(5)
    stage.update_image(b"v2")
    stage.advance(1.6)
    running = [task for task in stage.tasks.values() if task.is_running]
    assert sorted(task.spec.container for task in running) in ([b"v1", b"v1", b"v2"], [b"v1", b"v2"])
    stage.advance(60)
    assert [task.spec.container for task in stage.tasks.values() if task.is_running] == [b"v2"] * 3
    assert stage.state() is U.COMPLETED


def test_a_person_pauses_resumes_and_aborts() -> None:
    stage = running_stage(3, UpdateConfig(delay_ns=5 * S))
    with pytest.raises(Conflict, match="no rollout under way"):
        pause_rollout(stage.service, now_ns=stage.now_ns)
    stage.update_image(b"v2")
    stage.advance(2)
    stage.change(lambda service: pause_rollout(service, now_ns=stage.now_ns))
    stage.advance(600)
    assert sorted(stage.images().values()) == [b"v1", b"v1", b"v2"]
    stage.change(lambda service: resume_rollout(service, now_ns=stage.now_ns))
    stage.advance(4)
    stage.change(lambda service: abort_rollout(service, now_ns=stage.now_ns))
    assert stage.message() == "update aborted by request"
    stage.advance(60)
    assert set(stage.images().values()) == {b"v1"}


def test_renaming_and_changing_the_mode_are_refused() -> None:
    stage = running_stage(1)
    for spec, words in (
        (replace(stage.service.spec, name="other"), "renaming services is not supported"),
        (replace(stage.service.spec, mode=Global()), "service mode change is not allowed"),
    ):
        with pytest.raises(NotImplementedHere, match=words):
            accept_update(stage.service, spec, version=2, now_ns=0)
