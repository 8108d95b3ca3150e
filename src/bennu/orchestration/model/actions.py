"""Plans: the actions to take and their reasons, what is being waited for, and when to look again.

Law: an action is a value with its reason in words, and needs nothing the core does not have: no new id, no clock.
A plan may be cut after any action (the manager can die there); the next look at the stored state must yield the rest.
So a plan lists a successor before the end of the task it succeeds, and a record before the actions it is about.

The plan for one service is cut by the core itself, after `PORTION` actions: however much there is to do, a look is
short and so is the transaction that carries it out, and all other work of the thread has its turn in between.

Carrying out is the shell's: each plan in one transaction if it can, in the listed order if it must. `apply.py` says
exactly what each action does to the stored values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, TypeAlias

from bennu.orchestration.model.nouns import NodeId, Rollout, TaskId, UpdateStatus
from bennu.orchestration.model.states import NodeState, Origin, TaskState

PORTION: Final = 1_000


@dataclass(frozen=True, slots=True)
class CreateTask:
    """Make a task of the service's current spec, or of the one before.

    The shell gives it an id; `apply.new_task` builds it.
    """

    slot: int
    reason: str
    node_id: NodeId | None = None
    desired: TaskState = TaskState.RUNNING
    origin: Origin = Origin.CREATE
    start_at_ns: int = 0
    restarts: tuple[int, ...] = ()
    of_previous: bool = False


@dataclass(frozen=True, slots=True)
class SetDesired:
    """Raise a task's desired state. Raising it to what it already is, or lower, is a no-op."""

    task_id: TaskId
    desired: TaskState
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteTask:
    """Forget a task. Its node deletes what is left of the container."""

    task_id: TaskId
    reason: str


@dataclass(frozen=True, slots=True)
class AssignTask:
    """Give a pending task to a node, with the generic resources it may use."""

    task_id: TaskId
    node_id: NodeId
    message: str
    reason: str
    granted: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RefuseTask:
    """Leave a task pending and say why, in the words a client sees as `Status.Err`."""

    task_id: TaskId
    err: str
    waits_for_room: bool = False

    @property
    def reason(self) -> str:
        return self.err


@dataclass(frozen=True, slots=True)
class EndTask:
    """Record an end that no agent reports: rejected by the constraint enforcer, or orphaned with its node."""

    task_id: TaskId
    state: TaskState
    message: str
    err: str
    reason: str


@dataclass(frozen=True, slots=True)
class SetRollout:
    """Store what clients see of the rollout and what the updater remembers of it."""

    update_status: UpdateStatus | None
    rollout: Rollout | None
    reason: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """Restore the previous spec on the updater's own account."""

    update_status: UpdateStatus
    reason: str


@dataclass(frozen=True, slots=True)
class SetNodeState:
    node_id: NodeId
    state: NodeState
    message: str
    reason: str


Action: TypeAlias = (
    CreateTask | SetDesired | DeleteTask | AssignTask | RefuseTask | EndTask | SetRollout | RollBack | SetNodeState
)


@dataclass(frozen=True, slots=True)
class Wait:
    """Something wanted that is not so yet, and the reason. `until_ns` None: until something else changes."""

    subject: str
    reason: str
    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to one look.

    After carrying it out, look again: at once if there were actions, else at `wake_at_ns` or when something changed.
    """

    actions: tuple[Action, ...] = ()
    waits: tuple[Wait, ...] = ()
    wake_at_ns: int | None = None


@dataclass(slots=True)
class Draft:
    """A plan being written. It never leaves the core; values tell one part what it has to know of another."""

    actions: list[Action] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    wake_at_ns: int | None = None
    _first: SetRollout | RollBack | None = None
    _deleted: set[TaskId] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        return self._first is None and not self.actions

    def do(self, action: Action) -> None:
        self.actions.append(action)

    def lead(self, record: SetRollout | RollBack) -> None:
        """Put the rollout's record before every action, at most once in a plan."""
        assert self._first is None, "a look writes one record of a rollout"
        self._first = record

    def delete(self, task_id: TaskId, reason: str) -> None:
        """Delete a task, once: the first reason stands."""
        if task_id not in self._deleted:
            self._deleted.add(task_id)
            self.do(DeleteTask(task_id, reason))

    def wait(self, subject: object, reason: str, until_ns: int | None = None) -> None:
        self.waits.append(Wait(str(subject), reason, until_ns))
        if until_ns is not None:
            self.wake(until_ns)

    def wake(self, at_ns: int) -> None:
        """Ask to be looked at again no later than `at_ns`."""
        if self.wake_at_ns is None or at_ns < self.wake_at_ns:
            self.wake_at_ns = at_ns

    def finish(self) -> Plan:
        """Make the whole plan; a spec that is being left is left before anything else is done for the service."""
        if isinstance(self._first, RollBack):
            ordered: Iterable[Action] = (self._first,)
        elif self._first is not None:
            ordered = chain((self._first,), self.actions)
        else:
            ordered = self.actions
        return Plan(tuple(ordered), tuple(self.waits), self.wake_at_ns)

    def finish_portion(self) -> Plan:
        """Make a plan of only the first `PORTION` actions, for a caller that looks again as long as there are any."""
        whole = self.finish()
        return replace(whole, actions=whole.actions[:PORTION])
