"""Closed sets of the orchestration core, with the words of the API.

Law: the state of a task is an ordered number, and both of its states, the desired one and the observed one, only grow.
The gaps between the ordinals are Docker's; "beyond running" everywhere means a larger ordinal than `RUNNING`, and that
is why `TaskState` is an integer: comparing two states with `<` is the semantics, not an accident of spelling.

        new → pending → assigned → accepted → preparing → ready → starting → running
                                                                               │
                     complete · shutdown · failed · rejected · (remove) · orphaned      all "beyond running"

`REMOVE` is only ever desired, `ORPHANED` only ever observed.
"""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum
from typing import Final

NS_PER_SECOND: Final = 1_000_000_000


class TaskState(IntEnum):
    """The state where a task is, or where it should be. `word` is the API's spelling."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def word(self) -> str:
        """The API's spelling: "running"."""
        return self.name.lower()

    @classmethod
    def from_word(cls, word: str) -> TaskState:
        """Read the API's spelling. Raises KeyError with the word."""
        return _BY_WORD[word]


_BY_WORD: Final = {state.name.lower(): state for state in TaskState}


class NodeState(StrEnum):
    """The state that the managers believe a node's agent to be in."""

    UNKNOWN = "unknown"
    READY = "ready"
    DOWN = "down"
    DISCONNECTED = "disconnected"


class Availability(StrEnum):
    """The availability that a person wants of a node."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class Role(StrEnum):
    WORKER = "worker"
    MANAGER = "manager"


class RestartCondition(StrEnum):
    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


class FailureAction(StrEnum):
    PAUSE = "pause"
    CONTINUE = "continue"
    ROLLBACK = "rollback"


class UpdateOrder(StrEnum):
    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


class UpdateState(StrEnum):
    """`UpdateStatus.State` of a service. Absent (None) means: no rollout was needed since the last accepted update."""

    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"

    @property
    def is_paused(self) -> bool:
        return self in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)

    @property
    def is_under_way(self) -> bool:
        return self in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)

    @property
    def is_rollback(self) -> bool:
        return self in (UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_COMPLETED)


class EndpointMode(StrEnum):
    VIP = "vip"
    DNSRR = "dnsrr"


class PublishMode(StrEnum):
    INGRESS = "ingress"
    HOST = "host"


class Origin(Enum):
    """The reason why a task was made. The updater counts failures by it; nothing else may read intent from a task."""

    CREATE = "create"  # a slot that was empty: service create, scale-up, a node that joined
    RESTART = "restart"  # the successor of a task that ended or was lost
    UPDATE = "update"  # made by the updater for a slot whose task was outdated
