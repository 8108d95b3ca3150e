"""The known facts of a container's life, in groups, and the policy in its configuration. Pure.

Laws, held by `life.TABLE` and tested over its whole domain:
    a process lives (`Run.pid`) if, and only if, the state is running or paused
    a restart is due (`Restarts.due_ns`) if, and only if, the state is restarting
"""

from dataclasses import dataclass
from signal import SIGKILL
from typing import Final

from bennu.lifecycle.death import Requester, SentSignal, Verb
from bennu.lifecycle.governor import CrashHistory, Governor
from bennu.lifecycle.health import Check, HealthState, OnUnhealthy
from bennu.lifecycle.restart import RestartHistory, RestartPolicy
from bennu.lifecycle.status import State

MEMORY_KILL_TAKES_NS: Final = 5 * 10**9  # from the news of a kill for memory until its victim has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The present run, or the last one; zeros before the first. Instants are wall clock, in ns."""

    pid: int = 0  # the host's, of the container's init; 0: no process
    boot_id: str = ""  # of the boot in which pid and sandbox are valid
    started_at_ns: int = 0
    health: HealthState | None = None  # None: no health check
    signals: tuple[SentSignal, ...] = ()  # the last hundred
    undelivered: int = 0  # the last of them, while it may not have been sent yet
    oom_told: int = 0  # how many processes that were killed for memory the events have told of
    oom_told_at_ns: int = 0  # when the last of them was told; 0: none was, or by an earlier bennud
    restart_unhealthy: bool = False  # it is being ended for bad health, only to be started again
    pause_is_brief: bool = False  # it is, or is about to be, paused for the length of a request


@dataclass(frozen=True, slots=True, kw_only=True)
class LastEnd:
    """The end of the last run, or the last failed start. While a process lives, only `finished_at_ns` counts."""

    exit_code: int | None = 0  # None: it ended and nobody knows how
    finished_at_ns: int = 0
    error: str = ""  # of a failed start
    oom_killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """The restarts by the policy since a person's last start, and the actions of a person on the container."""

    count: int = 0
    delay_ns: int = 0  # the last back-off delay
    due_ns: int = 0  # when the pending restart happens; 0 = none pending
    cancelled: bool = False  # by a person's stop, until the next start by a person (or at boot)
    stopped_by_user: bool = False
    instants_ns: tuple[int, ...] = ()  # of the restarts, for the governor
    score: float = 0.0
    scored_at_ns: int = 0
    gave_up: bool = False  # the budget is used up: only a person starts it again

    @property
    def history(self) -> RestartHistory:
        return RestartHistory(self.count, self.delay_ns, self.cancelled)

    @property
    def crashes(self) -> CrashHistory:
        return CrashHistory(self.score, self.scored_at_ns, self.instants_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingOperation:
    """A requested operation that takes several writes. A daemon that finds it on record goes on with it."""

    verb: Verb  # stop, restart or remove
    by: Requester
    unbegun: int = 0  # the stop signal, while the connections of a task end before it is sent; 0 = it was sent
    grace_s: float | None = None  # of what is unbegun: how long after the stop signal SIGKILL follows; None = never
    kill_at_ns: int = 0  # when SIGKILL follows the stop signal; 0 = never, or it has followed
    for_good: bool = True  # a person's wish; else its policy decides what follows
    volumes: bool = False  # of a removal: its anonymous volumes go too

    @property
    def outlasts_end(self) -> bool:
        """Whether work remains when the process has ended."""
        return self.for_good and self.verb in (Verb.RESTART, Verb.REMOVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """The changing part of a container, changed by itself or by its people, in groups."""

    state: State = State.CREATED
    ordinal: int = 0  # how many times it was started, ever
    run: Run = Run()
    last_end: LastEnd = LastEnd()
    restarts: Restarts = Restarts()
    pending: PendingOperation | None = None

    @property
    def is_running(self) -> bool:
        """Docker's `State.Running`: paused and restarting containers count."""
        return self.state in (State.RUNNING, State.PAUSED, State.RESTARTING)

    @property
    def lasting_operation(self) -> PendingOperation | None:
        """The pending operation if work remains once the process has ended; None otherwise."""
        return self.pending if self.pending is not None and self.pending.outlasts_end else None

    @property
    def is_killed(self) -> bool:
        """Whether SIGKILL was sent to the present run."""
        return any(sent.number == SIGKILL for sent in self.run.signals)

    def was_killed_for_memory(self, kills: int, exit_code: int | None, ended_at_ns: int) -> bool:
        """Whether the end looks as if the first process was among the `kills` for memory of the present run.

        The kernel does not name the victims. One that was told of long before the end was another process.
        """
        is_recent = kills > self.run.oom_told or ended_at_ns - self.run.oom_told_at_ns <= MEMORY_KILL_TAKES_NS
        return kills > 0 and is_recent and exit_code == 128 + SIGKILL and not self.is_killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings for a container's life in its configuration."""

    restart: RestartPolicy
    governor: Governor | None = None
    auto_remove: bool = False
    stop_signal: int | None = None  # what the configuration declares; None: it declares none
    check: Check | None = None
    on_unhealthy: OnUnhealthy = OnUnhealthy.NONE
