"""The engine's memory of a container: one durable record, written only by that container's supervisor."""

import secrets

import msgspec

from bennu.lifecycle.life_model import Life
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


class Record(msgspec.Struct, kw_only=True, frozen=True):
    """A container's identity, configuration and life. `stored_record` defines its form on disk."""

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
    links: dict[str, str] = msgspec.field(default_factory=dict)  # legacy links: alias → container id

    sandbox: Sandbox | None = None  # held from the first start of a row of lives until their end
    probes: list[HealthProbe] = msgspec.field(default_factory=list)  # the last five, of earlier runs, too
    life: Life = Life()

    @property
    def image_ids(self) -> set[str]:
        """The image that it is made from, and those that are mounted in it."""
        return {self.image_id, *(point.source for point in self.mounts if point.type == "image")}

    # What Docker shows of a life, in its terms: the last run's facts stay after its end.

    @property
    def state(self) -> State:
        return self.life.state

    @property
    def running(self) -> bool:
        return self.life.is_running

    @property
    def pid(self) -> int:
        return self.life.run.pid

    @property
    def started_at_ns(self) -> int:
        return self.life.run.started_at_ns

    @property
    def finished_at_ns(self) -> int:
        return self.life.last_end.finished_at_ns

    @property
    def exit_code(self) -> int | None:
        return self.life.last_end.exit_code

    @property
    def error(self) -> str:
        return self.life.last_end.error

    @property
    def oom_killed(self) -> bool:
        return self.life.last_end.oom_killed

    @property
    def health(self) -> Health | None:
        """The health state; None: the container has no health check, or was never started."""
        state = self.life.run.health
        return None if state is None else Health(state.status, state.failing_streak, self.probes)


def new_id() -> str:
    """Draw 64 hexadecimal digits; the first twelve are never all decimal, which could be taken for a number."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdecimal():
            return candidate
