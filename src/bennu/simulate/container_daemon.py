"""A simulated daemon around `lifecycle.life`: it keeps the record, and decides nothing.

As in the engine: an event is stepped, written, shown, and its effects are performed in their order; a request that
takes several writes waits for the end and goes on. The daemon may die at any instruction, which `tick` counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from signal import SIGKILL
from typing import assert_never

from bennu.lifecycle.death import Requester, Verb
from bennu.lifecycle.health import OnUnhealthy
from bennu.lifecycle.life import Owed, Seen, decide_start, find_owed, next_alarm, recover, step
from bennu.lifecycle.life_events import (
    ActOnUnhealthy,
    ClearLeftovers,
    DrainBegun,
    Durability,
    Effect,
    Exited,
    ForgetProcess,
    Freeze,
    Launch,
    LifeEvent,
    Paused,
    ReleaseAll,
    RunStarted,
    SendSignal,
    SignalAsked,
    SignalMissed,
    SignalSent,
    StartAsked,
    StartFailed,
    TellWaiters,
    Thaw,
    Thawed,
    Transition,
    UnhealthyRestartAsked,
    UnwatchRun,
    WatchRun,
)
from bennu.lifecycle.life_model import Life, PendingOperation
from bennu.lifecycle.restart import Start
from bennu.lifecycle.status import State
from bennu.simulate.container_host import SECOND_NS, DaemonDied, Host
from bennu.simulate.container_laws import ContainerLaws

PERSON = Requester("client", uid=0, pid=1, command="docker")
HEALTH = Requester("health", command="3 probes in a row failed")


@dataclass(slots=True)
class Request:
    """A stop, restart or removal under way: it waits for the end."""

    verb: Verb
    begins_at_ns: int | None = None  # once its connections have ended; None: it has begun
    is_told: bool = False  # that the process has ended


class ContainerDaemon:
    """One life of the daemon, over the container that it finds on the disk."""

    def __init__(self, host: Host, laws: ContainerLaws, fuse: int | None) -> None:
        """Begin a life of the daemon. `fuse`: after how many instructions it dies; None: never by itself."""
        self.host = host
        self.laws = laws
        self.fuse = fuse
        self.life: Life = host.disk.life
        self.requests: list[Request] = []
        self.is_watched = False
        self.start_fails: StartFailed | None = None  # how the next start fails
        self.draw = 0.5
        self._happening: LifeEvent | None = None  # the event that is being taken in
        self._instruction = 0  # of it

    def tick(self) -> None:
        """Count an instruction that is done, and die once the fuse is used up."""
        self._instruction += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.laws.on_death_of_the_daemon(self._happening, self._instruction)
                raise DaemonDied

    # -- the machine's shell

    def advance(self, happened: LifeEvent) -> None:
        host = self.host
        host.say(f"{happened}")
        self._happening, self._instruction = happened, 0
        change = step(self.life, happened, host.policy, now_ns=host.now_ns, draw=self.draw)
        self.laws.on_step(self.life, happened, change)
        self.tick()
        if change.durability is not Durability.NOT_WRITTEN:
            self._write(happened, change)
            self.tick()
        self.life = change.life
        for effect in change.effects:
            led_to = self._perform(effect)
            self.tick()
            if led_to is not None:
                self.advance(led_to)

    def _write(self, happened: LifeEvent, change: Transition) -> None:
        disk = self.host.disk
        self.laws.on_write(disk.life, happened, change)
        disk.life = change.life
        disk.told += change.notices
        disk.writes += 1
        if change.death is not None:
            disk.deaths.append(change.death)

    def _perform(self, effect: Effect) -> LifeEvent | None:
        host = self.host
        match effect:
            case Launch():
                return self._launch()
            case SendSignal():
                return self._send(effect)
            case Freeze():
                host.freeze(True)
                return Paused()
            case Thaw():
                host.freeze(False)
                return Thawed()
            case WatchRun() | UnwatchRun():
                self.is_watched = isinstance(effect, WatchRun)
            case ForgetProcess():
                host.delete()
            case ReleaseAll() | ClearLeftovers():
                host.delete()
                host.holds_sandbox = False
            case TellWaiters():
                self.is_watched = False
                for request in self.requests:
                    request.is_told = True
            case ActOnUnhealthy():
                self._act_on_unhealthy(effect.action)
            case _:
                assert_never(effect)
        return None

    def _launch(self) -> LifeEvent:
        host = self.host
        self.laws.on_launch(self.life)
        host.holds_sandbox = True
        self.tick()
        if self.start_fails is not None:
            failed, self.start_fails = self.start_fails, None
            host.delete()
            host.holds_sandbox = False
            return failed
        process = host.create()
        self.tick()
        return RunStarted(pid=process.pid, boot_id=host.boot_id, at_ns=host.now_ns)

    def _send(self, effect: SendSignal) -> LifeEvent:
        if effect.number == SIGKILL:
            self.laws.on_sigkill()
        disposition = self.host.kill(effect.number)
        if disposition is None:
            return SignalMissed(effect.again)
        self.tick()
        if effect.thaw:
            self.host.freeze(False)
        return SignalSent(disposition)

    def _act_on_unhealthy(self, action: OnUnhealthy) -> None:
        """Act on bad health as the engine does in the background, but at once, after the step."""
        if action is OnUnhealthy.KILL:
            self.laws.grants(0)
            self.advance(SignalAsked(number=SIGKILL, by=HEALTH, verb=Verb.KILL, for_good=False))
            return
        if action is OnUnhealthy.RESTART:
            self.advance(UnhealthyRestartAsked())
        is_stop = action is OnUnhealthy.STOP
        verb = Verb.STOP if is_stop else Verb.RESTART
        if is_stop:
            self.laws.calls_off = True
        self._send_stop(HEALTH, verb, grace_ns=10 * SECOND_NS, for_good=is_stop)

    # -- requests

    def start(self) -> None:
        self.advance(StartAsked())

    def kill(self, number: int) -> None:
        if number == SIGKILL:
            self.laws.grants(0)
        if number in (self.host.stop_signal, SIGKILL):
            process = self.host.process
            self.laws.calls_off = process is None
            self.laws.wishes = process is not None and (number == SIGKILL or process.answers_ns is not None)
        self.advance(SignalAsked(number=number, by=PERSON, verb=Verb.KILL))

    def ask_end(self, verb: Verb, *, grace_ns: int | None, drain_ns: int = 0) -> None:
        """Stop, restart or remove. `grace_ns` None: SIGKILL never follows. `drain_ns`: its connections end first."""
        self.laws.calls_off = True
        self.requests.append(request := Request(verb))
        if not self.life.is_running:
            request.is_told = True
        elif verb is Verb.REMOVE:
            self._kill_to_remove()
        elif drain_ns and self.life.state is not State.RESTARTING:
            grace_s = None if grace_ns is None else grace_ns / SECOND_NS
            operation = PendingOperation(verb=verb, by=PERSON, unbegun=self.host.stop_signal, grace_s=grace_s)
            self.advance(DrainBegun(operation))
            request.begins_at_ns = self.host.now_ns + drain_ns
        else:
            self._send_stop(PERSON, verb, grace_ns=grace_ns)

    def _kill_to_remove(self) -> None:
        self.laws.grants(0)
        removal = PendingOperation(verb=Verb.REMOVE, by=PERSON)
        self.advance(SignalAsked(number=SIGKILL, by=PERSON, verb=Verb.REMOVE, operation=removal))

    def _send_stop(self, by: Requester, verb: Verb, *, grace_ns: int | None, for_good: bool = True) -> None:
        self.laws.grants(grace_ns)
        kill_at_ns = self.host.now_ns + grace_ns if grace_ns is not None else 0
        if self.life.state is State.RESTARTING:
            kill_at_ns = 0
        operation = PendingOperation(verb=verb, by=by, kill_at_ns=kill_at_ns, for_good=for_good)
        number = self.host.stop_signal
        self.advance(SignalAsked(number=number, by=by, verb=verb, for_good=for_good, operation=operation))

    def settle(self) -> None:
        """Do all that can be done now: ends, what is due by the clock, requests that can go on."""
        while not self.host.disk.is_removed and self._settle_once():
            pass

    def _settle_once(self) -> bool:
        host, life = self.host, self.life
        if life.run.pid and host.process is None:
            code, at_ns = host.exit_file or (None, None)
            self.advance(Exited(exit_code=code, finished_at_ns=at_ns))
            is_kept = any(request.verb is Verb.RESTART for request in self.requests)
            if host.policy.auto_remove and not is_kept and find_owed(self.life, host.policy) is Owed.REMOVAL:
                self._remove()
            return True
        alarm = next_alarm(life)
        if alarm is not None and alarm.at_ns <= host.now_ns:
            self.advance(alarm.event)
            return True
        return any(self._go_on(request) for request in list(self.requests))

    def _go_on(self, request: Request) -> bool:
        """Continue a request; False: it still waits."""
        if not request.is_told:
            if request.begins_at_ns is None or request.begins_at_ns > self.host.now_ns:
                return False
            request.begins_at_ns = None
            grace_s = self.life.pending.grace_s if self.life.pending is not None else 0
            grace_ns = None if grace_s is None else int(grace_s * SECOND_NS)
            self._send_stop(PERSON, request.verb, grace_ns=grace_ns)
            return True
        self.requests.remove(request)
        if request.verb is Verb.RESTART and not self.life.is_running:
            self.start()
        elif request.verb is Verb.REMOVE:
            self._go_on_removing()
        return True

    def _go_on_removing(self) -> None:
        if self.life.is_running:  # somebody has started it meanwhile
            self.requests.append(Request(Verb.REMOVE))
            self._kill_to_remove()
        else:
            self._remove()

    def _remove(self) -> None:
        self.host.delete()
        self.host.holds_sandbox = False
        self.tick()
        self.host.disk.is_removed = True
        self.requests.clear()
        self.tick()

    # -- after another daemon's death

    def take_up(self) -> None:
        """Recover one container as `engine.recovery` does."""
        host = self.host
        frozen = host.process.is_frozen if host.process is not None else None
        if host.disk.is_removed:
            return
        for happened in recover(self.life, Seen(host.boot_id, frozen)):
            self.advance(happened)
        wants_start = isinstance(decide_start(self.life, host.policy), Start)
        self._finish_pending()
        if wants_start and not host.disk.is_removed:
            self.laws.on_boot_start()
            self.start()
        self.settle()

    def _finish_pending(self) -> None:
        pending = self.life.pending
        if pending is not None and (self.life.is_running or pending.outlasts_end):
            begins_at_ns = self.host.now_ns + SECOND_NS if pending.unbegun else None
            self.requests.append(Request(pending.verb, begins_at_ns, is_told=not self.life.is_running))
        elif find_owed(self.life, self.host.policy) is Owed.REMOVAL:
            self._remove()
