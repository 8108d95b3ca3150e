"""The laws of a container's life, checked at every step of a simulation.

The truth is kept here in the simulator's own words: every request with its author and time, and how each process really
ended. The machine is never asked whether it was right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from bennu.lifecycle.death import Verb
from bennu.lifecycle.disposition import Disposition
from bennu.lifecycle.life_events import (
    Exited,
    HostRebooted,
    LifeEvent,
    Notice,
    RestartNowAsked,
    RunStarted,
    StartFailed,
    Transition,
)
from bennu.lifecycle.life_model import Life
from bennu.lifecycle.restart import RestartMode
from bennu.lifecycle.status import State
from bennu.simulate.container_host import SECOND_NS, Host
from bennu.simulate.laws import LawBroken

MS_NS = 10**6
LONGEST_NS = 60 * SECOND_NS
ENDING_TAKES_NS = 600 * SECOND_NS  # what ends later than that after a signal has survived it
LIVES = (State.RUNNING, State.PAUSED)
FOLLOWS = {  # which of Docker's events may come while no process lives, one runs, or one is frozen
    "start": ("down", "runs"),
    "die": ("lives", "down"),
    "pause": ("runs", "frozen"),
    "unpause": ("frozen", "runs"),
}


WISHES = (None, Verb.STOP, Verb.RESTART, Verb.REMOVE)  # what is fulfilled when several wait for the same end


class RestingDaemon(Protocol):
    """The part of a daemon at rest that the laws look at."""

    @property
    def life(self) -> Life: ...

    @property
    def is_watched(self) -> bool: ...

    @property
    def requests(self) -> Sequence[object]:
        """Those that wait for the end."""
        ...


class ContainerLaws:
    """The checker of one history of one container."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.checks = 0
        self.daemon_deaths = 0
        self.cells: Counter[tuple[str, str]] = Counter()  # of the table: state and event
        self.cuts: Counter[tuple[str, int]] = Counter()  # where daemons died: event, and how far it was taken in
        self.calls_off = False  # the request under way is a person's wish that it end
        self.called_off = False  # such a wish is on record, and nobody has started it since
        self.wishes = False  # the request under way is a signal that is to end the process, which hears it
        self.wished_ns: int | None = None  # such a signal is on record of this run, since then
        self.quick_ends = 0  # in a row, since a person's start, after less than ten seconds each
        self.restarts: list[int] = []  # instants of decisions to restart, since a person's start
        self.may_restart_ns = 0
        self.kill_from_ns: int | None = None  # no SIGKILL before
        self.dead_by_ns: int | None = None  # no process of this run after, for that is on record
        self.granted_ns: int | None = None  # the same, about to be written
        self.asked: Verb | None = None  # what the request under way asks for
        self.owed: Verb | None = None  # the last such wish that is on record, and is not fulfilled
        self.is_paused = False  # a person has asked for it
        self.runs: list[int] = []  # pids of the runs on record
        self.deaths: list[tuple[int, int | None]] = []  # pid and exit code of each death on record
        self.shown = "down"  # what Docker's events have told

    def broken(self, law: int, text: str) -> LawBroken:
        return LawBroken(law, f"{text}; on disk: {self.host.disk.life}")

    # -- what the daemon does

    def forget_requests(self) -> None:
        """Forget what was asked, once the daemon has answered or is dead.

        The part of a request that is not on record has not happened.
        """
        self.calls_off, self.wishes, self.asked, self.granted_ns = False, False, None, None

    def on_death_of_the_daemon(self, happened: LifeEvent | None, instruction: int) -> None:
        self.forget_requests()
        self.cuts[type(happened).__name__, instruction] += 1

    def on_step(self, before: Life, happened: LifeEvent, change: Transition) -> None:
        self.checks += 1
        self.cells[before.state, type(happened).__name__] += 1
        life = change.life
        if bool(life.run.pid) != (life.state in LIVES):
            raise self.broken(8, f"{happened} leaves pid {life.run.pid} in state {life.state}")
        if bool(life.restarts.due_ns) != (life.state is State.RESTARTING):
            raise self.broken(8, f"{happened} leaves a restart due at {life.restarts.due_ns} in state {life.state}")
        if change.death is not None and not change.death.decision.reason:
            raise self.broken(7, f"{happened} has no reason for what follows")

    def on_write(self, before: Life, happened: LifeEvent, change: Transition) -> None:
        """Take in and check one transaction as it reaches the disk."""
        if self.calls_off:
            self.called_off = True
        if self.wishes:
            self.wished_ns, self.wishes = self.host.now_ns, False
        if self.asked is not None:
            self.owed, self.asked = max(self.owed, self.asked, key=WISHES.index), None
        if self.granted_ns is not None:
            self.dead_by_ns = min(self.granted_ns, self.dead_by_ns or self.granted_ns)
            self.granted_ns = None
        for notice in change.notices:
            if isinstance(notice, Notice):
                self._show(notice.action)
        match happened:
            case RunStarted():
                self._take_start(before, happened)
            case Exited() | HostRebooted() if before.run.pid:
                code = happened.exit_code if isinstance(happened, Exited) else None
                self._take_death(before, code, change)
            case RestartNowAsked():
                self.may_restart_ns = self.host.now_ns
            case StartFailed() if change.life.state is not State.RESTARTING:
                self.owed = None
            case StartFailed() if change.life.state is State.RESTARTING:
                if not happened.shortage:
                    raise self.broken(6, "a start is tried again though nothing was short")
                self.may_restart_ns = change.life.restarts.due_ns
                self._check_delay(self.may_restart_ns - self.host.now_ns)
                self.quick_ends += 1

    def _show(self, action: str) -> None:
        if action not in FOLLOWS:
            return
        needs, becomes = FOLLOWS[action]
        fits = self.shown in ("runs", "frozen") if needs == "lives" else self.shown == needs
        if not fits:
            raise self.broken(1, f"Docker's event {action} comes while the container is {self.shown}")
        self.shown = becomes

    def _take_start(self, before: Life, started: RunStarted) -> None:
        self.runs.append(started.pid)
        self.owed, self.is_paused, self.wished_ns = None, False, None
        self.kill_from_ns = self.dead_by_ns = None
        if before.state is not State.RESTARTING:
            self.called_off, self.quick_ends, self.restarts = False, 0, []

    def _take_death(self, before: Life, code: int | None, change: Transition) -> None:
        host, pid = self.host, before.run.pid
        if change.death is None:
            raise self.broken(1, f"the end of process {pid} has no certificate")
        true_code = dict(host.ends).get(pid)
        if code is not None and code != true_code:
            raise self.broken(1, f"process {pid} ended with {true_code}, and {code} is recorded")
        if code is None and before.run.boot_id == host.boot_id:
            raise self.broken(1, f"process {pid} ended with {true_code} in this boot, and nothing is recorded")
        if change.death.ending.lost != (before.run.boot_id != host.boot_id):
            raise self.broken(1, f"process {pid} of {before.run.boot_id} is taken for lost in {host.boot_id}, or not")
        killed_by = host.killed_by.get(pid, 0)
        is_known = any(sent.number == killed_by for sent in change.death.ending.signals)
        if code is not None and killed_by and not is_known:
            raise self.broken(1, f"process {pid} ended by signal {killed_by}, and its certificate does not know of it")
        self.deaths.append((pid, code))
        ran_ns = change.life.last_end.finished_at_ns - before.run.started_at_ns
        self.quick_ends = 0 if ran_ns >= 10 * SECOND_NS else self.quick_ends
        self._take_wish(code, change)
        if change.life.state is State.RESTARTING:
            self._take_restart(change.life.restarts.due_ns - host.now_ns, code, unhealthy=before.run.restart_unhealthy)
        self.quick_ends += 1

    def _take_wish(self, code: int | None, change: Transition) -> None:
        """Call the policy off if the process ended soon after a signal that was to end it; else it has survived it."""
        wished_ns, ended_ns = self.wished_ns, change.life.last_end.finished_at_ns
        if wished_ns is not None and (code is None or ended_ns - wished_ns <= ENDING_TAKES_NS):
            self.called_off = True
        policy = self.host.policy
        comes_back = policy.restart.mode in (RestartMode.ALWAYS, RestartMode.UNLESS_STOPPED) and policy.governor is None
        stays = change.life.state is not State.RESTARTING
        signals = change.death.ending.signals if change.death is not None else ()
        may_be_wished = wished_ns is not None or any(sent.disposition is Disposition.UNKNOWN for sent in signals)
        if comes_back and stays and code is not None and not self.called_off and not may_be_wished:
            raise self.broken(2, "what nobody has stopped stays down")

    def _take_restart(self, delay_ns: int, code: int | None, *, unhealthy: bool) -> None:
        """Note a restart and check law 6, at the moment of the decision."""
        policy, governor, now_ns = self.host.policy.restart, self.host.policy.governor, self.host.now_ns
        self.restarts.append(now_ns)
        self.may_restart_ns = now_ns + delay_ns
        if self.called_off:
            raise self.broken(2, "a restart follows an end that a person asked for")
        if policy.mode is RestartMode.NO and not unhealthy:
            raise self.broken(6, "the policy no restarts")
        if policy.mode is RestartMode.ON_FAILURE:
            if code == 0 and not unhealthy:
                raise self.broken(6, "on-failure restarts what exited with 0")
            if 0 < policy.max_retries < len(self.restarts):
                raise self.broken(6, f"restart {len(self.restarts)} of {policy.max_retries}")
        self._check_delay(delay_ns)
        if governor is None:
            return
        window = [instant for instant in self.restarts if now_ns - instant < governor.window_ns]
        if code in governor.never_codes:
            raise self.broken(6, f"restarted after exit code {code} under {governor}")
        if governor.budget and len(window) > governor.budget:
            raise self.broken(6, f"{len(window)} restarts in its window under {governor}")

    def _check_delay(self, delay_ns: int) -> None:
        """Check the delay against Docker's doubling back-off; under a governor, against its bound."""
        governor = self.host.policy.governor
        due_ns = min(100 * MS_NS * 2 ** min(self.quick_ends, 20), LONGEST_NS)
        if governor is None and delay_ns != due_ns:
            raise self.broken(6, f"the delay is {delay_ns}, and {due_ns} after {self.quick_ends} quick ends")
        if governor is not None and delay_ns > governor.max_delay_ns:
            raise self.broken(6, f"the delay is {delay_ns} under {governor}")

    def on_launch(self, life: Life) -> None:
        host = self.host
        if host.process is not None and host.process.pid in self.runs:
            raise self.broken(3, "a second process is started")
        if life.state is State.RESTARTING and life.run.boot_id != host.boot_id:
            raise self.broken(8, "a restart uses the sandbox of another boot")
        if life.state is State.RESTARTING and host.now_ns < self.may_restart_ns:
            raise self.broken(6, f"restarted {self.may_restart_ns - host.now_ns} ns too early")

    def on_boot_start(self) -> None:
        if self.owed is Verb.REMOVE:
            raise self.broken(2, "a daemon starts what is to be removed")
        if self.called_off and self.host.policy.restart.mode is not RestartMode.ALWAYS:
            raise self.broken(2, "a daemon starts what a person has stopped")
        governor = self.host.policy.governor
        if governor is not None and self.host.disk.life.last_end.exit_code in governor.never_codes:
            raise self.broken(6, "a daemon starts what is never to be restarted")

    def on_sigkill(self) -> None:
        if self.kill_from_ns is None or self.host.now_ns < self.kill_from_ns:
            raise self.broken(5, f"SIGKILL is sent before its time, {self.kill_from_ns}")

    def grants(self, grace_ns: int | None) -> None:
        """Note that the process is about to get a signal that is to end it, and its time to end.

        None: as long as it wants.
        """
        if grace_ns is not None:
            at_ns = self.granted_ns = self.host.now_ns + grace_ns
            self.kill_from_ns = at_ns if self.kill_from_ns is None else min(at_ns, self.kill_from_ns)

    # -- what has to hold while a daemon lives and has done all it can

    def at_rest(self, daemon: RestingDaemon) -> None:
        self.checks += 1
        host, life = self.host, daemon.life
        if host.disk.is_removed:
            if host.process is not None or host.holds_sandbox:
                raise self.broken(8, "something is left of what was removed")
            return
        lives = host.process is not None
        if lives != (life.state in LIVES):
            raise self.broken(8, f"a process lives: {lives}, and the state is {life.state}")
        if host.process is not None and host.process.is_frozen != (life.state is State.PAUSED):
            raise self.broken(8, f"frozen: {host.process.is_frozen}, and the state is {life.state}")
        if life.run.undelivered or (life.run.pause_is_brief and life.state is State.RUNNING):
            raise self.broken(8, "something begun is neither done nor undone")
        if host.holds_sandbox != lives and not (host.holds_sandbox and life.state is State.RESTARTING):
            raise self.broken(8, f"it holds its sandbox: {host.holds_sandbox}, and the state is {life.state}")
        if daemon.is_watched != (life.state is State.RUNNING):
            raise self.broken(8, f"it is watched: {daemon.is_watched}, and the state is {life.state}")
        if lives and self.dead_by_ns is not None and host.now_ns > self.dead_by_ns:
            raise self.broken(7, f"it should have been dead by {self.dead_by_ns}")
        if self.called_off and not lives and life.state is State.RESTARTING:
            raise self.broken(2, "what a person stopped is about to be restarted")
        if life.state is State.PAUSED and not self.is_paused:
            raise self.broken(8, "it is paused, which no person has asked for")
        if self.owed in (Verb.RESTART, Verb.REMOVE) and not lives and not daemon.requests:
            raise self.broken(8, f"nobody goes on with the {self.owed} that was asked for")
        if life.pending is not None and life.state in (State.CREATED, State.EXITED) and not daemon.requests:
            raise self.broken(8, "something is on record that nobody goes on with")
        if daemon.requests and life.pending is None:
            raise self.broken(8, f"{daemon.requests} wait for what is not on record")
        self._check_deaths(lives)

    def _check_deaths(self, lives: bool) -> None:
        """Check law 1: each run on record has one death on record, and no death is without its run."""
        ended = self.runs[:-1] if lives else self.runs
        if [pid for pid, _ in self.deaths] != ended:
            raise self.broken(1, f"runs {self.runs} have ended, and the deaths of {self.deaths} are recorded")
