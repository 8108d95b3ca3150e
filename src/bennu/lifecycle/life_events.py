"""What can happen to a container, and what a step answers: what is written, what is told, what is to be done. Pure.

Events are of two kinds: what somebody asks for (`…Asked`), and what has happened. An effect that changes what a process
does leads to an event of the second kind, so that what is written is what was done.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bennu.lifecycle.death import Decision, Ending, Oom, Requester, Verb
from bennu.lifecycle.health import OnUnhealthy
from bennu.lifecycle.life_model import Life, PendingOperation, Policy

# --- what can happen to it -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartAsked:
    """A person, or the daemon as it starts, wants it to run."""


@dataclass(frozen=True, slots=True)
class RestartNowAsked:
    """A person skips what is left of the back-off."""


@dataclass(frozen=True, slots=True)
class RestartDue:
    """The back-off is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """It has a process, and that runs."""

    pid: int
    boot_id: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """It came to no process. `exit_code` is 126, 127 or 128; `shortage`: the host had too little of something."""

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
    """Somebody wants a signal sent. `for_good`: a person's wish that it end, as Docker has it."""

    number: int
    by: Requester
    verb: Verb
    for_good: bool = True
    operation: PendingOperation | None = None  # what the signal is part of


@dataclass(frozen=True, slots=True)
class SignalSent:
    """The signal on record has reached the process, and a pause that it ends is over."""


@dataclass(frozen=True, slots=True)
class SignalMissed:
    """The process was faster, and its end is about to be processed. `again`: it may have had the signal before."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class DrainBegun:
    """It is to be ended once its connections have ended."""

    operation: PendingOperation


@dataclass(frozen=True, slots=True)
class GraceOver:
    """It has not ended on the stop signal within the time it was granted."""


@dataclass(frozen=True, slots=True)
class OperationFailed:
    """Whoever asked is told that it failed, so nobody goes on with it."""


@dataclass(frozen=True, slots=True)
class UnhealthyRestartAsked:
    """It is about to be ended for bad health, and is to be started again as after a crash."""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """`briefly`: for the length of a request, so not across a death of the daemon."""

    briefly: bool = False


@dataclass(frozen=True, slots=True)
class UnpauseAsked:
    """A person wants it to run on."""


@dataclass(frozen=True, slots=True)
class BriefPauseOver:
    """The request that it was frozen for is over."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Its processes are frozen."""


@dataclass(frozen=True, slots=True)
class Thawed:
    """Its processes are not frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A health probe of the present run is done; `started_after_ns`: it began so long after the run."""

    exit_code: int
    started_after_ns: int


@dataclass(frozen=True, slots=True)
class MemoryKilled:
    """The kernel has killed so many processes of the present run for memory."""

    kills: int


@dataclass(frozen=True, slots=True)
class HostRebooted:
    """The host went down with it."""


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A new daemon has it now, and has seen what became of it meanwhile."""


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
    """Make a process of it. Leads to `RunStarted` or `StartFailed`."""


@dataclass(frozen=True, slots=True)
class SendSignal:
    """`thaw`: then let its processes run. `again`: a daemon that died may have sent it already.

    Leads to `SignalSent` or `SignalMissed`.
    """

    number: int
    thaw: bool
    again: bool = False


@dataclass(frozen=True, slots=True)
class Freeze:
    """Leads to `Paused`."""


@dataclass(frozen=True, slots=True)
class Thaw:
    """Leads to `Thawed`."""


@dataclass(frozen=True, slots=True)
class WatchRun:
    """Begin to probe the run, and to watch its memory and its log."""


@dataclass(frozen=True, slots=True)
class UnwatchRun:
    """Nobody probes it any more."""


@dataclass(frozen=True, slots=True)
class ForgetProcess:
    """Give back what the process held; sandbox and mounts stay for the next one."""


@dataclass(frozen=True, slots=True)
class ReleaseAll:
    """Give back all that it holds."""


@dataclass(frozen=True, slots=True)
class ClearLeftovers:
    """Give back what a former daemon, that died in the midst of it, has not given back."""


@dataclass(frozen=True, slots=True)
class TellWaiters:
    """No process lives: who waits for the end hears of it."""


@dataclass(frozen=True, slots=True)
class ActOnUnhealthy:
    """Do what its label asks for, in the background."""

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
    """Whether a step is written before its effects. What ends a container does not wait for room on the disk."""

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
    """Here the events come in which its networks and volumes tell that the sandbox is given up."""


@dataclass(frozen=True, slots=True)
class DeathFacts:
    """What the certificate of an end is made of."""

    ending: Ending
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What an event makes of a life.

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
    """What a cell of the table may know beside its event. `draw`: a random number from 0 to 1."""

    life: Life
    policy: Policy
    now_ns: int
    draw: float


def unwritten(life: Life, *effects: Effect) -> Transition:
    """A step that leaves nothing on record by itself."""
    return Transition(life=life, effects=effects, durability=Durability.NOT_WRITTEN)
