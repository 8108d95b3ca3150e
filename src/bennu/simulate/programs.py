"""The programs that simulated tasks run: how they come up, how long they live, how they die.

A task's `container` payload is the program's name and a release number: b"good#3". Everything random about a life is
drawn from the world's generator, so a seed is a history.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from bennu.orchestration.model.states import NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class SimulatedProgram:
    """The behaviour of a program.

    Times in seconds; a pair is drawn from uniformly. `lives` None: until stopped.
    """

    prepare: tuple[float, float] = (0.02, 0.4)
    start: tuple[float, float] = (0.02, 0.5)  # until it runs, and is healthy if it has a check
    lives: tuple[float, float] | None = None
    exit_code: int = 0
    is_rejected: bool = False  # no such image
    never_ready: bool = False  # starts and never becomes healthy
    stop: tuple[float, float] = (0.01, 0.6)  # from the stop signal to its end
    drain: tuple[float, float] = (0.0, 3.0)  # how long its last connection lasts
    answers: tuple[float, float] = (0.01, 0.03)  # how long a probe takes
    errs: tuple[float, float] | None = None  # how long it is ready until it answers its readiness probe with an error
    recovers: tuple[float, float] = (1.0, 4.0)  # how long until it is ready again
    is_oom: bool = False  # the kernel kills it for lack of memory


PROGRAMS: Final = {
    "good": SimulatedProgram(),
    "slow": SimulatedProgram(prepare=(1, 5), start=(2, 8)),
    "stubborn": SimulatedProgram(stop=(9.9, 10.0), drain=(0, 30)),
    "crash": SimulatedProgram(lives=(0.0, 0.3), exit_code=1),
    "early": SimulatedProgram(lives=(0.5, 4.0), exit_code=7),
    "late": SimulatedProgram(lives=(8.0, 40.0), exit_code=137),
    "brief": SimulatedProgram(lives=(1.0, 9.0), exit_code=0),
    "missing": SimulatedProgram(is_rejected=True),
    "unready": SimulatedProgram(never_ready=True),
    "greedy": SimulatedProgram(lives=(1.0, 4.0), exit_code=137, is_oom=True),
    "sluggish": SimulatedProgram(answers=(0.05, 0.15)),
    "erring": SimulatedProgram(errs=(3.0, 12.0)),
    "nervous": SimulatedProgram(
        lives=(5.0, 400.0), exit_code=1, errs=(20.0, 400.0)
    ),  # as good as most of what people run
}


def program_of(container: bytes) -> SimulatedProgram:
    return PROGRAMS[container.decode().partition("#")[0]]


def draw(random: Random, span: tuple[float, float]) -> int:
    """Draw a duration in nanoseconds."""
    return int(random.uniform(*span) * NS_PER_SECOND)
