"""The death certificate: the end of a life, its requester, and the decision that followed. Pure.

Law: a certificate states known facts and no others. An exit code that was not observed is unknown, a signal that this
engine did not send came "from outside or from itself". `classify_death` is the only place that names a cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from signal import SIGKILL
from typing import Final

from bennu.lifecycle.exit_status import signal_of

SECOND_NS: Final = 10**9
# A signal a person sent explains an end that follows within this time; later the process lived on regardless.
SIGNAL_EXPLAINS_NS: Final = 10 * SECOND_NS


class Cause(StrEnum):
    EXITED = "exited"
    SIGNAL = "signal"
    OOM = "oom"
    UNHEALTHY = "unhealthy"
    STOPPED = "stopped"
    KILLED = "killed"
    START_FAILED = "start failed"
    LOST = "lost at reboot"
    UNKNOWN = "unknown"


class Verb(StrEnum):
    """The operation that a signal was sent for."""

    STOP = "stop"
    KILL = "kill"
    RESTART = "restart"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Requester:
    """The requester of an operation: kind is client, health, update, daemon or nobody.

    Of a client on the unix socket uid, pid and command are known, of one over TLS its certificate's subject.
    """

    kind: str
    uid: int | None = None
    pid: int | None = None
    command: str = ""
    subject: str = ""

    @classmethod
    def daemon(cls, why: str) -> "Requester":
        return cls("daemon", command=why)


NOBODY: Final = Requester("nobody")


@dataclass(frozen=True, slots=True)
class SentSignal:
    """A signal this engine sent. `at_ns` is wall clock."""

    at_ns: int
    number: int
    by: Requester
    verb: Verb


@dataclass(frozen=True, slots=True)
class Oom:
    """The control group's account of memory. `limit_bytes` 0: there was no limit."""

    kills: int
    limit_bytes: int
    peak_bytes: int
    main_process: bool  # it was the container's first process that the kernel killed


@dataclass(frozen=True, slots=True)
class Probe:
    """One of the last health probes. `exit_code` -1: it could not be run, or not in time."""

    ended_at: str
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision after an end. `action` is restart, stay or remove; `next_try_at_ns` 0 = no further try."""

    action: str
    reason: str
    next_try_at_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The observations of an end: the input of `classify_death`. Instants are wall clock, in ns."""

    exit_code: int | None
    finished_at_ns: int
    signals: Sequence[SentSignal] = ()
    oom: Oom | None = None
    start_error: str = ""
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One ending of one container. Durable; never changed."""

    container_id: str
    name: str
    image: str
    life: int  # ordinal of this run, from 1; a failed start keeps that of the run before
    started_at_ns: int  # 0: it never started
    finished_at_ns: int
    cause: Cause
    exit_code: int | None
    meaning: str  # the exit code in words
    error: str = ""  # of a failed start
    asked_by: Requester = NOBODY
    signals: Sequence[SentSignal] = ()
    escalated: bool = False  # SIGKILL had to follow the stop signal
    oom: Oom | None = None
    log_tail: Sequence[str] = ()
    health_check: str = ""  # what its probes did, in words
    probes: Sequence[Probe] = ()
    decision: Decision = field(default=Decision("stay", ""))
    restart_policy: str = "no"
    command: Sequence[str] = ()

    @property
    def lived_ns(self) -> int:
        return max(0, self.finished_at_ns - self.started_at_ns) if self.started_at_ns else 0


def classify_death(ending: Ending) -> tuple[Cause, Requester]:
    """Name the cause of an end and its requester.

    1. it never started; 2. the host went down; 3. a signal of ours explains it: by health, SIGKILL as such, or a stop;
    4. the kernel killed the first process for memory; 5. a signal from elsewhere; 6. it exited; 7. cause unknown.
    """
    if ending.start_error:
        return Cause.START_FAILED, NOBODY
    if ending.lost:
        return Cause.LOST, NOBODY
    if ending.oom and ending.oom.main_process and not _sent(ending, SIGKILL):
        return Cause.OOM, NOBODY
    if (sent := _explaining(ending)) is not None:
        return _asked_cause(sent), sent.by
    if ending.exit_code is None:
        return Cause.UNKNOWN, NOBODY
    return (Cause.SIGNAL if signal_of(ending.exit_code) else Cause.EXITED), NOBODY


def _sent(ending: Ending, number: int) -> bool:
    return any(sent.number == number for sent in ending.signals)


def _asked_cause(sent: SentSignal) -> Cause:
    if sent.by.kind == "health":
        return Cause.UNHEALTHY
    return Cause.STOPPED if sent.verb in (Verb.STOP, Verb.RESTART) else Cause.KILLED


def _explaining(ending: Ending) -> SentSignal | None:
    """Find the first signal of the request that ended it; None if no request did.

    The first signal makes a stop count as a stop, not as its last SIGKILL.
    """
    able = [sent for sent in ending.signals if _explains(sent, ending)]
    if not able:
        return None
    last = able[-1]
    return next(sent for sent in able if (sent.by, sent.verb) == (last.by, last.verb))


def _explains(sent: SentSignal, ending: Ending) -> bool:
    if sent.verb is not Verb.KILL or sent.number == SIGKILL:
        return True
    return ending.exit_code == 128 + sent.number or 0 <= ending.finished_at_ns - sent.at_ns <= SIGNAL_EXPLAINS_NS


def find_escalation(signals: Sequence[SentSignal]) -> tuple[SentSignal, SentSignal] | None:
    """Find the stop signal and the SIGKILL that had to follow it in the same request; None if none had to."""
    for first, second in pairwise(signals):
        same = (first.verb, first.by) == (second.verb, second.by)
        if same and first.verb is not Verb.KILL and second.number == SIGKILL != first.number:
            return first, second
    return None
