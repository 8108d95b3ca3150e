"""The events that can happen to a container, and the answers of a step: writes, notices and effects. Pure.

Events are of two kinds: requests (`…Asked`), and facts that have happened. An effect that changes a process leads to an
event of the second kind, so that the record states only completed actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bennu.lifecycle.death import Decision, Ending, Oom, Requester, Verb
from bennu.lifecycle.disposition import Disposition
from bennu.lifecycle.health import OnUnhealthy
from bennu.lifecycle.life_model import Life, PendingOperation, Policy

# --- what can happen to it -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartAsked:
    """A person, or the daemon as it starts, wants the container to run."""


@dataclass(frozen=True, slots=True)
class RestartNowAsked:
    """A person skips the rest of the back-off."""


@dataclass(frozen=True, slots=True)
class RestartDue:
    """The back-off is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The container has a running process."""

    pid: int
    boot_id: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """The start made no process. `exit_code` is 126, 127 or 128; `shortage`: the host had too little of something."""

    exit_code: int
    error: str
    shortage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The process is gone. `daemon_ends`: it was ended along with the daemon."""

    exit_code: int | None
    finished_at_ns: int | None  # None: nobody knows when, so it counts as now
    oom: Oom | None = None
    daemon_ends: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalAsked:
    """A requester asks for a signal. `for_good`: a person's wish that it end, as Docker has it."""

    number: int
    by: Requester
    verb: Verb
    for_good: bool = True
    operation: PendingOperation | None = None  # what the signal is part of


@dataclass(frozen=True, slots=True)
class SignalSent:
    """The signal on record has reached the process, which does `disposition` with it; a pause that it ends is over."""

    disposition: Disposition = Disposition.UNKNOWN


@dataclass(frozen=True, slots=True)
class SignalMissed:
    """The process ended before the signal, and its end is about to be processed. `again`: it may have had it before."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class DrainBegun:
    """The container is to be ended once its connections have ended."""

    operation: PendingOperation


@dataclass(frozen=True, slots=True)
class GraceOver:
    """The container has not ended on the stop signal within the time it was granted."""


@dataclass(frozen=True, slots=True)
class OperationFailed:
    """The operation has failed and its requester is told so; nothing continues it."""


@dataclass(frozen=True, slots=True)
class UnhealthyRestartAsked:
    """The container is about to be ended for bad health, and is to be started again as after a crash."""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """A requester asks for a pause. `briefly`: for the length of a request, so not across a death of the daemon."""

    briefly: bool = False


@dataclass(frozen=True, slots=True)
class UnpauseAsked:
    """A person wants the container to run on."""


@dataclass(frozen=True, slots=True)
class BriefPauseOver:
    """The request that the container was frozen for is over."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The container's processes are frozen."""


@dataclass(frozen=True, slots=True)
class Thawed:
    """The container's processes are not frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A health probe of the present run is done; `started_after_ns`: it began so long after the run."""

    exit_code: int
    started_after_ns: int


@dataclass(frozen=True, slots=True)
class MemoryKilled:
    """The kernel has killed `kills` processes of the present run for memory."""

    kills: int


@dataclass(frozen=True, slots=True)
class HostRebooted:
    """The host went down with the container."""


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A new daemon has the container now, and has seen its fate in the meantime."""


LifeEvent = (
    StartAsked
    | RestartNowAsked
    | RestartDue
    | RunStarted
    | StartFailed
    | Exited
    | SignalAsked
    | SignalSent
    | SignalMissed
    | DrainBegun
    | GraceOver
    | OperationFailed
    | UnhealthyRestartAsked
    | PauseAsked
    | UnpauseAsked
    | BriefPauseOver
    | Paused
    | Thawed
    | Probed
    | MemoryKilled
    | HostRebooted
    | TakenUp
)


# --- what is to be done then ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a process for the container. Leads to `RunStarted` or `StartFailed`."""


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Send a signal. `thaw`: then let its processes run. `again`: a daemon that died may have sent it already.

    Leads to `SignalSent` or `SignalMissed`.
    """

    number: int
    thaw: bool
    again: bool = False


@dataclass(frozen=True, slots=True)
class Freeze:
    """Freeze its processes. Leads to `Paused`."""


@dataclass(frozen=True, slots=True)
class Thaw:
    """Thaw its processes. Leads to `Thawed`."""


@dataclass(frozen=True, slots=True)
class WatchRun:
    """Begin to probe the run, and to watch its memory and its log."""


@dataclass(frozen=True, slots=True)
class UnwatchRun:
    """End the probes and the other monitoring of the run."""


@dataclass(frozen=True, slots=True)
class ForgetProcess:
    """Give back the process's resources; sandbox and mounts stay for the next one."""


@dataclass(frozen=True, slots=True)
class ReleaseAll:
    """Give back everything that the container holds."""


@dataclass(frozen=True, slots=True)
class ClearLeftovers:
    """Give back everything that a former daemon had not, because it died in the midst of it."""


@dataclass(frozen=True, slots=True)
class TellWaiters:
    """Tell the waiters for the end that no process lives."""


@dataclass(frozen=True, slots=True)
class ActOnUnhealthy:
    """Perform the action that its label asks for, in the background."""

    action: OnUnhealthy
    reason: str


Effect = (
    Launch
    | SendSignal
    | Freeze
    | Thaw
    | WatchRun
    | UnwatchRun
    | ForgetProcess
    | ReleaseAll
    | ClearLeftovers
    | TellWaiters
    | ActOnUnhealthy
)  # each may be performed again


class Durability(StrEnum):
    """The durability of a step: whether it is written before its effects. An ending never waits for room on disk."""

    REQUIRED = "required"
    IF_POSSIBLE = "if possible"
    NOT_WRITTEN = "not written"


@dataclass(frozen=True, slots=True)
class Notice:
    """A container event of Docker's."""

    action: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TeardownNotice:
    """The place for the events in which its networks and volumes tell that the sandbox is given up."""


@dataclass(frozen=True, slots=True)
class DeathFacts:
    """The facts for the certificate of an end."""

    ending: Ending
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """The outcome of an event for a life.

    Life, notices and death are one transaction; the effects follow it, in their order. `keeps_sandbox` False: the
    container has no sandbox from here on.
    """

    life: Life
    notices: tuple[Notice | TeardownNotice, ...] = ()
    death: DeathFacts | None = None
    effects: tuple[Effect, ...] = ()
    durability: Durability = Durability.REQUIRED
    keeps_sandbox: bool = True


@dataclass(frozen=True, slots=True)
class Moment:
    """The input of a table cell beside its event. `draw`: a random number from 0 to 1."""

    life: Life
    policy: Policy
    now_ns: int
    draw: float


def unwritten(life: Life, *effects: Effect) -> Transition:
    """Make a step that leaves nothing on record by itself."""
    return Transition(life=life, effects=effects, durability=Durability.NOT_WRITTEN)
