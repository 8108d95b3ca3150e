"""When a task enters and leaves the load balancer, and when it may be told to stop (design law 5)."""

from dataclasses import replace

import pytest
from orchestration.stage import S

from bennu.orchestration.model.states import TaskState
from bennu.orchestration.tasks.traffic import Backend, Readiness, Signs, Step, decide_ready, plan_traffic

READY = Readiness(True, "it is healthy")
SERVING = Backend(READY, in_balancer=True)
LEFT = Backend(READY, left_at_ns=100 * S, is_to_stop=True, connections=0)


@pytest.mark.parametrize(
    ("signs", "ready"),
    [
        pytest.param(Signs(TaskState.STARTING, healthy=True), False, id="not-running"),
        pytest.param(Signs(TaskState.RUNNING), True, id="nothing-to-ask"),
        pytest.param(Signs(TaskState.RUNNING, healthy=False, port_accepts=True), False, id="health-decides-first"),
        pytest.param(Signs(TaskState.RUNNING, label_ready=False, port_accepts=True), False, id="then-the-label"),
        pytest.param(Signs(TaskState.RUNNING, port_accepts=False), False, id="then-the-port"),
        pytest.param(Signs(TaskState.RUNNING, port_accepts=True), True, id="port-accepts"),
    ],
)
def test_the_first_sign_that_exists_decides(signs: Signs, ready: bool) -> None:
    assert decide_ready(signs).is_ready is ready


@pytest.mark.parametrize(
    ("backend", "at", "step"),
    [
        pytest.param(Backend(READY), 0, Step.ENTER, id="ready-enters"),
        pytest.param(Backend(Readiness(False, "no")), 0, Step.WAIT, id="unready-stays-out"),
        pytest.param(Backend(READY, may_serve=False), 0, Step.WAIT, id="not-this-version-s-turn"),
        pytest.param(SERVING, 0, Step.WAIT, id="serving-stays"),
        pytest.param(replace(SERVING, readiness=Readiness(False, "no")), 0, Step.LEAVE, id="unready-leaves"),
        pytest.param(replace(SERVING, may_serve=False), 0, Step.LEAVE, id="switched-away"),
        pytest.param(replace(SERVING, is_to_stop=True), 0, Step.LEAVE, id="leaves-before-it-stops"),
        pytest.param(LEFT, 100, Step.STOP, id="no-connection-no-wait"),
        pytest.param(replace(LEFT, connections=2), 109.9, Step.WAIT, id="connections-are-waited-for"),
        pytest.param(replace(LEFT, connections=2), 110, Step.STOP, id="until-the-deadline"),
        pytest.param(replace(LEFT, connections=None), 101.9, Step.WAIT, id="uncountable-two-blind-seconds"),
        pytest.param(replace(LEFT, connections=None), 102, Step.STOP, id="and-no-more"),
        pytest.param(replace(LEFT, has_tcp=False, has_udp=True), 100.9, Step.WAIT, id="udp-one-second"),
        pytest.param(replace(LEFT, has_tcp=False, has_udp=True), 101, Step.STOP, id="udp-then-stop"),
        pytest.param(replace(LEFT, left_at_ns=None), 0, Step.STOP, id="never-served"),
        pytest.param(replace(LEFT, has_tcp=False), 100, Step.STOP, id="publishes-nothing"),
        pytest.param(replace(LEFT, connections=1, deadline_ns=0), 100, Step.STOP, id="deadline-0"),
    ],
)
def test_one_step_at_a_time(backend: Backend, at: float, step: Step) -> None:
    plan = plan_traffic(backend, now_ns=round(at * S))
    assert plan.step is step
    assert plan.reason
    if step is Step.WAIT and backend.is_to_stop:
        assert plan.wake_at_ns is not None


def test_no_signal_while_in_the_balancer_or_before_the_drain_ended() -> None:
    """The whole small domain."""
    for in_balancer in (False, True):
        for left in (None, 100 * S):
            for connections in (None, 0, 3):
                for udp in (False, True):
                    for now in range(100, 112):
                        backend = Backend(READY, in_balancer, left, True, True, True, udp, connections)
                        plan = plan_traffic(backend, now_ns=now * S)
                        if plan.step is not Step.STOP:
                            continue
                        assert not in_balancer
                        assert left is None or connections == 0 or now >= 110 or (connections is None and now >= 102)


def test_a_stop_past_its_deadline_says_what_it_cuts() -> None:
    assert (
        plan_traffic(replace(LEFT, connections=1), now_ns=112 * S).reason == "1 connection is still open after 12.0 s"
    )
