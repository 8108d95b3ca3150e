"""The world of a simulation: virtual time, the durable store, and the notices to managers and nodes.

Law: what is in `World` survives every simulated death; what is in `SimulatedManager` and `SimulatedAgent` objects
survives only as their docstrings say. All randomness comes from one generator, and no set of strings is ever iterated:
a seed is a history.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from bennu.orchestration.model.actions import Plan
from bennu.orchestration.model.nouns import Node, NodeId, Service, ServiceId, Task, TaskId
from bennu.orchestration.model.states import NS_PER_SECOND, TaskState
from bennu.orchestration.tasks.observe import Report
from bennu.simulate.programs import SimulatedProgram

LEASE_NS = 15 * NS_PER_SECOND


@dataclass(slots=True)
class SimulatedTask:
    """One task as its node knows it."""

    task: Task  # as last told
    program: SimulatedProgram
    state: TaskState = TaskState.ACCEPTED
    exit_code: int | None = None
    err: str = ""
    has_process: bool = False
    changed_at_ns: int = 0
    is_stopping: bool = False
    in_balancer: bool = False
    left_at_ns: int | None = None
    last_connection_ends_ns: int = 0
    is_ready: bool | None = None  # what its readiness probe said last
    reported: TaskState = TaskState.NEW  # the highest state the manager is known to have


class AgentView(Protocol):
    """The part of a node's agent that the manager and the checks may use."""

    lives: dict[TaskId, SimulatedTask]

    def tell(self) -> None: ...

    def reconnect(self) -> None: ...


class ManagerView(Protocol):
    """The part of the manager that leases, agents, metrics and the checks may use."""

    is_alive: bool
    plans: dict[ServiceId, Plan]

    @property
    def now_ns(self) -> int: ...

    def note(self, service_id: ServiceId) -> None: ...

    def settle_all(self) -> None: ...

    def judge_node(self, node_id: NodeId) -> None: ...

    def take_in(self, task_id: TaskId, report: Report) -> bool: ...


class TaskLaws(Protocol):
    """The laws that hold for what is stored of a task."""

    def on_task(self, old: Task | None, new: Task) -> None: ...


class World:
    """The time and store of a simulation; who acts in it is put there by `Play`.

    `now_ns` is true time, which only the simulator knows.
    """

    agents: Mapping[NodeId, AgentView]
    manager: ManagerView
    laws: TaskLaws

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.random = Random(seed)
        self.now_ns = 1_000 * NS_PER_SECOND
        self.wall_offset_ns = 0
        self.services: dict[ServiceId, Service] = {}
        self.tasks: dict[TaskId, Task] = {}
        self.nodes: dict[NodeId, Node] = {}
        self.leases: dict[NodeId, int] = {}  # of agents: when each ends
        self.newest_stored_ns = 0
        self.steps = 0
        self.verbose = verbose
        self._of_service: dict[ServiceId, dict[TaskId, Task]] = {}
        self._on_node: dict[NodeId, dict[TaskId, None]] = {}
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._ids = 0

    # -- time

    def after(self, delay_ns: int, do: Callable[[], None]) -> None:
        """Do something later. Actions of the same instant keep their order."""
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_ns + max(0, delay_ns), self._sequence, do))

    def run_until(self, until_ns: int) -> None:
        while self._queue and self._queue[0][0] <= until_ns:
            self.now_ns, _, do = heapq.heappop(self._queue)
            self.steps += 1
            do()
        self.now_ns = until_ns

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"{(self.now_ns - 1_000 * NS_PER_SECOND) / NS_PER_SECOND:9.3f}  {text}")

    # -- store

    def keep_alive(self, node_id: NodeId) -> None:
        """Record that an agent is heard: it holds its lease, or takes a new one."""
        is_new = node_id not in self.leases
        self.leases[node_id] = self.now_ns + LEASE_NS
        if is_new:
            self.after(LEASE_NS, partial(self._end_lease, node_id))
            self.manager.judge_node(node_id)

    def _end_lease(self, node_id: NodeId) -> None:
        left_ns = self.leases[node_id] - self.now_ns
        if left_ns > 0:
            self.after(left_ns, partial(self._end_lease, node_id))
        else:
            del self.leases[node_id]
            self.manager.judge_node(node_id)

    def new_task_id(self) -> TaskId:
        self._ids += 1
        return TaskId(f"t{self._ids:05d}")

    def put_service(self, service: Service) -> None:
        self.services[service.id] = service
        self._of_service.setdefault(service.id, {})

    def put_task(self, task: Task) -> None:
        old = self.tasks.get(task.id)
        self.laws.on_task(old, task)
        self.tasks[task.id] = task
        self._of_service.setdefault(task.service_id, {})[task.id] = task
        if task.node_id is not None:
            self._on_node.setdefault(task.node_id, {})[task.id] = None
        self.newest_stored_ns = max(self.newest_stored_ns, task.created_at_ns, task.status.applied_at_ns)

    def delete_task(self, task_id: TaskId) -> None:
        task = self.tasks.pop(task_id, None)
        if task is None:
            return
        del self._of_service[task.service_id][task_id]
        if task.node_id is not None:
            self._on_node.get(task.node_id, {}).pop(task_id, None)

    def tasks_of(self, service_id: ServiceId) -> list[Task]:
        return list(self._of_service.get(service_id, {}).values())

    def tasks_on(self, node_id: NodeId) -> Iterator[Task]:
        return (self.tasks[task_id] for task_id in self._on_node.get(node_id, {}))

    def service_ids(self) -> list[ServiceId]:
        """List the services that are there or have tasks left."""
        return [
            service_id
            for service_id in self._of_service
            if self.services.get(service_id) or self._of_service[service_id]
        ]
