"""One drawn history of one container: people, crashes, deaths of the daemon at any instruction, and reboots."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGHUP, SIGKILL, SIGTERM, SIGUSR1
from typing import TypeVar

from bennu.lifecycle.death import Verb
from bennu.lifecycle.governor import Governor
from bennu.lifecycle.health import Check, OnUnhealthy
from bennu.lifecycle.life import next_alarm
from bennu.lifecycle.life_events import (
    MemoryKilled,
    PauseAsked,
    Probed,
    RestartNowAsked,
    StartFailed,
    UnpauseAsked,
)
from bennu.lifecycle.life_model import Policy
from bennu.lifecycle.probe import CommandProbe
from bennu.lifecycle.restart import RestartMode, RestartPolicy
from bennu.lifecycle.status import State
from bennu.simulate.container_daemon import ContainerDaemon
from bennu.simulate.container_host import SECOND_NS, DaemonDied, Host
from bennu.simulate.container_laws import ContainerLaws

STEPS = 30
T = TypeVar("T")


class ContainerScenario:
    """One drawn history of one container. `run` plays it to its end; the laws are checked on the way."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.host = Host(seed, Policy(restart=RestartPolicy(RestartMode.NO)), verbose=verbose)
        self.random = self.host.random
        self.host.policy = self._draw_policy()
        self.host.stop_signal = self.host.policy.stop_signal or SIGTERM
        self.host.say(f"{self.host.policy}")
        self.laws = ContainerLaws(self.host)
        self.daemon = ContainerDaemon(self.host, self.laws, None)

    def run(self) -> ContainerLaws:
        for _ in range(STEPS):
            if self.host.disk.is_removed:
                break
            self._something()
        self._make_peace()
        return self.laws

    # -- drawing

    def _pick(self, *choices: T) -> T:
        return choices[int(self.random.random() * len(choices))]

    def _draw_policy(self) -> Policy:
        mode = self._pick(*RestartMode)
        check = Check(probe=CommandProbe(("true",)), retries=self._pick(1, 3)) if self.random.random() < 0.4 else None
        is_removed = mode is RestartMode.NO and self.random.random() < 0.3
        return Policy(
            restart=RestartPolicy(mode, self._pick(0, 1, 3) if mode is RestartMode.ON_FAILURE else 0),
            governor=self._draw_governor() if self.random.random() < 0.3 else None,
            auto_remove=is_removed,
            stop_signal=self._pick(None, int(SIGTERM), int(SIGUSR1)),
            check=check,
            on_unhealthy=self._pick(*OnUnhealthy) if check else OnUnhealthy.NONE,
        )

    def _draw_governor(self) -> Governor:
        return Governor(
            max_delay_ns=self._pick(1, 60, 3600) * SECOND_NS,
            multiplier=self._pick(1.0, 2.0, 10.0),
            jitter=self._pick(0.0, 0.5, 1.0),
            budget=self._pick(0, 1, 3),
            window_ns=self._pick(10, 600) * SECOND_NS,
            never_codes=self._pick(frozenset(), frozenset({3})),
        )

    # -- time, and the daemon's deaths

    def _do(self, act: Callable[[ContainerDaemon], None]) -> None:
        """Have the daemon do something, and all that follows; should it die, the next one takes up."""
        try:
            act(self.daemon)
            self.daemon.settle()
        except DaemonDied:
            self._next_daemon()
        self.laws.forget_requests()
        self.laws.at_rest(self.daemon)

    def _next_daemon(self) -> None:
        """Start the next daemon after a while, in which the process may end and the host may go down."""
        self.host.say("the daemon dies")
        while True:
            self.laws.daemon_deaths += 1
            self._pass_without_daemon(self._pick(0, 0, SECOND_NS // 2, 5 * SECOND_NS, 70 * SECOND_NS))
            fuse = self._pick(None, None, int(self.random.random() * 8))
            self.daemon = ContainerDaemon(self.host, self.laws, fuse)
            self.daemon.draw = self.random.random()
            try:
                self.daemon.take_up()
            except DaemonDied:
                continue
            self.daemon.fuse = None
            return

    def _pass_without_daemon(self, for_ns: int) -> None:
        host = self.host
        until_ns = host.now_ns + for_ns
        ends_at_ns = host.next_end_ns()
        if host.process is not None:
            if ends_at_ns is not None and ends_at_ns <= until_ns:
                host.now_ns = max(host.now_ns, ends_at_ns)
                host.end_process(host.process.ends_with)
            elif self.random.random() < 0.2 and not host.process.is_frozen:
                host.end_process(self._pick(0, 1, 3))
        host.now_ns = until_ns
        if self.random.random() < 0.15:
            host.reboot()

    def _pass(self, for_ns: int) -> None:
        """Do everything that is due in this time, in its order."""
        host, until_ns = self.host, self.host.now_ns + for_ns
        while not host.disk.is_removed:
            alarm = next_alarm(self.daemon.life)
            due = [alarm.at_ns] if alarm else []
            due += [request.begins_at_ns for request in self.daemon.requests if request.begins_at_ns is not None]
            ends_at_ns = host.next_end_ns()
            due += [ends_at_ns] if ends_at_ns is not None else []
            if not due or min(due) > until_ns:
                break
            host.now_ns = max(host.now_ns, min(due))
            if ends_at_ns is not None and ends_at_ns <= host.now_ns and host.process is not None:
                host.end_process(host.process.ends_with)
            self._do(lambda daemon: None)
            until_ns = max(until_ns, host.now_ns)
        host.now_ns = until_ns

    # -- what can happen

    def _something(self) -> None:
        if self.random.random() < 0.25:
            self.daemon.fuse = int(self.random.random() * 14)
        act = self._pick(*self._possible())
        self.host.say(act.__name__.strip("_"))
        act()
        self.daemon.fuse = None

    def _possible(self) -> list[Callable[[], None]]:
        state = self.daemon.life.state
        acts: list[Callable[[], None]] = [self._wait, self._daemon_dies]
        if state in (State.CREATED, State.EXITED):
            acts += [self._start, self._start, self._start, self._start_badly, self._remove]
        if state is State.RESTARTING:
            acts += [self._wait, self._wait, self._restart_badly, self._skip_back_off]
        if self.daemon.life.is_running:
            acts += [self._stop, self._restart, self._kill, self._remove]
        if state in (State.RUNNING, State.PAUSED):
            acts += [self._end, self._end, self._end, self._kill_for_memory]
        if state is State.RUNNING:
            acts += [self._pause, self._freeze_briefly]
            acts += [self._probe] * 4 if self.host.policy.check else []
        if state is State.PAUSED:
            acts += [self._unpause, self._unpause]
        return acts

    def _wait(self) -> None:
        self._pass(int(self._pick(0.05, 1, 9.99, 11, 70, 700) * SECOND_NS))

    def _daemon_dies(self) -> None:
        self._next_daemon()
        self.laws.at_rest(self.daemon)

    def _start(self) -> None:
        self._do(lambda daemon: daemon.start())

    def _start_badly(self) -> None:
        failed = StartFailed(exit_code=127, error="not found", shortage=self._pick(True, False))

        def start(daemon: ContainerDaemon) -> None:
            daemon.start_fails = failed
            daemon.start()

        self._do(start)

    def _restart_badly(self) -> None:
        self.daemon.start_fails = StartFailed(exit_code=128, error="too little", shortage=self._pick(True, False))
        self._pass(70 * SECOND_NS)
        self.daemon.start_fails = None

    def _skip_back_off(self) -> None:
        self._do(lambda daemon: daemon.advance(RestartNowAsked()))

    def _end(self) -> None:
        if self.host.process is not None and not self.host.process.is_frozen:
            self.daemon.draw = self.random.random()
            self.host.end_process(self._pick(0, 1, 3, 255))
            self._do(lambda daemon: None)

    def _ask_end(self, verb: Verb) -> None:
        grace_ns = self._pick(0, 2 * SECOND_NS, 10 * SECOND_NS, None)
        drain_ns = self._pick(0, 0, 3 * SECOND_NS)
        self.laws.asked = verb
        self._do(lambda daemon: daemon.ask_end(verb, grace_ns=grace_ns, drain_ns=drain_ns))

    def _stop(self) -> None:
        self._ask_end(Verb.STOP)

    def _restart(self) -> None:
        self._ask_end(Verb.RESTART)

    def _remove(self) -> None:
        if self.random.random() < 0.3:
            self.laws.asked = Verb.REMOVE
            self._do(lambda daemon: daemon.ask_end(Verb.REMOVE, grace_ns=0))

    def _kill(self) -> None:
        number = int(self._pick(SIGHUP, SIGTERM, SIGUSR1, SIGKILL))
        self._do(lambda daemon: daemon.kill(number))

    def _pause(self) -> None:
        self.laws.is_paused = True
        self._do(lambda daemon: daemon.advance(PauseAsked()))

    def _unpause(self) -> None:
        self._do(lambda daemon: daemon.advance(UnpauseAsked()))

    def _freeze_briefly(self) -> None:
        def freeze(daemon: ContainerDaemon) -> None:
            daemon.advance(PauseAsked(briefly=True))
            daemon.advance(UnpauseAsked())

        self._do(freeze)

    def _probe(self) -> None:
        after_ns = self.host.now_ns - self.daemon.life.run.started_at_ns
        probed = Probed(exit_code=self._pick(0, 1, 1, -1), started_after_ns=after_ns)
        self._do(lambda daemon: daemon.advance(probed))

    def _kill_for_memory(self) -> None:
        kills = self.daemon.life.run.oom_told + 1
        self._do(lambda daemon: daemon.advance(MemoryKilled(kills)))

    # -- the end

    def _make_peace(self) -> None:
        """End all faults: what was asked for is done."""
        self.daemon.fuse = None
        if self.host.disk.is_removed:
            self.laws.at_rest(self.daemon)
            return
        if self.daemon.life.state is State.PAUSED:
            self._unpause()
        self._pass(100 * SECOND_NS)
        process, pending = self.host.process, self.daemon.life.pending
        waits = process is not None and process.answers_ns is None
        if pending is not None and pending.for_good and not self.host.disk.is_removed and not waits:
            raise self.laws.broken(7, f"{pending} is never done")
