"""Blue/green: all new tasks beside the old ones, then one switch of the traffic.

Law: no old task is stopped before the traffic was switched and the warm time is over or a person promoted the rollout;
until then going back is one switch.
"""

from __future__ import annotations

from dataclasses import replace

from bennu.orchestration.model.nouns import BlueGreenRun, Service, SlotKey, Task
from bennu.orchestration.model.spec import BlueGreen
from bennu.orchestration.model.states import NS_PER_SECOND, TaskState, UpdateState
from bennu.orchestration.rollout.slot_progress import Phase, Survey, is_serving
from bennu.orchestration.rollout.steps import begin_slot
from bennu.orchestration.rollout.watched_run import condemn, is_of_rollout, store_run
from bennu.orchestration.slots.slots import ReconcileContext


def may_serve(service: Service, task: Task) -> bool:
    """Tell whether the load balancer may send a ready task of the service new connections.

    Always, except under blue/green: before the switch the new version gets nothing, after it the old one gets nothing.
    """
    status, run = service.update_status, service.rollout
    if not isinstance(run, BlueGreenRun) or status is None:
        return True
    if status.state not in (UpdateState.UPDATING, UpdateState.PAUSED):
        return True
    return is_of_rollout(service, run, task) is (run.switched_at_ns is not None)


def advance_blue_green(context: ReconcileContext, strategy: BlueGreen, run: BlueGreenRun, view: Survey) -> None:
    """Advance through the stages: green beside blue, then the switch, then the warm time.

    Each stage is entered by a stored record.
    """
    slots = view.slots
    dead = next(
        (task for progress in slots for task in progress.slot.tasks if _is_dead_green(context, run, task)), None
    )
    if dead is not None:
        when = "before the switch" if run.switched_at_ns is None else "after the switch"
        condemn(context, run, f"blue/green: task {dead.id} of the new version ended {when}")
        return
    if run.switched_at_ns is not None:
        _keep_warm(context, strategy, run, run.switched_at_ns)
        return
    for progress in view.untouched:
        if progress.phase is Phase.OUTDATED:
            begin_slot(context, progress)
    missing = [progress.key for progress in slots if progress.keep is None or not is_serving(progress.keep)]
    if missing:
        _await_green(context, strategy, run, missing)
    elif run.ready_at_ns is None:
        ready = replace(run, ready_at_ns=context.now_ns)
        store_run(context, ready, f"all {len(slots)} new tasks run beside the old ones")
    elif context.now_ns < run.ready_at_ns + strategy.settle_ns:
        context.draft.wait("rollout", "the new version settles", run.ready_at_ns + strategy.settle_ns)
    else:
        reason = f"all {len(slots)} new tasks ran for {strategy.settle_ns / NS_PER_SECOND:g} s without an end"
        store_run(
            context, replace(run, switched_at_ns=context.now_ns, verdict=reason), f"traffic is switched: {reason}"
        )


def _await_green(context: ReconcileContext, strategy: BlueGreen, run: BlueGreenRun, missing: list[SlotKey]) -> None:
    deadline = run.began_at_ns + strategy.ready_within_ns
    if run.ready_at_ns is None and context.now_ns >= deadline:
        limit = strategy.ready_within_ns / NS_PER_SECOND
        condemn(context, run, f"blue/green: the new task of {missing[0]} was not ready within {limit:g} s")
        return
    context.draft.wait("rollout", f"the new tasks of {len(missing)} slots do not run yet", deadline)


def _keep_warm(context: ReconcileContext, strategy: BlueGreen, run: BlueGreenRun, switched_at_ns: int) -> None:
    until = switched_at_ns + strategy.keep_warm_ns
    if context.now_ns < until:
        context.draft.wait("rollout", "the old version is kept warm for a switch back", until)
    else:
        store_run(context, replace(run, promoted=True), "the warm time is over: the old version goes")


def _is_dead_green(context: ReconcileContext, run: BlueGreenRun, task: Task) -> bool:
    if not is_of_rollout(context.service, run, task) or not task.has_ended or task.desired is TaskState.REMOVE:
        return False
    lost = context.lost_because(task)
    return lost is None and task.state is not TaskState.ORPHANED
