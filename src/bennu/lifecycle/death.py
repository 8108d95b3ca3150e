"""The death certificate: the end of a life, its requester, and the decision that followed. Pure.

Law: a certificate states known facts and no others. An exit code that was not observed is unknown, a signal that this
engine did not send came "from outside or from itself". It names a requester only where the exit code, and what the
process did with his signal, bear that this signal ended it; that a signal came shortly before is told as just that.
`classify_death` is the only place that names a cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from signal import SIGKILL
from typing import Final

from bennu.lifecycle.disposition import Disposition
from bennu.lifecycle.exit_status import signal_of
from bennu.lifecycle.stop import asks_for_end, may_call_off

SECOND_NS: Final = 10**9
# What handles a request to end by `kill`, and lives on for longer than this, went on with its work.
ENDING_TAKES_NS: Final = 600 * SECOND_NS
NEAR_NS: Final = 10 * SECOND_NS  # a signal so shortly before an end is worth telling of
COARSE_NS: Final = SECOND_NS // 50  # the kernel's clock for files, which dates an end, is so late at most


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
    """A signal this engine sent. `at_ns` is wall clock.

    `disposition` is that of the first process as the signal was sent; unknown while it may not have been sent, or if
    the process was gone.
    """

    at_ns: int
    number: int
    by: Requester
    verb: Verb
    disposition: Disposition = Disposition.UNKNOWN


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
    stop_signal: int | None = None  # what the configuration declares


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

    1. it never started; 2. the host went down; 3. the kernel killed the first process for memory; 4. a signal of ours
    ended it: for health, by a stop, or by a kill; 5. cause unknown; 6. a signal from elsewhere; 7. it exited.
    """
    if ending.start_error:
        return Cause.START_FAILED, NOBODY
    if ending.lost:
        return Cause.LOST, NOBODY
    if ending.oom and ending.oom.main_process and not any(sent.number == SIGKILL for sent in ending.signals):
        return Cause.OOM, NOBODY
    if (sent := find_cause(ending)) is not None:
        return _asked_cause(sent), sent.by
    if ending.exit_code is None:
        return Cause.UNKNOWN, NOBODY
    return (Cause.SIGNAL if signal_of(ending.exit_code) else Cause.EXITED), NOBODY


def _asked_cause(sent: SentSignal) -> Cause:
    if sent.by.kind == "health":
        return Cause.UNHEALTHY
    return Cause.STOPPED if sent.verb in (Verb.STOP, Verb.RESTART) else Cause.KILLED


def find_cause(ending: Ending) -> SentSignal | None:
    """Find the signal of ours that ended it; None if the facts bear no such thing.

    Of several that may have, the first that could not be survived, else the last; of its request the first one that
    may have, so that a stop counts as a stop, not as its last SIGKILL.
    """
    able = [sent for sent in ending.signals if _explains(sent, ending)]
    if not able:
        return None
    decisive = next((sent for sent in able if sent.disposition is Disposition.FATAL), able[-1])
    return next(sent for sent in able if (sent.by, sent.verb) == (decisive.by, decisive.verb))


def _explains(sent: SentSignal, ending: Ending) -> bool:
    """Tell whether the exit code, and what the process did with the signal, bear that the signal ended it.

    A signal that had no effect explains nothing. One that is fatal ends the process with its own code (SIGKILL also
    one whose end nobody saw), and no other. One that a handler, or an init that passes it on, may have answered
    explains its own code; and where it asked for the end also any code that stands for no signal, within the time that
    an end takes: a program that is told to end ends as it likes.
    """
    code, number = ending.exit_code, sent.number
    after_ns = ending.finished_at_ns - sent.at_ns
    if after_ns < -COARSE_NS or sent.disposition is Disposition.IGNORED:
        return False
    if code is None:
        return number == SIGKILL
    if code == 128 + number:
        return True
    if number == SIGKILL or sent.disposition is Disposition.FATAL or signal_of(code):
        return False
    if sent.verb is not Verb.KILL:
        return True
    return asks_for_end(ending.stop_signal, number) and after_ns <= ENDING_TAKES_NS


def find_wish(ending: Ending) -> SentSignal | None:
    """Find a person's wish, sent by `kill`, that the container end, where it is in force at this end.

    A signal that asks for the end is in force for the time that an end takes, whatever the end was, and where nobody
    saw the end; not if it had no effect. Any other signal was a wish if it ended the process. So a process that
    survives its signal takes the wish back.
    """
    return next((sent for sent in ending.signals if _is_wish(sent, ending)), None)


def _is_wish(sent: SentSignal, ending: Ending) -> bool:
    if sent.verb is not Verb.KILL or sent.by.kind == "health" or not may_call_off(ending.stop_signal, sent.number):
        return False
    if _explains(sent, ending):
        return True
    if sent.disposition is Disposition.IGNORED or not asks_for_end(ending.stop_signal, sent.number):
        return False
    is_seen = ending.exit_code is not None and not ending.lost
    return not is_seen or ending.finished_at_ns - sent.at_ns <= ENDING_TAKES_NS


def find_near(certificate: Certificate) -> SentSignal | None:
    """Find the last signal of ours shortly before an end that no signal of ours caused; None if there was none.

    A stop is near however long it waits.
    """
    if certificate.asked_by != NOBODY or certificate.cause in (Cause.START_FAILED, Cause.LOST):
        return None
    ended_ns = certificate.finished_at_ns
    return next(
        (
            sent
            for sent in reversed(certificate.signals)
            if sent.verb is not Verb.KILL or -COARSE_NS <= ended_ns - sent.at_ns <= NEAR_NS
        ),
        None,
    )


def find_escalation(signals: Sequence[SentSignal]) -> tuple[SentSignal, SentSignal] | None:
    """Find the stop signal and the SIGKILL that had to follow it in the same request; None if none had to."""
    for first, second in pairwise(signals):
        same = (first.verb, first.by) == (second.verb, second.by)
        if same and first.verb is not Verb.KILL and second.number == SIGKILL != first.number:
            return first, second
    return None
