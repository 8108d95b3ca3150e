"""The progress of each slot in a rollout.

    serving    one up-to-date task, observed running
    coming     one up-to-date task that does not run (yet, or not at the moment)
    stopped    stopped for good, and up to date
    in work    an up-to-date task beside others that have to go
    outdated   nothing up to date yet

All of it is read from the stored tasks, at every look anew; the rollout has no workers that could be lost. Docker's
worker corresponds here to a slot that *holds* one of the `parallelism` places:

* in work, or coming: until it serves again. That is more than Docker asks, where a place is free as soon as the new
  task ran once; it is what keeps a bad image from taking down more than `parallelism` slots (design law 4).
* and afterwards until the delay since its new task first ran, or ended, is over (also after the last slot).
* A slot in work whose old task still serves leaves its place to one that is down: it only waits for its own turn to be
  down, and must not wait for a slot that waits for its place.
* A slot whose failure was counted and tolerated (`Rollout.failed`) holds nothing but that delay, and one that was not
  there when the rollout began (scale-up) holds nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import Enum

from bennu.orchestration.model.config import config_in_force
from bennu.orchestration.model.nouns import Rollout, SlotKey, Task, TaskId
from bennu.orchestration.model.states import Origin, TaskState
from bennu.orchestration.slots.restart_supervisor import SlotChanges
from bennu.orchestration.slots.slots import ReconcileContext, Slot, SlotKind


class Phase(Enum):
    SERVING = "serving"
    COMING = "coming"
    STOPPED = "stopped"
    IN_WORK = "in work"
    OUTDATED = "outdated"


@dataclass(frozen=True, slots=True)
class SlotProgress:
    """The progress of one slot in a rollout."""

    slot: Slot
    phase: Phase
    keep: Task | None  # the up-to-date task, if there is one
    others: tuple[Task, ...]  # live tasks that have to go
    made: Task | None  # the first task this run of the updater made here
    why: str = ""  # why it is outdated
    failed: bool = False  # counted and tolerated
    delay_ends_ns: int | None = None  # None: no delay, or not begun
    is_new: bool = False  # was not there when the rollout began
    is_touched: bool = False  # this look already does something here
    leaving: Set[TaskId] = frozenset()  # tasks that this look already takes out of service

    @property
    def key(self) -> SlotKey:
        return self.slot.key

    @property
    def old_serves(self) -> bool:
        return any(map(self.serves, self.others))

    def serves(self, task: Task) -> bool:
        """Tell whether the task serves, and will still serve when what this look has decided is carried out."""
        return is_serving(task) and task.id not in self.leaving

    @property
    def is_down(self) -> bool:
        """True for a slot missing from service: it has live tasks, and none of them serves."""
        if self.is_new or self.phase in (Phase.SERVING, Phase.STOPPED):
            return False
        if self.phase is Phase.COMING:
            return True
        return bool(self.others) and not self.old_serves and not (self.keep and self.serves(self.keep))

    @property
    def is_prepared_beside(self) -> bool:
        """True for a slot in work with an old task that still serves: it can wait without harm."""
        return self.phase is Phase.IN_WORK and self.old_serves

    def holds(self, now_ns: int) -> bool:
        """Tell whether the slot occupies one of the `parallelism` places."""
        if self.delay_ends_ns is not None and now_ns < self.delay_ends_ns:
            return True
        if self.failed:
            return False
        if self.phase is Phase.OUTDATED:  # its task ended just now, and the successor is being made up to date
            return self.is_touched and self.is_down
        return self.phase is Phase.IN_WORK or self.is_down

    def is_finished(self, now_ns: int) -> bool:
        """Tell whether the updater has nothing left to do in this slot."""
        if self.delay_ends_ns is not None and now_ns < self.delay_ends_ns:
            return False
        if self.failed:
            return True
        if self.phase in (Phase.OUTDATED, Phase.IN_WORK):
            return False
        if self.made is None or self.made.desired > TaskState.RUNNING or self.phase is Phase.SERVING:
            return True
        return done_at(self.made) is not None


@dataclass(frozen=True, slots=True)
class Survey:
    """All slots of a service as the updater sees them in one look."""

    slots: list[SlotProgress]
    # Those that it may not touch now (their node is paused); a canary's step counts them all the same.
    aside: list[SlotProgress]

    @property
    def untouched(self) -> list[SlotProgress]:
        """Slots that this look has not changed yet."""
        return [progress for progress in self.slots if not progress.is_touched]

    @property
    def counted(self) -> list[SlotProgress]:
        """Slots that may occupy one of the `parallelism` places."""
        return [*self.slots, *(progress for progress in self.aside if progress.is_down)]

    @property
    def outdated(self) -> list[SlotProgress]:
        """Slots to update, with those whose outdated task just ended: their successors are watched like the others."""
        return [
            progress
            for progress in self.slots
            if progress.phase is Phase.OUTDATED or (progress.phase is Phase.IN_WORK and not progress.is_touched)
        ]


def survey(context: ReconcileContext, slots: Iterable[Slot], aside: Iterable[Slot], changes: SlotChanges) -> Survey:
    """Look at the live and stopped slots, with what this look already does to them."""
    rollout = context.service.rollout
    failed = frozenset(rollout.failed) if rollout is not None else frozenset()

    def progress(slot: Slot) -> SlotProgress:
        return _progress_of(context, slot, failed, slot.key in changes.touched, changes.leaving)

    return Survey([progress(slot) for slot in slots], [progress(slot) for slot in aside])


def is_serving(task: Task) -> bool:
    return task.state is TaskState.RUNNING and task.desired is TaskState.RUNNING


def done_at(task: Task) -> int | None:
    """Return when the updater was done with a task it made: it first ran, or it ended without. None: not yet."""
    if task.running_since_ns is not None:
        return task.running_since_ns
    return task.status.applied_at_ns if task.has_ended else None


def _progress_of(
    context: ReconcileContext, slot: Slot, failed: Set[SlotKey], is_touched: bool, leaving: Set[TaskId]
) -> SlotProgress:
    rollout = context.service.rollout
    made = _made_by_run(context, slot, rollout)
    done = done_at(made) if made is not None else None
    delay_ns = config_in_force(context.service).delay_ns
    keep, others, why = _split(context, slot)
    if slot.kind is SlotKind.STOPPED:
        phase = Phase.OUTDATED if why else Phase.STOPPED
    elif keep is None:
        phase = Phase.OUTDATED
    elif others:
        phase = Phase.IN_WORK
    else:
        phase = Phase.SERVING if is_serving(keep) and keep.id not in leaving else Phase.COMING
    return SlotProgress(
        slot=slot,
        phase=phase,
        keep=keep,
        others=others,
        made=made,
        why=why,
        failed=slot.key in failed,
        delay_ends_ns=done + delay_ns if done is not None and delay_ns else None,
        is_new=rollout is not None and slot.key not in rollout.slots,
        is_touched=is_touched,
        leaving=leaving,
    )


def _split(context: ReconcileContext, slot: Slot) -> tuple[Task | None, tuple[Task, ...], str]:
    """Split a slot into the task to keep and those to go, and say why the slot is outdated."""
    if slot.kind is SlotKind.STOPPED:
        return None, (), context.outdated(slot.newest) or ""
    reasons = [(task, context.outdated(task)) for task in slot.live]
    clean = [task for task, reason in reasons if reason is None]
    keep = max(clean, key=_preference, default=None)
    others = tuple(task for task in slot.live if task is not keep)
    why = next((reason for _, reason in reasons if reason), "")
    return keep, others, why


def _preference(task: Task) -> tuple[bool, bool, bool, int, str]:
    return (not task.has_ended, is_serving(task), task.desired is TaskState.RUNNING, task.created_at_ns, task.id)


def _made_by_run(context: ReconcileContext, slot: Slot, rollout: Rollout | None) -> Task | None:
    if rollout is None:
        return None
    return next(
        (
            task
            for task in slot.tasks
            if task.origin is Origin.UPDATE
            and task.spec_version == context.service.spec_version
            and task.created_at_ns >= rollout.began_at_ns
        ),
        None,
    )
