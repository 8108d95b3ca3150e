"""The restart budget: is the successor of an ended task made, and after which delay?

Law: delay, attempts and window of the policy are never exceeded, whatever the order of events and however often the
manager died in between (design law 6). The decision reads the ended task and nothing else.

Theory. Attempts belong to a slot *and* a version: an update forgives the past. Docker keeps the record of restarts in
the leader's memory and rebuilds it from whatever history is left; here each successor carries the record forward in
`Task.restarts`, so it survives managers, history limits and the reaper alike. The rules, all Docker's:

1. condition none: never, whatever the reason. on-failure: not after `complete`. any: always. Jobs know only on-failure.
2. `max_attempts` 0: no limit.
3. no window: yes while the recorded restarts are fewer than `max_attempts` (one first start + `max_attempts` restarts).
4. window: look back from the moment the manager took in the final status (of a task lost with its node: from the
   moment it was given up). Records at the far edge of the window or older are forgotten for good; records at that
   moment or later are ignored; yes while the rest is fewer.
5. the delay is the *ended* task's; the record is kept by the *successor's* policy. A drained node's task goes at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bennu.orchestration.model.nouns import Service, Task
from bennu.orchestration.model.spec import TaskRestartPolicy
from bennu.orchestration.model.states import NS_PER_SECOND, RestartCondition, TaskState

# How long a start waits for the end of what it succeeds, at most. swarmkit: one minute, not configurable.
STOP_TIMEOUT_NS = 60 * NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class RestartTask:
    """Make a successor, to be started `delay_ns` from now."""

    delay_ns: int
    restarts: tuple[int, ...]  # the record the successor carries
    reason: str


@dataclass(frozen=True, slots=True)
class KeepEnded:
    """Leave the slot with its ended task."""

    reason: str


def may_restart(task: Task, *, is_job: bool, now_ns: int) -> str | None:
    """Refuse a successor in words, or answer None if the policy grants one.

    Once the task has ended or was given up, the answer depends on stored facts alone and no longer on `now_ns`.
    """
    policy = task.spec.restart_policy
    match policy.condition:
        case RestartCondition.NONE:
            return "restart condition is none"
        case RestartCondition.ON_FAILURE if task.state is TaskState.COMPLETE:
            return "it completed, and the restart condition is on-failure"
        case RestartCondition.ANY if is_job and task.state is TaskState.COMPLETE:
            return "it completed, and that is what a job is for"
    if policy.max_attempts == 0:
        return None
    counted = len(_in_window(task, policy, now_ns))
    if counted < policy.max_attempts:
        return None
    within = f" within {policy.window_ns / NS_PER_SECOND:g} s" if policy.window_ns else ""
    return f"used all {policy.max_attempts} restart attempts{within}"


def decide_restart(
    task: Task, service: Service, *, of_slot: Iterable[Task], at_once: bool, now_ns: int
) -> RestartTask | KeepEnded:
    """Decide what follows a task that ended or whose node is gone.

    Args:
        task: the ended task; its own policy decides and gives the delay.
        service: whose current spec the successor will be made from; its policy keeps the record.
        of_slot: all tasks of its slot; restarts of the version that is in force count, whichever task records them.
        at_once: a person drains the node: no delay.
        now_ns: when the successor is made; this is the instant recorded.
    """
    refusal = may_restart(task, is_job=service.is_job, now_ns=now_ns)
    if refusal is not None:
        return KeepEnded(refusal)
    policy = task.spec.restart_policy
    delay_ns = 0 if at_once else policy.delay_ns
    return RestartTask(
        delay_ns, next_record(task, service, of_slot, now_ns=now_ns), _describe(task, policy, delay_ns, at_once)
    )


def next_record(task: Task, service: Service, of_slot: Iterable[Task], *, now_ns: int) -> tuple[int, ...]:
    """Build the record that the successor of `task` carries: past restarts of this slot and version, and this one."""
    policy = service.spec.task.restart_policy
    if policy.max_attempts == 0:
        return ()
    past = {at for known in of_slot if known.spec_version == service.spec_version for at in known.restarts}
    if policy.window_ns:
        past = {at for at in past if at > _ended_at(task, now_ns) - policy.window_ns}
    return (*sorted(past), now_ns)[-policy.max_attempts :]


def _in_window(task: Task, policy: TaskRestartPolicy, now_ns: int) -> tuple[int, ...]:
    if policy.window_ns == 0:
        return task.restarts
    ended = _ended_at(task, now_ns)
    return tuple(at for at in task.restarts if ended - policy.window_ns < at < ended)


def _ended_at(task: Task, now_ns: int) -> int:
    """Return when the task ended for the manager.

    A lost task that is reported stopped much later ended when given up.
    """
    known = [task.status.applied_at_ns] if task.has_ended else []
    if task.stop_ordered_at_ns is not None:
        known.append(task.stop_ordered_at_ns)
    return min(known, default=now_ns)


def _describe(task: Task, policy: TaskRestartPolicy, delay_ns: int, at_once: bool) -> str:
    when = "at once, its node is drained" if at_once else f"after {delay_ns / NS_PER_SECOND:g} s"
    attempt = f", attempt {len(task.restarts) + 1} of {policy.max_attempts}" if policy.max_attempts else ""
    return f"restart condition is {policy.condition}; {when}{attempt}"
