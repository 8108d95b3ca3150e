"""A container's lives on a virtual clock, played by the shipped machine: whatever happens, the laws of the design hold.

`bennu.simulate` draws the histories: people, crashes, health checks, reboots, and a daemon that dies at any instruction
and is followed by one that recovers. The laws are checked against what really happened, kept in words of its own.
"""

import os
from collections.abc import Callable

import pytest

from bennu.lifecycle.death import NOBODY, SentSignal, Verb
from bennu.lifecycle.life import TABLE
from bennu.lifecycle.life_events import PauseAsked, RestartNowAsked, StartFailed, UnpauseAsked
from bennu.lifecycle.life_model import Life, Policy, Run
from bennu.lifecycle.restart import RestartMode, RestartPolicy
from bennu.lifecycle.status import State
from bennu.simulate.container_daemon import ContainerDaemon
from bennu.simulate.container_host import SECOND_NS, DaemonDied, Host
from bennu.simulate.container_laws import ContainerLaws
from bennu.simulate.container_run import run_container_seed, run_container_seeds

HISTORIES = int(os.environ.get("BENNU_CONTAINER_SEEDS", "10000"))
SLICES = 10
# A history does not come there: only an engine whose kill is not obeyed tells of it, or asks between two states.
UNDRAWN = {"OperationFailed": set(State), "DrainBegun": {State.RESTARTING}, "UnhealthyRestartAsked": {State.PAUSED}}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_the_laws_hold_whoever_dies_when(part: int) -> None:
    totals = run_container_seeds(range(part, HISTORIES, SLICES))
    assert totals.seeds == len(range(part, HISTORIES, SLICES))
    assert totals.checks > 30 * totals.seeds
    assert totals.daemon_deaths > totals.seeds


@pytest.mark.slow
def test_histories_come_to_every_cell_of_the_table_and_die_after_each_write_and_each_effect() -> None:
    totals = run_container_seeds(range(1500))
    drawn = {
        (str(state), event.__name__)
        for state, row in TABLE.items()
        for event in row
        if state not in UNDRAWN.get(event.__name__, ())
    }
    assert drawn - set(totals.cells) == set()
    for event, instructions in (
        ("Exited", 4),
        ("SignalAsked", 4),
        ("StartAsked", 4),
        ("RunStarted", 3),
        ("TakenUp", 3),
    ):
        assert {(event, number) for number in range(1, instructions + 1)} <= set(totals.cuts)


def test_a_seed_is_a_history() -> None:
    first, second = run_container_seed(11), run_container_seed(11)
    assert (first.host.disk, first.host.ends, first.checks) == (second.host.disk, second.host.ends, second.checks)


# --- one request, cut at each instruction ----------------------------------------------------------------------------

GRACE_NS = 2 * SECOND_NS
Act = Callable[[ContainerDaemon], None]


class Cut:
    """A container that has run for a minute, and a daemon that dies at the N-th instruction from here."""

    def __init__(self, *, is_deaf: bool = False, is_paused: bool = False, auto_remove: bool = False) -> None:
        mode = RestartMode.NO if auto_remove else RestartMode.UNLESS_STOPPED
        self.host = Host(1, Policy(restart=RestartPolicy(mode), auto_remove=auto_remove))
        self.laws = ContainerLaws(self.host)
        self.daemon = ContainerDaemon(self.host, self.laws, None)
        self.daemon.start()
        assert self.host.process is not None
        self.host.process.answers_ns, self.host.process.answer_code = (None if is_deaf else 0), 0
        self.host.now_ns += 60 * SECOND_NS
        if is_paused:
            pause(self.daemon)

    def go_on(self, act: Act, instruction: int) -> bool:
        """False: the daemon lived through it. Else another one has taken up, and time has passed."""
        died = False
        self.daemon.fuse = instruction
        try:
            act(self.daemon)
            self.settle()
        except DaemonDied:
            died = True
            self.daemon = ContainerDaemon(self.host, self.laws, None)
            self.daemon.take_up()
        self.daemon.fuse = None
        for _ in range(20):
            self.host.now_ns += SECOND_NS
            self.settle()
        self.laws.at_rest(self.daemon)
        return died

    def settle(self) -> None:
        if self.host.next_end_ns() is not None and self.host.process is not None:
            self.host.end_process(self.host.process.ends_with)
        self.daemon.settle()

    @property
    def life(self) -> Life:
        return self.daemon.life


Check = Callable[[Cut], bool]


def stop(daemon: ContainerDaemon) -> None:
    daemon.ask_end(Verb.STOP, grace_ns=GRACE_NS)


def drain_and_stop(daemon: ContainerDaemon) -> None:
    daemon.ask_end(Verb.STOP, grace_ns=GRACE_NS, drain_ns=SECOND_NS)


def restart(daemon: ContainerDaemon) -> None:
    daemon.ask_end(Verb.RESTART, grace_ns=GRACE_NS)


