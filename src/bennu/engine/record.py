"""What the engine remembers of a container: one durable record, written only by that container's supervisor."""

import secrets

import msgspec

from bennu.lifecycle.death import Asker, SentSignal, Verb
from bennu.lifecycle.status import State
from bennu.model import ContainerConfig, EndpointSettings, HostConfig, MountPoint, Shape
from bennu.network import Sandbox


class HealthProbe(Shape):
    """One finished health probe. `start` and `end` are RFC 3339 texts in the daemon's zone, as Docker shows them."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(Shape):
    """`State.Health`: status is starting, healthy or unhealthy; the log holds the last five probes."""

    status: str
    failing_streak: int
    log: list[HealthProbe]


class Errand(msgspec.Struct, kw_only=True, frozen=True):
    """What was asked and takes several writes to do. A daemon that finds it on record goes on with it."""

    verb: Verb  # stop, restart or remove
    by: Asker
    unbegun: int = 0  # the stop signal, while the connections of a task end before it is sent; 0 = it was sent
    grace_s: float | None = None  # of what is unbegun: how long after the stop signal SIGKILL follows; None = never
    kill_at_ns: int = 0  # when SIGKILL follows the stop signal; 0 = never
    for_good: bool = True  # a person's wish; else its policy decides what follows
    volumes: bool = False  # of a removal: its anonymous volumes go too

    @property
    def outlasts_end(self) -> bool:
        """There is something left to do when the process has ended."""
        return self.for_good and self.verb in (Verb.RESTART, Verb.REMOVE)


class Record(msgspec.Struct, kw_only=True):
    """Wall-clock instants in ns since the epoch; 0 = never."""

    id: str
    name: str  # without the leading slash
    created_ns: int
    image_id: str
    path: str
    args: list[str]
    config: ContainerConfig
    host_config: HostConfig
    endpoints: dict[str, EndpointSettings]  # what was asked, by network name; insertion order = eth0, eth1, …
    mounts: list[MountPoint]

    state: State = State.CREATED
    exit_code: int | None = 0  # None: it ended and nobody knows how
    error: str = ""
    oom_killed: bool = False
    oom_told: int = 0  # how many of the processes that were killed for memory the events have told of
    started_at_ns: int = 0
    finished_at_ns: int = 0
    health: Health | None = None
    sandbox: Sandbox | None = None  # held from the first start of a row of lives until their end

    pid: int = 0  # host pid of the container's init; 0 when there is none
    boot_id: str = ""  # of the boot in which pid and sandbox are valid

    life: int = 0  # how many times it was started, ever
    restart_count: int = 0  # policy restarts since the last start by a person
    restart_delay_ns: int = 0  # the last back-off delay
    restart_due_ns: int = 0  # when the pending restart happens; 0 = none pending
    restart_cancelled: bool = False  # sticky until the next start by a person (or at boot)
    restarts_ns: list[int] = msgspec.field(default_factory=list)  # instants of policy restarts, for the governor
    crash_score: float = 0.0
    scored_at_ns: int = 0
    gave_up: bool = False  # its budget of restarts is used up: only a person starts it again
    revive: bool = False  # it is being ended for bad health, only to be started again
    manually_stopped: bool = False
    started_before: bool = False
    signals: list[SentSignal] = msgspec.field(default_factory=list)  # of the present life
    unsent: int = 0  # the last of them, while it may not have been sent yet
    errand: Errand | None = None  # under way
    pause_is_brief: bool = False  # it is, or is about to be, paused for the length of a request

    @property
    def running(self) -> bool:
        """Docker's `State.Running`: paused and restarting containers count."""
        return self.state in (State.RUNNING, State.PAUSED, State.RESTARTING)


def new_id() -> str:
    """64 hexadecimal digits whose first twelve are not all decimal (they could be taken for a number)."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdecimal():
            return candidate
