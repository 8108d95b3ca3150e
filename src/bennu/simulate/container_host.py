"""One container's host on a virtual clock: its kernel, its disk, and the true time.

Law: what is in `Host` survives every death of the daemon; of a reboot it survives what is on the disk. What is in a
`ContainerDaemon` dies with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from signal import SIGKILL

from bennu.lifecycle.disposition import Disposition
from bennu.lifecycle.life_events import DeathFacts, Notice, TeardownNotice
from bennu.lifecycle.life_model import Life, Policy

SECOND_NS = 10**9
ENDED_BY_SIGNAL = 128


class DaemonDied(Exception):
    """The daemon's death by kill -9, between two instructions."""


@dataclass(slots=True)
class SimulatedProcess:
    """The first process of one run.

    `answers_ns`: how long after a stop signal it ends; None: it is deaf to it.
    """

    pid: int
    answers_ns: int | None
    answer_code: int
    is_frozen: bool = False
    ends_at_ns: int | None = None  # it has taken the stop signal
    ends_with: int = 0
    ends_by: int = 0  # the signal that it has taken; 0: it ends by itself
    waiting: list[int] = field(default_factory=list)  # signals that reach it when it is thawed


@dataclass(slots=True)
class Disk:
    """The data that the daemon has written. Each write is whole or not there."""

    life: Life = field(default_factory=Life)
    deaths: list[DeathFacts] = field(default_factory=list)
    told: list[Notice | TeardownNotice] = field(default_factory=list)
    is_removed: bool = False
    writes: int = 0


class Host:
    """Kernel and disk under one container."""

    def __init__(self, seed: int, policy: Policy, *, verbose: bool = False) -> None:
        self.random = Random(seed)
        self.policy = policy
        self.now_ns = 1_000 * SECOND_NS
        self.boots = 1
        self.disk = Disk()
        self.process: SimulatedProcess | None = None
        self.exit_file: tuple[int, int] | None = None  # how and when the process ended, until it is forgotten
        self.holds_sandbox = False
        self.stop_signal = policy.stop_signal or 15
        self.ends: list[tuple[int, int]] = []  # pid and code of every process that ended, in truth
        self.killed_by: dict[int, int] = {}  # the signal that ended it, by pid
        self.verbose = verbose
        self._pids = 0

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"{(self.now_ns - 1_000 * SECOND_NS) / SECOND_NS:9.3f}  {text}")

    @property
    def boot_id(self) -> str:
        return f"boot {self.boots}"

    # -- what a daemon can do to it

    def create(self) -> SimulatedProcess:
        """Make a new process, stopped before its program begins; leftovers are deleted, as by `Runtime.create`."""
        self.delete()
        self._pids += 1
        deaf = self.random.random() < 0.3
        answers_ns = None if deaf else int(self.random.choice([0, 0.2, 3]) * SECOND_NS)
        self.process = SimulatedProcess(self._pids, answers_ns, self.random.choice([0, 143, 3]))
        return self.process

    def delete(self) -> None:
        """Kill what is left of the process and forget how it ended."""
        self.process, self.exit_file = None, None

    def kill(self, number: int) -> Disposition | None:
        """Send the process a signal, and answer what it does with it; None: there is no process."""
        process = self.process
        if process is None:
            return None
        if number == SIGKILL:  # it reaches a frozen control group
            process.ends_by = SIGKILL
            self.end_process(ENDED_BY_SIGNAL + SIGKILL)
            return Disposition.FATAL
        if process.is_frozen:
            process.waiting.append(number)
        else:
            self._take_signal(process, number)
        return Disposition.IGNORED if process.answers_ns is None else Disposition.HANDLED

    def _take_signal(self, process: SimulatedProcess, number: int) -> None:
        if number == self.stop_signal and process.answers_ns is not None and process.ends_at_ns is None:
            process.ends_at_ns, process.ends_with = self.now_ns + process.answers_ns, process.answer_code
            process.ends_by = number

    def freeze(self, is_frozen: bool) -> None:
        process = self.process
        if process is None:
            return
        process.is_frozen = is_frozen
        if not is_frozen:
            for number in process.waiting:
                self._take_signal(process, number)
            process.waiting.clear()

    # -- what happens to it

    def end_process(self, code: int) -> None:
        assert self.process is not None
        self.say(f"process {self.process.pid} ends with {code}")
        self.ends.append((self.process.pid, code))
        if self.process.ends_by:
            self.killed_by[self.process.pid] = self.process.ends_by
        self.process, self.exit_file = None, (code, self.now_ns)

    def next_end_ns(self) -> int | None:
        """Compute when the process ends by the signal it has taken."""
        process = self.process
        return process.ends_at_ns if process is not None and not process.is_frozen else None

    def reboot(self) -> None:
        """Cut the power: what was in memory is gone."""
        self.say("the host reboots")
        self.boots += 1
        self.process, self.exit_file, self.holds_sandbox = None, None, False
