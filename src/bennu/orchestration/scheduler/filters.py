"""Filters of the nodes a task could go to, and the count of those that refuse it, in Docker's words.

Law: a node is charged to the first filter it fails, in the order of `FILTERS`; if no node is left, the explanation
names every filter that refused one, the most frequent first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bennu.go.arch import architecture as go_architecture
from bennu.orchestration.model.constraints import unmet_constraint
from bennu.orchestration.model.nouns import ServiceId, Task
from bennu.orchestration.model.spec import Platform
from bennu.orchestration.scheduler.node_set import NodeInfo


@dataclass(slots=True)
class Capacity:
    """The capacity left on one node while a group of tasks is being placed: a scratch copy of its `NodeInfo`."""

    info: NodeInfo
    nano_cpus: int  # free
    memory_bytes: int  # free
    generic: dict[str, int]  # free pieces by kind
    names: set[tuple[str, str]]  # taken pieces
    host_ports: set[tuple[str, int]]  # taken
    of_service: int  # tasks of the service, for the choice
    towards_limit: int  # tasks of the service, for the limit per node
    tasks: int

    @classmethod
    def of(cls, info: NodeInfo, service_id: ServiceId, superseded: int = 0, beside: int = 0) -> Capacity:
        """Compute what is free on a node.

        `superseded`: tasks of the service here that already have a successor, and no longer count. `beside`: how many
        of them run on beside it for a while, and so do count towards the limit.
        """
        has = info.node.resources
        total = {kind: len(n) if isinstance(n, frozenset) else n for kind, n in has.generic.items()}
        return cls(
            info=info,
            nano_cpus=has.nano_cpus - info.nano_cpus,
            memory_bytes=has.memory_bytes - info.memory_bytes,
            generic={kind: number - info.generic.get(kind, 0) for kind, number in total.items()},
            names=set(info.names),
            host_ports=set(info.host_ports),
            of_service=info.by_service[service_id] - superseded,
            towards_limit=info.by_service[service_id] - superseded + beside,
            tasks=info.tasks - superseded,
        )

    def take(self, task: Task) -> tuple[tuple[str, str], ...]:
        """Account for the task; answers the generic resources it is given."""
        wanted = task.spec.reservation
        self.nano_cpus -= wanted.nano_cpus
        self.memory_bytes -= wanted.memory_bytes
        self.host_ports |= task.host_ports
        self.of_service += 1
        self.towards_limit += 1
        self.tasks += 1
        granted: list[tuple[str, str]] = []
        for kind, number in wanted.generic:
            self.generic[kind] = self.generic.get(kind, 0) - number
            granted.extend(self._grant(kind, number))
        return tuple(granted)

    def _grant(self, kind: str, number: int) -> list[tuple[str, str]]:
        has = self.info.node.resources.generic.get(kind)
        if not isinstance(has, frozenset):
            return [(kind, str(number))]
        free = [(kind, name) for name in sorted(has) if (kind, name) not in self.names]
        self.names.update(free[:number])
        return free[:number]


def is_ready(task: Task, capacity: Capacity) -> bool:
    return capacity.info.node.takes_new_tasks


def has_resources(task: Task, capacity: Capacity) -> bool:
    wanted = task.spec.reservation
    if wanted.nano_cpus > max(0, capacity.nano_cpus) or wanted.memory_bytes > max(0, capacity.memory_bytes):
        return False
    return all(number <= capacity.generic.get(kind, 0) for kind, number in wanted.generic)


def has_plugins(task: Task, capacity: Capacity) -> bool:
    return task.spec.plugins <= capacity.info.node.plugins


def meets_constraints(task: Task, capacity: Capacity) -> bool:
    return unmet_constraint(task.spec.placement.constraints, capacity.info.node) is None


def is_supported_platform(task: Task, capacity: Capacity) -> bool:
    platforms = task.spec.placement.platforms
    node = capacity.info.node
    return not platforms or any(_same_platform(wanted, node.os, node.architecture) for wanted in platforms)


def has_free_ports(task: Task, capacity: Capacity) -> bool:
    return not (task.host_ports & capacity.host_ports)


def is_below_maximum(task: Task, capacity: Capacity) -> bool:
    limit = task.spec.placement.max_replicas
    return limit == 0 or capacity.towards_limit < limit


def has_volumes(task: Task, capacity: Capacity) -> bool:
    return task.spec.cluster_volumes <= capacity.info.node.cluster_volumes


@dataclass(frozen=True, slots=True)
class Filter:
    admits: Callable[[Task, Capacity], bool]
    on_one: str
    on_many: str  # with {} for the count


FILTERS: Final = (
    Filter(is_ready, "1 node not available for new tasks", "{} nodes not available for new tasks"),
    Filter(has_resources, "insufficient resources on 1 node", "insufficient resources on {} nodes"),
    Filter(has_plugins, "missing plugin on 1 node", "missing plugin on {} nodes"),
    Filter(
        meets_constraints,
        "scheduling constraints not satisfied on 1 node",
        "scheduling constraints not satisfied on {} nodes",
    ),
    Filter(is_supported_platform, "unsupported platform on 1 node", "unsupported platform on {} nodes"),
    Filter(has_free_ports, "host-mode port already in use on 1 node", "host-mode port already in use on {} nodes"),
    # Docker's words, without a count and with its spelling: clients match on them.
    Filter(is_below_maximum, "max replicas per node limit exceed", "max replicas per node limit exceed"),
    Filter(
        has_volumes,
        "cannot fulfill requested CSI volume mounts on 1 node",
        "cannot fulfill requested CSI volume mounts on {} nodes",
    ),
)


def first_refusal(task: Task, capacity: Capacity) -> Filter | None:
    """Find the filter that refuses the node, or None if it may have the task."""
    return next((each for each in FILTERS if not each.admits(task, capacity)), None)


def explain_refusals(refusals: Counter[Filter]) -> str:
    """Explain in words: "insufficient resources on 2 nodes; 1 node not available for new tasks"."""
    ordered = sorted(refusals.items(), key=lambda pair: (-pair[1], FILTERS.index(pair[0])))
    return "; ".join(each.on_one if count == 1 else each.on_many.format(count) for each, count in ordered)


def _same_platform(wanted: Platform, os: str, architecture: str) -> bool:
    if wanted.os and wanted.os.lower() != os.lower():
        return False
    asked = go_architecture(wanted.architecture.lower())
    return asked in ("", go_architecture(architecture.lower()))
