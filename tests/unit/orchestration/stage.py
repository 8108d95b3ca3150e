"""A small stage for the core: a store in memory, nodes that obey at once, and a clock the test moves.

Unlike the simulator nothing here is random and nothing is lost; a test says what happens and reads what was decided.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace

from bennu.orchestration.model.actions import Action, Plan
from bennu.orchestration.model.nouns import Node, NodeId, NodeResources, Service, ServiceId, Task, TaskId
from bennu.orchestration.model.revisions import accept_rollback, accept_update, create_service
from bennu.orchestration.model.spec import Replicated, ServiceSpec, TaskSpec
from bennu.orchestration.model.states import NS_PER_SECOND, NodeState, TaskState, UpdateState
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.round import Round, ServiceWrite, TaskWrite
from bennu.orchestration.scheduler.failures import FailureLog
from bennu.orchestration.scheduler.node_set import NodeSet
from bennu.orchestration.tasks.observe import Report, observe

S = NS_PER_SECOND


def a_node(name: str = "n1", **fields: object) -> Node:
    fields.setdefault("resources", NodeResources(8_000_000_000, 8 << 30))
    return Node(id=NodeId(name), hostname=name, **fields)  # type: ignore[arg-type]


def a_spec(replicas: int = 2, image: bytes = b"v1", **fields: object) -> ServiceSpec:
    fields.setdefault("task", TaskSpec(container=image))
    fields.setdefault("mode", Replicated(replicas))
    return ServiceSpec(name="web", **fields)  # type: ignore[arg-type]


class Stage:
    """One service on a few nodes. Images named in `bad` behave: "missing" is rejected, "crash" fails as it starts,
    "hang" never becomes ready."""

    def __init__(
        self, spec: ServiceSpec, nodes: Iterable[Node] = (), *, start_s: float = 0.5, stop_s: float = 1.0
    ) -> None:
        self.now_ns = 1_000 * S
        self.service = create_service(ServiceId("web"), spec, now_ns=self.now_ns)
        self.tasks: dict[TaskId, Task] = {}
        self.nodes = {node.id: node for node in nodes or (a_node("n1"), a_node("n2"), a_node("n3"))}
        self.start_s, self.stop_s = start_s, stop_s
        self.history_limit = 5
        self.history: list[tuple[float, Action]] = []
        self.evidence: Evidence | None = None
        self.plan = Plan()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._known: dict[TaskId, TaskState] = {}
        self._counter = 0
        self._version = 10
        self.settle()

    # -- time

    def advance(self, seconds: float) -> None:
        """Let time pass: events of the nodes and wakes of the plan happen at their instants."""
        until = self.now_ns + round(seconds * S)
        while True:
            wake = self.plan.wake_at_ns
            event = self._events[0][0] if self._events else None
            due = min((at for at in (wake, event) if at is not None), default=None)
            if due is None or due > until:
                break
            self.now_ns = max(self.now_ns, due)
            while self._events and self._events[0][0] <= self.now_ns:
                heapq.heappop(self._events)[2]()
            self.settle()
        self.now_ns = until
        self.settle()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self._counter += 1
        heapq.heappush(self._events, (self.now_ns + round(seconds * S), self._counter, do))

    # -- the shell

    @property
    def services(self) -> dict[ServiceId, Service]:
        return {self.service.id: self.service}

    def tasks_of(self, service_id: ServiceId) -> Iterable[Task]:
        return self.tasks.values()

    def tasks_on(self, node_id: NodeId) -> Iterable[Task]:
        return (task for task in self.tasks.values() if task.node_id == node_id)

    def new_round(self, node_set: NodeSet | None = None) -> Round:
        return Round(
            self,
            node_set or NodeSet(),
            FailureLog(self.tasks.values()),
            new_task_id=self._new_task_id,
            history_limit=self.history_limit,
            build_evidence=lambda service, tasks, now_ns: self.evidence,
        )

    def _new_task_id(self) -> str:
        task_id = f"t{len(self._known) + 1}"
        self._known[TaskId(task_id)] = TaskState.NEW
        return task_id

    def look(self) -> Plan:
        node_set = NodeSet(self.nodes.values(), self.tasks.values())
        return self.new_round(node_set).look(self.service.id, now_ns=self.now_ns).decide()

    def settle(self) -> None:
        for _ in range(100):
            self.plan = self.look()
            if not self.plan.actions and not self._obey():
                return
            self.carry_out(self.plan.actions)
        raise AssertionError(f"never settles: {self.plan}")

    def carry_out(self, actions: Iterable[Action]) -> None:
        """Decide the actions in one round, and store what it writes."""
        work = self.new_round()
        for action in actions:
            self.history.append(((self.now_ns - 1_000 * S) / S, action))
            work.apply(action, self.service.id, now_ns=self.now_ns)
        for write in work.writes:
            match write:
                case TaskWrite(after=Task() as task):
                    self.tasks[task.id] = task
                case TaskWrite(before=Task() as task):
                    self.tasks.pop(task.id, None)
                case ServiceWrite(after=service):
                    self.service = service
                case _:
                    raise AssertionError(f"nobody judges nodes here: {write}")

    def _obey(self) -> bool:
        """Nodes do what they are told; True if the manager heard anything new at once."""
        heard = False
        for task in list(self.tasks.values()):
            node = self.nodes.get(task.node_id) if task.node_id else None
            if node is None or node.state is NodeState.DOWN or task.state < TaskState.ASSIGNED or task.has_ended:
                continue
            doing = self._known[task.id]
            if task.desired > TaskState.COMPLETE and doing is not TaskState.SHUTDOWN:
                self._known[task.id] = TaskState.SHUTDOWN
                if doing < TaskState.STARTING:
                    self.report(task.id, TaskState.SHUTDOWN)
                    heard = True
                else:
                    self.after(self.stop_s, lambda task=task: self.report(task.id, TaskState.SHUTDOWN, exit_code=0))
            elif doing < TaskState.READY:
                self._known[task.id] = TaskState.READY
                if b"missing" in task.spec.container:
                    self.report(task.id, TaskState.REJECTED, err="No such image: missing:latest")
                else:
                    self.report(task.id, TaskState.READY)
                heard = True
            elif doing is TaskState.READY and task.desired >= TaskState.RUNNING:
                self._known[task.id] = TaskState.STARTING
                self.report(task.id, TaskState.STARTING)
                self._start(task)
                heard = True
        return heard

    def _start(self, task: Task) -> None:
        if b"crash" in task.spec.container:
            self.after(self.start_s, lambda: self.fail(task.id))
        elif b"hang" not in task.spec.container:
            self.after(self.start_s, lambda: self.report(task.id, TaskState.RUNNING))

    def report(self, task_id: str, state: TaskState, *, err: str = "", exit_code: int | None = None) -> None:
        task = self.tasks.get(TaskId(task_id))
        if task is not None:
            report = Report(state, err=err, exit_code=exit_code, timestamp_ns=self.now_ns)
            self.tasks[task.id] = observe(task, report, now_ns=self.now_ns)

    # -- people and misfortune

    def fail(self, task_id: str, code: int = 1) -> None:
        self._known[TaskId(task_id)] = TaskState.SHUTDOWN
        self.report(task_id, TaskState.FAILED, err=f"task: non-zero exit ({code})", exit_code=code)

    def complete(self, task_id: str) -> None:
        self._known[TaskId(task_id)] = TaskState.SHUTDOWN
        self.report(task_id, TaskState.COMPLETE, exit_code=0)

    def fail_slot(self, slot: int, code: int = 1) -> None:
        self.fail(self.live(slot)[-1].id, code)
        self.settle()

    def update(self, spec: ServiceSpec) -> None:
        self._version += 1
        self.service = accept_update(self.service, spec, version=self._version, now_ns=self.now_ns)
        self.settle()

    def update_image(self, image: bytes) -> None:
        self.update(replace(self.service.spec, task=replace(self.service.spec.task, container=image)))

    def scale(self, replicas: int) -> None:
        self.update(replace(self.service.spec, mode=Replicated(replicas)))

    def roll_back(self) -> None:
        self.service = accept_rollback(self.service, now_ns=self.now_ns)
        self.settle()

    def change(self, change: Callable[[Service], Service]) -> None:
        self.service = change(self.service)
        self.settle()

    def set_node(self, name: str, **fields: object) -> None:
        self.nodes[NodeId(name)] = replace(self.nodes[NodeId(name)], **fields)  # type: ignore[arg-type]
        self.settle()

    # -- reading

    def of_slot(self, slot: int) -> list[Task]:
        return [task for task in self.tasks.values() if task.slot == slot]

    def live(self, slot: int) -> list[Task]:
        return [task for task in self.of_slot(slot) if task.is_wanted]

    def running(self) -> set[int]:
        return {task.slot for task in self.tasks.values() if task.is_running}

    def images(self) -> dict[int, bytes]:
        """Slot → image of what runs there."""
        return {task.slot: task.spec.container for task in self.tasks.values() if task.is_running}

    def state(self) -> UpdateState | None:
        return self.service.update_status.state if self.service.update_status else None

    def message(self) -> str:
        return self.service.update_status.message if self.service.update_status else ""

    def waits(self) -> dict[str, str]:
        return {wait.subject: wait.reason for wait in self.plan.waits}

    def shown(self, slot: int) -> list[tuple[str, str]]:
        """(desired, observed) of the slot's tasks, newest first: what `service ps` shows."""
        return [(task.desired.word, task.state.word) for task in reversed(self.of_slot(slot))]
