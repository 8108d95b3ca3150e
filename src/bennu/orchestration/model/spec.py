"""A person's wish: the specification of a service, in the core's own types.

Law: a spec is a value. Two specs are the same wish exactly if they compare equal; that comparison, and nothing else,
decides whether a running task is outdated (`slots/outdated.py`). So "absent" and "explicitly the default" are kept
apart wherever Docker keeps them apart (`restart=None` is not `TaskRestartPolicy()`), and the parts the core has no
opinion on (image, arguments, mounts, limits, health check, …) travel as one opaque `container` payload: the shell's
canonical encoding of the container part, which the core compares and never opens.

The wire shapes live at the API's edge and are turned into these types there, once, with Docker's defaults for objects
that are present but lack a field (an `UpdateConfig: {}` on the wire has parallelism 0; an absent one has 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bennu.orchestration.model.states import (
    NS_PER_SECOND,
    EndpointMode,
    FailureAction,
    PublishMode,
    RestartCondition,
    UpdateOrder,
)

DEFAULT_RESTART_DELAY_NS: Final = 5 * NS_PER_SECOND
DEFAULT_MONITOR_NS: Final = 5 * NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class TaskRestartPolicy:
    """The policy of restarts: when the successor of an ended task is made, and how often.

    `max_attempts` 0 means no limit; `window_ns` 0 means that attempts are counted since the slot's version began.
    """

    condition: RestartCondition = RestartCondition.ANY
    delay_ns: int = DEFAULT_RESTART_DELAY_NS
    max_attempts: int = 0
    window_ns: int = 0


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """The pace and limits of a rollout; a rollback's config has the same shape.

    `parallelism` 0 means all slots at once.
    """

    parallelism: int = 1
    delay_ns: int = 0
    failure_action: FailureAction = FailureAction.PAUSE
    monitor_ns: int = DEFAULT_MONITOR_NS
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and an architecture, in any of their spellings; empty matches anything."""

    os: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The rules for the nodes where tasks may run.

    `constraints` in Docker's grammar (`constraints.py`), `spread` the descriptors of the spread preferences with the
    outermost first (`node.labels.dc`), `max_replicas` per node with 0 meaning no limit, `platforms` those the image was
    built for with none meaning any. `given` is false for a spec without rules, which is shown as it came.
    """

    constraints: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    max_replicas: int = 0
    platforms: tuple[Platform, ...] = ()
    given: bool = True


@dataclass(frozen=True, slots=True)
class Reservation:
    """The resources that a task keeps for itself on its node. `generic`: kind → how many."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PortSpec:
    target: int
    published: int = 0
    protocol: str = "tcp"
    mode: PublishMode = PublishMode.INGRESS
    name: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    mode: EndpointMode = EndpointMode.VIP
    ports: tuple[PortSpec, ...] = ()

    @property
    def host_ports(self) -> frozenset[tuple[str, int]]:
        """(protocol, published port) bound on the node itself: two such tasks cannot share a node."""
        return frozenset((p.protocol, p.published) for p in self.ports if p.mode is PublishMode.HOST and p.published)


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The template of a task: the parts the orchestrator judges, and `container`, which it only compares."""

    container: bytes = b""
    restart: TaskRestartPolicy | None = None
    placement: Placement = Placement()
    reservation: Reservation = Reservation()
    plugins: frozenset[tuple[str, str]] = frozenset()  # (type, name) a node must have: Volume, Network, Log
    cluster_volumes: frozenset[str] = frozenset()
    force_update: int = 0
    registry_auth: str = ""  # changes of it alone replace no task that is ready to running

    @property
    def restart_policy(self) -> TaskRestartPolicy:
        """The policy in force: the given one, or Docker's default (any, 5 s, no limit)."""
        return self.restart or TaskRestartPolicy()


@dataclass(frozen=True, slots=True)
class Replicated:
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Global:
    pass


@dataclass(frozen=True, slots=True)
class ReplicatedJob:
    """`total_completions` slots numbered from 0, at most `max_concurrent` of them at a time."""

    max_concurrent: int = 1
    total_completions: int = 1


@dataclass(frozen=True, slots=True)
class GlobalJob:
    pass


Mode = Replicated | Global | ReplicatedJob | GlobalJob

MAX_TASKS: Final = 10_000  # that one service may ask for, at a time or in all; far more than one cluster of hosts runs


@dataclass(frozen=True, slots=True)
class Rolling:
    """Docker's update: slot by slot, judged by early deaths."""


@dataclass(frozen=True, slots=True)
class CanaryStep:
    """Bring `tasks` slots (or `percent` of them, whichever is more; at least one) to the new version, then watch."""

    tasks: int = 0
    percent: int = 0
    watch_ns: int = 60 * NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Canary:
    """A few tasks first; each step is watched and compared with the old version before the next, the rest follows.

    `confidence` is how sure the comparison must be before it condemns the new version: at 0.95 a version that is as
    good as the one before is blamed, for each sign, at most once in twenty releases, however long it is watched.
    `ready_within_ns` bounds how long a step may take to run at all.
    """

    steps: tuple[CanaryStep, ...] = (CanaryStep(tasks=1),)
    confidence: float = 0.95
    slower_by: float = 1.5
    ready_within_ns: int = 300 * NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class BlueGreen:
    """All new tasks beside the old, one switch of the traffic, the old ones kept warm for `keep_warm_ns`.

    The switch waits until every new task has run for `settle_ns` without an end, at most `ready_within_ns`.
    """

    settle_ns: int = 5 * NS_PER_SECOND
    keep_warm_ns: int = 300 * NS_PER_SECOND
    ready_within_ns: int = 300 * NS_PER_SECOND


Strategy = Rolling | Canary | BlueGreen


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A person's whole wish for a service. Absent configs mean Docker's defaults (parallelism 1, pause, …)."""

    name: str
    mode: Mode = Replicated()
    task: TaskSpec = TaskSpec()
    labels: Mapping[str, str] = field(default_factory=dict)
    update: UpdateConfig | None = None
    rollback: UpdateConfig | None = None
    endpoint: EndpointSpec | None = None
    strategy: Strategy = Rolling()
    networks_beside: bool = False  # the template's networks were given beside it, and are shown there
