"""The small pure pieces a shell needs: ends, counts, the steady clock, the checks of a spec."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestration.stage import S, Stage, a_node, a_spec

from bennu.errors import InvalidParameter
from bennu.orchestration.model.clock import SteadyClock
from bennu.orchestration.model.constraints import BadConstraint
from bennu.orchestration.model.counts import ServiceCounts, count_tasks
from bennu.orchestration.model.spec import (
    EndpointSpec,
    Global,
    GlobalJob,
    Placement,
    PortSpec,
    ReplicatedJob,
    Reservation,
    ServiceSpec,
    TaskRestartPolicy,
    TaskSpec,
    UpdateConfig,
)
from bennu.orchestration.model.states import EndpointMode, NodeState, PublishMode, TaskState
from bennu.orchestration.model.validate import validate_spec
from bennu.orchestration.tasks.observe import classify_end


@pytest.mark.parametrize(
    ("code", "ordered", "unhealthy", "state", "err"),
    [
        (0, False, False, TaskState.COMPLETE, ""),
        (137, False, False, TaskState.FAILED, "task: non-zero exit (137)"),
        (None, False, False, TaskState.FAILED, "task: non-zero exit (unknown)"),
        (143, False, True, TaskState.FAILED, "task: non-zero exit (143): dockerexec: unhealthy container"),
        (0, False, True, TaskState.FAILED, "dockerexec: unhealthy container"),
        (137, True, False, TaskState.SHUTDOWN, ""),
        (0, True, True, TaskState.SHUTDOWN, ""),
    ],
)
def test_how_an_end_is_reported(code: int | None, ordered: bool, unhealthy: bool, state: TaskState, err: str) -> None:
    report = classify_end(exit_code=code, was_ordered=ordered, was_unhealthy=unhealthy)
    assert (report.state, report.err, report.exit_code) == (state, err, code)


def test_an_exit_with_0_that_the_engine_has_an_error_for_is_a_failure() -> None:
    report = classify_end(exit_code=0, was_ordered=False, error="the container could not be watched")
    assert (report.state, report.err) == (TaskState.FAILED, "task: non-zero exit (0)")


def test_running_counts_tasks_on_lost_nodes_too() -> None:
    stage = Stage(a_spec(3, task=TaskSpec(b"v1", TaskRestartPolicy(delay_ns=0))))
    stage.advance(2)
    stage.set_node("n1", state=NodeState.DOWN)
    stage.advance(2)
    assert count_tasks(stage.service, stage.tasks.values()) == ServiceCounts(4, 3)


def test_counts_of_a_global_service_and_of_a_job() -> None:
    stage = Stage(a_spec(mode=Global()), [a_node("n1"), a_node("n2")])
    stage.advance(2)
    assert count_tasks(stage.service, stage.tasks.values()) == ServiceCounts(2, 2)
    job = Stage(a_spec(mode=ReplicatedJob(max_concurrent=2, total_completions=5)))
    job.advance(2)
    job.complete(next(iter(job.tasks)))
    job.settle()
    assert count_tasks(job.service, job.tasks.values()) == ServiceCounts(1, 2, 1)


def test_of_a_job_only_the_present_iteration_is_counted_and_a_failed_task_is_still_to_do() -> None:
    job = Stage(a_spec(mode=GlobalJob()), [a_node("n1"), a_node("n2")], stop_s=60)
    job.advance(2)
    first, second = job.tasks
    job.complete(first)
    job.fail(second)
    assert count_tasks(job.service, job.tasks.values()) == ServiceCounts(0, 1, 1)
    job.settle()
    job.advance(10)
    assert count_tasks(job.service, job.tasks.values()) == ServiceCounts(1, 1, 1)
    job.update_image(b"v2")
    job.advance(2)
    assert [task.iteration for task in job.tasks.values() if task.state is TaskState.RUNNING] == [0, 1]
    held_back = 1  # until the old task on its node has ended
    assert count_tasks(job.service, job.tasks.values()) == ServiceCounts(1, 2 - held_back)


@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 10**6)), min_size=1, max_size=8))
def test_the_steady_clock_never_runs_backwards_over_all_lives(lives: list[tuple[int, int]]) -> None:
    newest, monotonic = 0, 0
    for wall, lasted in lives:
        clock = SteadyClock.take_over(wall_ns=wall, monotonic_ns=monotonic, newest_stored_ns=newest)
        assert clock.now_ns(monotonic) >= newest
        assert clock.now_ns(monotonic + lasted) == clock.now_ns(monotonic) + lasted
        newest, monotonic = clock.now_ns(monotonic + lasted), monotonic + lasted


GOOD = ServiceSpec(name="web")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(GOOD, name="-web"), "name must be valid as a DNS name component"),
        (replace(GOOD, name="w" * 64), "name must be 63 characters or fewer"),
        (replace(GOOD, mode=ReplicatedJob(), update=UpdateConfig()), "Jobs may not have an update config"),
        (
            replace(GOOD, task=TaskSpec(reservation=Reservation(1000))),
            "invalid cpu value 1e-06: Must be at least 0.001",
        ),
        (replace(GOOD, task=TaskSpec(reservation=Reservation(0, 1000))), "invalid memory value 1000: Must be at least"),
        (
            replace(GOOD, task=TaskSpec(restart=TaskRestartPolicy(delay_ns=-1))),
            "TaskSpec: restart-delay cannot be negative",
        ),
        (
            replace(GOOD, task=TaskSpec(restart=TaskRestartPolicy(window_ns=-1))),
            "TaskSpec: restart-window cannot be neg",
        ),
        (replace(GOOD, update=UpdateConfig(delay_ns=-1)), "TaskSpec: update-delay cannot be negative"),
        (replace(GOOD, rollback=UpdateConfig(monitor_ns=-1)), "TaskSpec: rollback-monitor cannot be negative"),
        (
            replace(GOOD, task=TaskSpec(reservation=Reservation(generic=(("gpu", 0),)))),
            "invalid argument for resource gpu",
        ),
        (replace(GOOD, update=UpdateConfig(max_failure_ratio=1.5)), "update-maxfailureratio cannot be less than 0 or"),
        (
            replace(GOOD, endpoint=EndpointSpec(EndpointMode.DNSRR, (PortSpec(80, 80),))),
            "can't be used with dnsrr mode",
        ),
        (replace(GOOD, endpoint=EndpointSpec(ports=(PortSpec(80, 1), PortSpec(81, 1)))), "duplicate published ports"),
    ],
)
def test_a_bad_spec_is_refused_in_docker_s_words(spec: ServiceSpec, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        validate_spec(spec)


def test_a_good_spec_passes_and_a_bad_constraint_is_a_plain_error() -> None:
    validate_spec(GOOD)
    validate_spec(replace(GOOD, endpoint=EndpointSpec(EndpointMode.DNSRR, (PortSpec(80, 80, mode=PublishMode.HOST),))))
    with pytest.raises(BadConstraint):
        validate_spec(replace(GOOD, task=TaskSpec(placement=Placement(("no",)))))
    assert S == 10**9