def remove(daemon: ContainerDaemon) -> None:
    daemon.ask_end(Verb.REMOVE, grace_ns=0)


def crash(daemon: ContainerDaemon) -> None:
    daemon.host.end_process(3)
    daemon.settle()


def crash_and_skip_the_delay(daemon: ContainerDaemon) -> None:
    crash(daemon)
    daemon.advance(RestartNowAsked())


def crash_when_the_host_is_short(daemon: ContainerDaemon) -> None:
    daemon.start_fails = StartFailed(exit_code=128, error="too many open files", shortage=True)
    crash(daemon)


def pause(daemon: ContainerDaemon) -> None:
    daemon.laws.is_paused = True
    daemon.advance(PauseAsked())


def kill(daemon: ContainerDaemon) -> None:
    daemon.kill(9)


def unpause(daemon: ContainerDaemon) -> None:
    daemon.advance(UnpauseAsked())


def commit(daemon: ContainerDaemon) -> None:
    daemon.advance(PauseAsked(briefly=True))
    daemon.advance(UnpauseAsked())


def is_first_run(cut: Cut) -> bool:
    return cut.life.ordinal == 1 and cut.life.state is State.RUNNING


def is_second_run(cut: Cut) -> bool:
    return cut.life.ordinal == 2 and cut.life.state is State.RUNNING


def is_down(cut: Cut) -> bool:
    return cut.life.ordinal == 1 and cut.life.state is State.EXITED


def is_gone(cut: Cut) -> bool:
    return cut.host.disk.is_removed


def is_paused(cut: Cut) -> bool:
    return cut.life.ordinal == 1 and cut.life.state is State.PAUSED


@pytest.mark.parametrize("is_deaf", [False, True], ids=["it listens", "it is deaf"])
@pytest.mark.parametrize(
    ("act", "done"),
    [
        (stop, is_down),
        (drain_and_stop, is_down),
        (restart, is_second_run),
        (remove, is_gone),
        (crash, is_second_run),
        (crash_and_skip_the_delay, is_second_run),
        (crash_when_the_host_is_short, is_second_run),
        (pause, is_paused),
        (kill, is_down),
        (commit, is_first_run),
    ],
)
def test_what_is_on_record_is_done_to_its_end_and_what_is_not_has_not_been(
    act: Act, done: Check, is_deaf: bool
) -> None:
    cut_everywhere(lambda: Cut(is_deaf=is_deaf), act, done, is_first_run)


@pytest.mark.parametrize(
    ("act", "done"), [(unpause, is_first_run), (kill, is_down), (stop, is_down), (remove, is_gone)]
)
def test_a_request_to_a_paused_container_is_done_to_its_end(act: Act, done: Check) -> None:
    cut_everywhere(lambda: Cut(is_paused=True), act, done, is_paused)


@pytest.mark.parametrize("act", [stop, crash])
def test_a_container_of_one_run_is_gone_whenever_the_daemon_dies(act: Act) -> None:
    cut_everywhere(lambda: Cut(auto_remove=True), act, is_gone, is_first_run)


def cut_everywhere(make_cut: Callable[[], Cut], act: Act, done: Check, undone: Check) -> None:
    """The daemon dies after the first instruction of the request, after the second, … until it lives through it.

    What was written is done to its end; what was not has not been.
    """
    instruction, died = 0, True
    while died:
        cut = make_cut()
        before = cut.host.disk.writes
        died = cut.go_on(act, instruction)
        has_not_been = died and cut.host.disk.writes == before and undone(cut)
        assert done(cut) or has_not_been, f"instruction {instruction}: {cut.life}"
        instruction += 1
    assert instruction > 2


@pytest.mark.parametrize(
    ("kills", "told", "told_at_s", "exit_code", "signals", "was_killed"),
    [
        pytest.param(1, 0, 0, 137, (), True, id="nobody was told of it yet"),
        pytest.param(1, 1, 99, 137, (), True, id="it was told a moment before the end"),
        pytest.param(1, 1, 10, 137, (), False, id="it was a child, long before somebody killed the first process"),
        pytest.param(2, 1, 10, 137, (), True, id="a child long before, and now the first process"),
        pytest.param(0, 0, 0, 137, (), False, id="memory has killed nobody"),
        pytest.param(1, 0, 0, 1, (), False, id="the first process ended by itself"),
        pytest.param(1, 0, 0, 137, (SentSignal(1, 9, NOBODY, Verb.KILL),), False, id="we have sent SIGKILL"),
    ],
)
def test_the_first_process_was_killed_for_memory_only_if_a_kill_is_near_its_end(
    kills: int, told: int, told_at_s: int, exit_code: int, signals: tuple[SentSignal, ...], was_killed: bool
) -> None:
    life = Life(run=Run(oom_told=told, oom_told_at_ns=told_at_s * SECOND_NS, signals=signals))
    assert life.was_killed_for_memory(kills, exit_code, 100 * SECOND_NS) is was_killed
