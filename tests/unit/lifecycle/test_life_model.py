"""A container's lives on a virtual clock: people, crashes, daemon deaths and reboots in any order, and the laws hold.

`Shell` does with the shipped decisions what the engine does with them: it keeps the record, and decides nothing. The
laws are checked against what really happened, which the test keeps apart in its own words.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bennu.lifecycle.governor import CrashHistory, Governor, govern, govern_boot, score_after_end
from bennu.lifecycle.restart import (
    Exit,
    Restart,
    RestartHistory,
    RestartMode,
    RestartPolicy,
    Start,
    decide_boot,
    decide_restart,
)
from bennu.lifecycle.status import Event, State, next_state
from bennu.lifecycle.stop import effect_of_signal

SECOND = 10**9
MS = 10**6
SIGHUP, SIGKILL, SIGUSR1, SIGTERM = 1, 9, 10, 15
POLICIES = st.builds(
    lambda mode, most: RestartPolicy(mode, most if mode is RestartMode.ON_FAILURE else 0),
    st.sampled_from(RestartMode),
    st.integers(0, 3),
)
DRAWS = st.sampled_from([0.0, 0.5, 0.8, 1.0])
GOVERNORS = st.builds(
    Governor,
    max_delay_ns=st.sampled_from([SECOND, 60 * SECOND, 3600 * SECOND]),
    multiplier=st.sampled_from([1.0, 2.0, 10.0]),
    jitter=st.sampled_from([0.0, 0.5, 1.0]),
    budget=st.integers(0, 3),
    window_ns=st.sampled_from([10 * SECOND, 600 * SECOND]),
    never_codes=st.sampled_from([frozenset(), frozenset({3})]),
)


@dataclass
class Shell:
    """The record of one container, kept as the engine keeps it. Time comes from outside."""

    policy: RestartPolicy
    stop_signal: int | None
    governor: Governor | None
    state: State = State.CREATED
    code: int | None = 0
    started_ns: int = 0
    finished_ns: int = 0
    count: int = 0
    delay_ns: int = 0
    due_ns: int = 0
    cancelled: bool = False
    manually_stopped: bool = False
    started_before: bool = False
    gave_up: bool = False
    score: float = 0.0
    scored_ns: int = 0
    restarts_ns: list[int] = field(default_factory=list)

    def move(self, event: Event) -> None:
        self.state = next_state(self.state, event)

    def start(self, now_ns: int) -> None:
        """By a person, or by the daemon as it starts."""
        self.count = self.delay_ns = self.due_ns = 0
        self.cancelled = self.manually_stopped = self.gave_up = False
        self.score, self.scored_ns, self.restarts_ns = 0.0, 0, []
        self.launch(now_ns)

    def launch(self, now_ns: int) -> None:
        self.move(Event.START)
        self.code, self.started_ns, self.due_ns, self.started_before = 0, now_ns, 0, True

    def take_signal(self, number: int) -> bool:
        """Bookkeeping before a signal is sent; False: there was only a pending restart, and nothing is sent."""
        effect = effect_of_signal(self.stop_signal, number, paused=self.state is State.PAUSED)
        self.manually_stopped = True
        self.cancelled = self.cancelled or effect.cancel_restart
        if self.state is State.RESTARTING:
            if self.cancelled:
                self.move(Event.EXIT)
                self.due_ns = 0
            return False
        if effect.unpause:
            self.move(Event.UNPAUSE)
        return True

    def end(self, code: int | None, finished_ns: int, now_ns: int, draw: float) -> None:
        ended = Exit(code=code, ran_for_ns=max(0, finished_ns - self.started_ns), stopped_by_user=self.manually_stopped)
        decision = decide_restart(self.policy, ended, RestartHistory(self.count, self.delay_ns, self.cancelled))
        past = CrashHistory(self.score, self.scored_ns, self.restarts_ns)
        if self.governor is not None:
            decision = govern(self.governor, decision, past, code=code, now_ns=now_ns, draw=draw)
        assert decision.reason
        self.code, self.finished_ns, self.delay_ns = code, finished_ns, decision.delay_ns
        if isinstance(decision, Restart):
            self.move(Event.BACK_OFF)
            self.count += 1
            self.due_ns = now_ns + decision.delay_ns
            self.restarts_ns.append(now_ns)
            self.score, self.scored_ns = score_after_end(past, now_ns), now_ns
        else:
            self.move(Event.EXIT)
            self.gave_up = decision.gave_up

    def lose(self, now_ns: int) -> None:
        """The host went down with it."""
        if self.state in (State.RUNNING, State.PAUSED):
            self.code, self.finished_ns = None, now_ns
        self.due_ns = 0
        self.move(Event.EXIT)

    def boot(self, now_ns: int) -> None:
        if self.state is not State.EXITED or not self.started_before:
            return
        ended = Exit(
            code=self.code,
            ran_for_ns=max(0, self.finished_ns - self.started_ns),
            stopped_by_user=self.manually_stopped,
        )
        decision = decide_boot(self.policy, ended, RestartHistory(self.count, 0, self.cancelled))
        if self.governor is not None:
            decision = govern_boot(self.governor, decision, code=self.code, gave_up=self.gave_up)
        assert decision.reason
        if isinstance(decision, Start):
            self.start(now_ns)


class Lives(RuleBasedStateMachine):
    """What people, processes, daemons and hosts do; what really happened is kept in the fields of this class."""

    @initialize(
        policy=POLICIES,
        stop_signal=st.sampled_from([None, SIGTERM, SIGUSR1]),
        governor=st.none() | GOVERNORS,
        started=st.booleans(),
    )
    def create(self, policy: RestartPolicy, stop_signal: int | None, governor: Governor | None, started: bool) -> None:
        self.shell = Shell(policy, stop_signal, governor)
        self.now_ns = 1_000 * SECOND
        self.daemon_lives = True
        self.process_lives = False
        self.unseen: tuple[int, int] | None = None  # how and when the process ended while no daemon looked
        self.stopped_by_person = False  # and nobody has started it since
        self.quick_ends = 0  # ends in a row, since a person's start, after less than ten seconds each
        self.given_up = False  # its budget was used up when it ended, and nobody has started it since
        self.restarts: list[int] = []  # instants of decisions to restart, since a person's start
        self.deaths: list[int | None] = []  # that really happened
        self.recorded: list[int | None] = []
        if started:
            self.person_starts()

    # --- the world ----------------------------------------------------------------------------------------------------

    def process_begins(self) -> None:
        assert not self.process_lives, "two processes at once"
        self.process_lives = True

    def person_begins(self) -> None:
        self.stopped_by_person = self.given_up = False
        self.quick_ends, self.restarts = 0, []
        self.process_begins()

    def process_ends(self, code: int) -> None:
        self.process_lives = False
        self.deaths.append(code)
        if self.daemon_lives:
            self.see_end(code, self.now_ns)
        else:
            self.unseen = (code, self.now_ns)

    def see_end(self, code: int, finished_ns: int) -> None:
        shell = self.shell
        ran_ns = finished_ns - shell.started_ns
        shell.end(code, finished_ns, self.now_ns, self.draw)
        self.recorded.append(shell.code)
        self.quick_ends = 0 if ran_ns >= 10 * SECOND else self.quick_ends
        if shell.state is State.RESTARTING:
            self.restarts.append(self.now_ns)
            self.check_limits(shell.due_ns - self.now_ns)
        elif shell.governor and shell.governor.budget:
            self.given_up = shell.policy.mode is RestartMode.ALWAYS and self.is_budget_used() and not shell.cancelled
        self.quick_ends += 1

    def is_budget_used(self) -> bool:
        governor = self.shell.governor
        assert governor is not None
        window = [instant for instant in self.restarts if self.now_ns - instant < governor.window_ns]
        return len(window) >= governor.budget

    def check_limits(self, delay_ns: int) -> None:
        """Law 6, at the moment of the decision."""
        policy, governor = self.shell.policy, self.shell.governor
        assert policy.mode is not RestartMode.NO
        if policy.mode is RestartMode.ON_FAILURE:
            assert self.shell.code != 0
            assert not policy.max_retries or len(self.restarts) <= policy.max_retries
        if governor is None:
            assert delay_ns == min(100 * MS * 2**self.quick_ends, 60 * SECOND)
            return
        assert delay_ns <= governor.max_delay_ns
        assert self.shell.code not in governor.never_codes
        window = [instant for instant in self.restarts if self.now_ns - instant < governor.window_ns]
        assert not governor.budget or len(window) <= governor.budget

    draw = 0.5  # of the governor's jitter

    # --- what can happen ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.daemon_lives and self.shell.state in (State.CREATED, State.EXITED))
    @rule()
    def person_starts(self) -> None:
        self.shell.start(self.now_ns)
        self.person_begins()

    @precondition(lambda self: self.process_lives)
    @rule(code=st.sampled_from([0, 1, 3, 137, 255]))
    def process_ends_by_itself(self, code: int) -> None:
        self.process_ends(code)

    @precondition(lambda self: self.daemon_lives and self.process_lives)
    @rule(code=st.sampled_from([1, 3]), times=st.sampled_from([2, 4, 13]), ran=st.sampled_from([0.01, 11]), draw=DRAWS)
    def process_ends_again_and_again(self, code: int, times: int, ran: float, draw: float) -> None:
        self.draw = draw
        for _ in range(times):
            self.now_ns += round(ran * SECOND)
            self.process_ends(code)
            if self.shell.state is not State.RESTARTING:
                return
            self.now_ns = self.shell.due_ns
            self.restart_is_due()

    @precondition(lambda self: self.alive)
    @rule(listens=st.booleans())
    def person_stops(self, listens: bool) -> None:
        self.stopped_by_person = True
        signal = self.shell.stop_signal or SIGTERM
        if self.shell.take_signal(signal):
            if not listens:
                self.now_ns += 10 * SECOND
                self.shell.take_signal(SIGKILL)
            self.process_ends(0 if listens else 137)

    @precondition(lambda self: self.alive)
    @rule(signal=st.sampled_from([SIGHUP, SIGTERM, SIGUSR1, SIGKILL]), ends=st.booleans())
    def person_sends(self, signal: int, ends: bool) -> None:
        if signal == SIGKILL:
            self.stopped_by_person = True
        sent = self.shell.take_signal(signal)
        if sent and self.shell.state is State.RUNNING and (ends or signal == SIGKILL):
            self.process_ends(128 + signal)

    @precondition(lambda self: self.daemon_lives and self.shell.state is State.RUNNING)
    @rule()
    def person_pauses(self) -> None:
        self.shell.move(Event.PAUSE)

    @precondition(lambda self: self.daemon_lives)
    @rule(policy=POLICIES)
    def person_changes_the_policy(self, policy: RestartPolicy) -> None:
        self.shell.policy = policy

    @rule(seconds=st.sampled_from([0.05, 1, 9.99, 11, 70, 700]))
    def time_passes(self, seconds: float) -> None:
        until = self.now_ns + round(seconds * SECOND)
        due = self.shell.due_ns
        if self.daemon_lives and due and due <= until:
            self.now_ns = max(self.now_ns, due)
            self.restart_is_due()
        self.now_ns = until

    def restart_is_due(self) -> None:
        assert self.shell.state is State.RESTARTING
        assert self.now_ns >= self.shell.due_ns
        self.shell.launch(self.now_ns)
        self.process_begins()

    @precondition(lambda self: self.daemon_lives)
    @rule()
    def daemon_dies(self) -> None:
        self.daemon_lives = False

    @precondition(lambda self: not self.daemon_lives)
    @rule(host_went_down=st.booleans())
    def daemon_starts(self, host_went_down: bool) -> None:
        self.daemon_lives = True
        if self.unseen is not None:
            # A reboot after it changes nothing: its true exit code was waiting on disk, if the disk is still there.
            self.see_end(*self.unseen)
            self.unseen = None
        if host_went_down:
            self.host_was_down()
        lived, before = self.process_lives, self.shell.code
        self.shell.boot(self.now_ns)
        if self.shell.state is State.RUNNING and not lived:
            assert not self.stopped_by_person or self.shell.policy.mode is RestartMode.ALWAYS
            assert not self.given_up
            assert before not in (self.shell.governor.never_codes if self.shell.governor else ())
            self.person_begins()
        elif self.shell.due_ns and self.shell.due_ns <= self.now_ns:
            self.restart_is_due()

    @precondition(lambda self: self.daemon_lives)
    @rule(host_went_down=st.booleans())
    def daemon_starts_anew(self, host_went_down: bool) -> None:
        self.daemon_dies()
        self.daemon_starts(host_went_down)

    def host_was_down(self) -> None:
        if self.process_lives:
            self.process_lives = False
            self.deaths.append(None)
            self.shell.lose(self.now_ns)
            self.recorded.append(self.shell.code)
        elif self.shell.state is State.RESTARTING:
            self.shell.lose(self.now_ns)

    @property
    def alive(self) -> bool:
        return self.daemon_lives and self.shell.state in (State.RUNNING, State.PAUSED, State.RESTARTING)

    # --- the laws -----------------------------------------------------------------------------------------------------

    @invariant()
    def a_death_is_recorded_once_with_its_true_code(self) -> None:
        """Law 1."""
        if self.unseen is None:
            assert self.recorded == self.deaths

    @invariant()
    def what_a_person_stopped_stays_stopped(self) -> None:
        """Law 2."""
        if self.stopped_by_person and not self.process_lives and self.unseen is None:
            assert self.shell.state is State.EXITED

    @invariant()
    def the_record_says_what_is(self) -> None:
        if self.unseen is None:
            assert self.process_lives == (self.shell.state in (State.RUNNING, State.PAUSED))
        assert bool(self.shell.due_ns) == (self.shell.state is State.RESTARTING)


Lives.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase
