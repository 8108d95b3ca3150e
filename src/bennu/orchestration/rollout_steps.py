"""The two moves of the updater: take a slot into work, and finish one that is.

Law: a serving task is told to stop only for a successor that is prepared (stop-first) or runs (start-first), or whose
only obstacle is the room it takes; and in stop-first order only while fewer than `parallelism` slots are down.
"""

from __future__ import annotations

from bennu.orchestration.actions import CreateTask, SetDesired
from bennu.orchestration.config import config_in_force, starts_beside
from bennu.orchestration.model import NodeId, Task
from bennu.orchestration.seats import Phase, Seat, Survey, is_serving
from bennu.orchestration.slots import Scene
from bennu.orchestration.states import Origin, TaskState


def places(scene: Scene, seats: list[Seat]) -> int:
    """`parallelism`, with 0 read as Docker reads it."""
    return config_in_force(scene.service).parallelism or len(seats)


def finish(scene: Scene, view: Survey, *, paused: bool) -> None:
    """Stop what the slots in work no longer need. While paused, slots that still serve the old way go back to it."""
    seats = view.counted
    down = sum(1 for seat in seats if seat.is_down and not seat.failed)
    for seat in view.untouched:
        if seat.phase is not Phase.IN_WORK or seat.keep is None:
            continue
        if paused and seat.old_serves and not starts_beside(scene.service):
            if not is_serving(seat.keep):
                _withdraw(scene, seat, seat.keep)
            continue
        for old in seat.others:
            reason = _why_stop(scene, seat, seat.keep, old)
            if reason is None:
                continue
            if is_serving(old) and not is_serving(seat.keep) and not starts_beside(scene.service):
                if down >= places(scene, seats):
                    reason = f"{down} slots are down and no more than {places(scene, seats)} may be: its old task stays"
                    scene.draft.wait(seat.key, reason)
                    continue
                down += 1
            scene.draft.do(SetDesired(old.id, TaskState.SHUTDOWN, reason))


def _withdraw(scene: Scene, seat: Seat, prepared: Task) -> None:
    reason = "the rollout is paused and the old task still serves: the new one is put away"
    scene.draft.do(SetDesired(prepared.id, TaskState.SHUTDOWN, reason))
    scene.draft.wait(seat.key, "stays with its old task while the rollout is paused")


def _why_stop(scene: Scene, seat: Seat, keep: Task, old: Task) -> str | None:
    """Why the old task may go now; None (and a wait) if it has to stay for the time being."""
    if is_serving(keep):
        return f"task {keep.id} runs in its place"
    if not is_serving(old):
        return f"it does not serve, and task {keep.id} takes its place"
    if starts_beside(scene.service):
        why = f" ({keep.status.err})" if keep.status.err else ""
        scene.draft.wait(seat.key, f"its old task stays until the new one runs: it is {keep.state.word}{why}")
        return None
    if keep.has_ended or scene.now_ns < keep.start_at_ns:
        scene.draft.wait(seat.key, "its old task stays: the new one is being tried again")
        return None
    if keep.waits_for_room:
        return f"task {keep.id} needs the room it takes"
    if keep.state >= TaskState.READY:
        return f"task {keep.id} is prepared to take its place"
    why = f" ({keep.status.err})" if keep.status.err else ""
    scene.draft.wait(seat.key, f"its old task serves until the new one is prepared: it is {keep.state.word}{why}")
    return None


def take(scene: Scene, view: Survey, *, limit: int | None) -> None:
    """Take outdated slots into work while there are places free; those that are down first.

    `limit` bounds how many slots may be of the new version, or on the way to it, in all (canary).
    """
    seats = view.counted
    holding = [seat for seat in seats if seat.holds(scene.now_ns)]
    free = places(scene, seats) - len(holding)
    for_down = free + sum(1 for seat in holding if seat.is_prepared_beside)
    if limit is not None:
        left = limit - sum(1 for seat in seats if seat.phase is not Phase.OUTDATED)
        free, for_down = min(free, left), min(for_down, left)
    waiting = [seat for seat in view.untouched if seat.phase is Phase.OUTDATED and not seat.failed]
    waiting.sort(key=lambda seat: (seat.slot.is_running, seat.key))
    for taken, seat in enumerate(waiting):
        if taken < (free if seat.old_serves else for_down):
            begin_slot(scene, seat)
        else:
            scene.draft.wait(seat.key, "outdated; it waits for its turn in the rollout")


def begin_slot(scene: Scene, seat: Seat) -> None:
    """Make the new task of a slot. What does not serve there is stopped at once."""
    old_ids = ", ".join(task.id for task in seat.others) or "none"
    scene.draft.do(
        CreateTask(
            slot=seat.key.number,
            node_id=NodeId(seat.key.node_id) if seat.key.node_id else None,
            desired=TaskState.READY,
            origin=Origin.UPDATE,
            reason=f"update of {seat.key}, old task {old_ids}: {seat.why}",
        )
    )
    for old in seat.others:
        if not is_serving(old):
            scene.draft.do(SetDesired(old.id, TaskState.SHUTDOWN, "it does not serve and is being replaced"))
