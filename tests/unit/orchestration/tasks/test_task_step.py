"""What a node does next for a task, over all that can be wanted and seen of it."""

from itertools import product

import pytest

from bennu.orchestration.model.states import TaskState
from bennu.orchestration.tasks.observe import Report
from bennu.orchestration.tasks.task_step import (
    MESSAGES,
    End,
    Hold,
    Prepare,
    Serve,
    StartTask,
    Stop,
    TaskProcess,
    TaskSeen,
    TaskStep,
    next_task_step,
    progress,
    refusal,
)

T = TaskState
DESIRED = (T.READY, T.RUNNING, T.COMPLETE, T.SHUTDOWN, T.REMOVE)
REPORTED = (T.ASSIGNED, T.ACCEPTED, T.PREPARING, T.READY, T.STARTING, T.RUNNING)
SEEN = [
    TaskSeen(process, health, is_up, code)
    for process, health, is_up, code in product(
        TaskProcess, ("none", "starting", "healthy", "unhealthy"), (False, True), (0, 1, None)
    )
]
PORTS = "none of its published ports accepts a connection yet"


@pytest.mark.parametrize(
    ("desired", "reported", "seen", "step"),
    [
        pytest.param(T.READY, T.ASSIGNED, TaskSeen(TaskProcess.ABSENT), Prepare(), id="new"),
        pytest.param(
            T.READY, T.PREPARING, TaskSeen(TaskProcess.ABSENT), Prepare(), id="its-node-died-while-it-prepared"
        ),
        pytest.param(
            T.SHUTDOWN, T.ASSIGNED, TaskSeen(TaskProcess.ABSENT), End(progress(T.SHUTDOWN)), id="ended-unprepared"
        ),
        pytest.param(
            T.RUNNING,
            T.READY,
            TaskSeen(TaskProcess.ABSENT),
            End(Report(T.REJECTED, err="No such container: web.1.x")),
            id="its-container-is-gone",
        ),
        pytest.param(
            T.REMOVE,
            T.RUNNING,
            TaskSeen(TaskProcess.ABSENT),
            End(Report(T.FAILED, err="No such container: web.1.x")),
            id="it-is-gone-though-it-ran",
        ),
        pytest.param(T.READY, T.PREPARING, TaskSeen(TaskProcess.MADE), Hold(), id="prepared"),
        pytest.param(T.RUNNING, T.READY, TaskSeen(TaskProcess.MADE), StartTask(), id="told-to-run"),
        pytest.param(T.COMPLETE, T.READY, TaskSeen(TaskProcess.MADE), StartTask(), id="a-job-is-told-to-run"),
        pytest.param(T.SHUTDOWN, T.READY, TaskSeen(TaskProcess.MADE), End(progress(T.SHUTDOWN)), id="ended-unstarted"),
        pytest.param(T.RUNNING, T.STARTING, TaskSeen(TaskProcess.RUNS), Serve(T.STARTING, PORTS), id="not-up"),
        pytest.param(T.RUNNING, T.STARTING, TaskSeen(TaskProcess.RUNS, is_up=True), Serve(T.RUNNING), id="up"),
        pytest.param(
            T.RUNNING,
            T.STARTING,
            TaskSeen(TaskProcess.RUNS, "starting", is_up=True),
            Serve(T.STARTING, "its health check has not succeeded yet"),
            id="its-health-is-not-known",
        ),
        pytest.param(
            T.RUNNING, T.RUNNING, TaskSeen(TaskProcess.RUNS), Serve(T.RUNNING), id="it-stays-running-once-told"
        ),
        pytest.param(
            T.RUNNING, T.RUNNING, TaskSeen(TaskProcess.RUNS, "unhealthy"), Stop(for_health=True), id="unhealthy"
        ),
        pytest.param(
            T.SHUTDOWN, T.RUNNING, TaskSeen(TaskProcess.RUNS, "unhealthy"), Stop(), id="an-order-explains-more"
        ),
        pytest.param(
            T.RUNNING,
            T.RUNNING,
            TaskSeen(TaskProcess.ENDED, exit_code=0),
            End(Report(T.COMPLETE, "finished", exit_code=0)),
            id="completed",
        ),
        pytest.param(
            T.SHUTDOWN,
            T.RUNNING,
            TaskSeen(TaskProcess.ENDED, exit_code=143),
            End(Report(T.SHUTDOWN, "shutdown", exit_code=143)),
            id="ended-as-ordered",
        ),
    ],
)
def test_the_next_step(desired: TaskState, reported: TaskState, seen: TaskSeen, step: TaskStep) -> None:
    assert next_task_step(desired, reported, seen, name="web.1.x") == step


@pytest.mark.parametrize("seen", SEEN, ids=str)
def test_whatever_is_seen_a_task_that_is_to_end_takes_no_step_but_towards_its_end(seen: TaskSeen) -> None:
    for desired, reported in product((T.SHUTDOWN, T.REMOVE), REPORTED):
        step = next_task_step(desired, reported, seen, name="x")
        assert isinstance(step, Stop if seen.process is TaskProcess.RUNS else End)


@pytest.mark.parametrize("seen", SEEN, ids=str)
def test_a_step_fits_what_is_seen_and_an_end_is_told_of_no_process_that_runs(seen: TaskSeen) -> None:
    fitting = {
        TaskProcess.ABSENT: (Prepare, End),
        TaskProcess.MADE: (Hold, StartTask, End),
        TaskProcess.RUNS: (Serve, Stop),
        TaskProcess.ENDED: (End,),
    }
    for desired, reported in product(DESIRED, REPORTED):
        step = next_task_step(desired, reported, seen, name="x")
        assert isinstance(step, fitting[seen.process])
        if isinstance(step, End):
            assert step.report.state > T.RUNNING
        if isinstance(step, Serve):
            assert (step.state is T.RUNNING) is not bool(step.awaits)
            assert step.state >= reported


def test_each_state_on_the_way_has_its_words_and_a_refusal_tells_whether_it_was_started() -> None:
    assert all(progress(state).message for state in MESSAGES)
    assert [refusal(state, "no").state for state in (T.PREPARING, T.READY, T.STARTING)] == [
        T.REJECTED,
        T.REJECTED,
        T.FAILED,
    ]
