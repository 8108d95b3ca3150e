"""The cluster's durable rows: the core's values, and beside each the facts that only the shell knows of it.

`index` is the store's revision of the last change (`Version.Index` of the API). It is not stored but read from the
store; `created_ns` and `updated_ns` are for people. Only `State.commit` sets `index` and `updated_ns`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bennu.orchestration.model.nouns import Node, Service, Task
from bennu.orchestration.model.spec import PortSpec
from bennu.orchestration.rollout.task_metrics import TaskMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    id: str
    index: int = 0
    created_ns: int = 0
    updated_ns: int = 0


@dataclass(frozen=True, slots=True)
class NetworkAttachment:
    """An address on a network: a task's, or a service's virtual one."""

    network_id: str
    address: str  # with its prefix length


class Reason(NamedTuple):
    """The reason of a decision, and its instant by the cluster's steady clock."""

    at_ns: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRow(Row):
    service: Service
    ports: tuple[PortSpec, ...] = ()  # with the numbers really used
    vips: tuple[NetworkAttachment, ...] = ()  # its virtual addresses, one on each of its networks
    reasons: tuple[Reason, ...] = ()  # of the last decisions about it as a whole, oldest first

    @property
    def name(self) -> str:
        return self.service.spec.name

    @property
    def labels(self) -> Mapping[str, str]:
        return self.service.spec.labels


@dataclass(frozen=True, slots=True)
class BoundPort:
    """A host port really bound for a task."""

    host_ip: str
    published: int
    target: int
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow(Row):
    task: Task
    service_name: str
    service_labels: Mapping[str, str] = field(default_factory=dict)
    container_id: str = ""
    pid: int = 0
    bound: tuple[BoundPort, ...] = ()
    attachments: tuple[NetworkAttachment, ...] = ()
    why_made: str = ""  # the orchestrator's reasons, in words
    why_desired: str = ""

    @property
    def name(self) -> str:
        """Docker's name of a task, which is also the name of its container."""
        slot = str(self.task.slot) if self.task.slot else (self.task.node_id or "")
        return f"{self.service_name}.{slot}.{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsRow(Row):
    """Metrics of the tasks of the service of this id, by task, since its rollout began."""

    began_at_ns: int
    ledgers: Mapping[str, TaskMetrics] = field(default_factory=dict)  # the name it is stored under


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow(Row):
    node: Node
    name: str = ""  # of the spec
    engine_version: str = ""

    @property
    def labels(self) -> Mapping[str, str]:
        return self.node.labels


@dataclass(frozen=True, slots=True, kw_only=True)
class AliveRow(Row):
    """The node of this id has an agent that is heard; the row hangs on the agent's lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRow(Row):
    """The swarm itself. `spec` is the JSON text of its `Spec` with all defaults filled in."""

    spec: str
    node_id: str  # this node's
    ca_digest: str  # 50 digits of base 36
    worker_secret: str  # 25 digits each
    manager_secret: str
    listen_addr: str = ""
    advertise_addr: str = ""
    address_pools: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    data_path_port: int = 4789
    history_limit: int = 5
    heartbeat_ns: int = 5_000_000_000
    unlock_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRow(Row):
    """A secret, its data sealed, or a config, its data in base64."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    templating: str = ""
