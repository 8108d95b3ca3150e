"""The two moves of the updater: take a slot into work, and finish one that is.

Law: a serving task is told to stop only for a successor that is prepared (stop-first) or runs (start-first), or whose
only obstacle is the room it takes; and in stop-first order only while fewer than `parallelism` slots are down.
"""

from __future__ import annotations

from bennu.orchestration.model.actions import CreateTask, SetDesired
from bennu.orchestration.model.config import config_in_force, starts_beside
from bennu.orchestration.model.nouns import NodeId, Task
from bennu.orchestration.model.states import Origin, TaskState
from bennu.orchestration.rollout.slot_progress import Phase, SlotProgress, Survey, is_serving
from bennu.orchestration.slots.slots import ReconcileContext


def places(context: ReconcileContext, slots: list[SlotProgress]) -> int:
    """Return `parallelism`, with 0 read as Docker reads it."""
    return config_in_force(context.service).parallelism or len(slots)


def finish(context: ReconcileContext, view: Survey, *, paused: bool) -> None:
    """Stop the tasks the slots in work no longer need.

    While the rollout is paused, slots that still serve the old way go back to it.
    """
    slots = view.counted
    down = sum(1 for progress in slots if progress.is_down and not progress.failed)
    for progress in view.untouched:
        if progress.phase is not Phase.IN_WORK or progress.keep is None:
            continue
        if paused and progress.old_serves and not starts_beside(context.service):
            if not is_serving(progress.keep):
                _withdraw(context, progress, progress.keep)
            continue
        for old in progress.others:
            reason = _why_stop(context, progress, progress.keep, old)
            if reason is None:
                continue
            if is_serving(old) and not is_serving(progress.keep) and not starts_beside(context.service):
                if down >= places(context, slots):
                    reason = (
                        f"{down} slots are down and no more than {places(context, slots)} may be: its old task stays"
                    )
                    context.draft.wait(progress.key, reason)
                    continue
                down += 1
            context.draft.do(SetDesired(old.id, TaskState.SHUTDOWN, reason))


def _withdraw(context: ReconcileContext, progress: SlotProgress, prepared: Task) -> None:
    reason = "the rollout is paused and the old task still serves: the new one is put away"
    context.draft.do(SetDesired(prepared.id, TaskState.SHUTDOWN, reason))
    context.draft.wait(progress.key, "stays with its old task while the rollout is paused")


def _why_stop(context: ReconcileContext, progress: SlotProgress, keep: Task, old: Task) -> str | None:
    """Say why the old task may go now; None (and a wait) if it has to stay for the time being."""
    if is_serving(keep):
        return f"task {keep.id} runs in its place"
    if not is_serving(old):
        return f"it does not serve, and task {keep.id} takes its place"
    if starts_beside(context.service):
        why = f" ({keep.status.err})" if keep.status.err else ""
        context.draft.wait(progress.key, f"its old task stays until the new one runs: it is {keep.state.word}{why}")
        return None
    if keep.has_ended or context.now_ns < keep.start_at_ns:
        context.draft.wait(progress.key, "its old task stays: the new one is being tried again")
        return None
    if keep.waits_for_room:
        return f"task {keep.id} needs the room it takes"
    if keep.state >= TaskState.READY:
        return f"task {keep.id} is prepared to take its place"
    why = f" ({keep.status.err})" if keep.status.err else ""
    context.draft.wait(progress.key, f"its old task serves until the new one is prepared: it is {keep.state.word}{why}")
    return None


def take(context: ReconcileContext, view: Survey, *, limit: int | None) -> None:
    """Take outdated slots into work while there are places free, first the slots that are down.

    `limit` bounds how many slots may be of the new version, or on the way to it, in all (canary).
    """
    slots = view.counted
    holding = [progress for progress in slots if progress.holds(context.now_ns)]
    free = places(context, slots) - len(holding)
    for_down = free + sum(1 for progress in holding if progress.is_prepared_beside)
    if limit is not None:
        left = limit - sum(1 for progress in slots if progress.phase is not Phase.OUTDATED)
        free, for_down = min(free, left), min(for_down, left)
    waiting = [progress for progress in view.untouched if progress.phase is Phase.OUTDATED and not progress.failed]
    waiting.sort(key=lambda progress: (progress.slot.is_running, progress.key))
    for taken, progress in enumerate(waiting):
        if taken < (free if progress.old_serves else for_down):
            begin_slot(context, progress)
        else:
            context.draft.wait(progress.key, "outdated; it waits for its turn in the rollout")


def begin_slot(context: ReconcileContext, progress: SlotProgress) -> None:
    """Make the new task of a slot. An old task that does not serve is stopped at once."""
    old_ids = ", ".join(task.id for task in progress.others) or "none"
    context.draft.do(
        CreateTask(
            slot=progress.key.number,
            node_id=NodeId(progress.key.node_id) if progress.key.node_id else None,
            desired=TaskState.READY,
            origin=Origin.UPDATE,
            reason=f"update of {progress.key}, old task {old_ids}: {progress.why}",
        )
    )
    for old in progress.others:
        if not is_serving(old):
            context.draft.do(SetDesired(old.id, TaskState.SHUTDOWN, "it does not serve and is being replaced"))
