"""Conversions between a round and the state: the values a round reads from rows, and the rows its writes make."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar, assert_never

from bennu.cluster.events import service_event
from bennu.cluster.state import Change, ClusterState, Table
from bennu.cluster.tables import BoundPort, NetworkAttachment, Reason, Row, ServiceRow, TaskRow
from bennu.orchestration.model.actions import Action, SetDesired
from bennu.orchestration.model.nouns import Node, NodeId, Service, ServiceId, Task, TaskId
from bennu.orchestration.round import NodeWrite, ServiceWrite, TaskWrite, Write
from bennu.pace import paced

KEPT_REASONS: Final = 40
R = TypeVar("R", bound=Row)
K = TypeVar("K", bound=str)
V = TypeVar("V")


class Column(Mapping[K, V], Generic[R, K, V]):
    """A view of one value of each row of a table, by the row's id, as the rows are now."""

    def __init__(self, table: Table[R], value_of: Callable[[R], V]) -> None:
        self._rows = table.rows
        self._value_of = value_of

    def __getitem__(self, key: K) -> V:
        return self._value_of(self._rows[key])

    def __iter__(self) -> Iterator[K]:
        return iter(self._rows)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._rows)


class StoredState:
    """The state as a round sees it; valid for one round."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self.services: Mapping[ServiceId, Service] = Column(state.services, lambda row: row.service)
        self.tasks: Mapping[TaskId, Task] = Column(state.tasks, lambda row: row.task)
        self.nodes: Mapping[NodeId, Node] = {NodeId(row.id): row.node for row in state.nodes}

    def tasks_of(self, service_id: ServiceId) -> Iterable[Task]:
        return (row.task for row in self._state.tasks_of(service_id))

    def tasks_on(self, node_id: NodeId) -> Iterable[Task]:
        return (row.task for row in self._state.tasks if row.task.node_id == node_id)


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a task's container that an agent knows beside its state; empty fields leave what is known."""

    container_id: str = ""
    pid: int | None = None
    bound: tuple[BoundPort, ...] | None = None
    attachments: tuple[NetworkAttachment, ...] | None = None


def with_facts(row: TaskRow, facts: Facts) -> TaskRow:
    return replace(
        row,
        container_id=facts.container_id or row.container_id,
        pid=row.pid if facts.pid is None else facts.pid,
        bound=row.bound if facts.bound is None else facts.bound,
        attachments=row.attachments if facts.attachments is None else facts.attachments,
    )


async def change_of(state: ClusterState, writes: Iterable[Write], told: Mapping[str, TaskRow]) -> Change:
    """Build the transaction that makes these writes durable, with the rows of which agents told facts."""
    change = Change()
    for row in told.values():
        change.put(state.tasks, row)
    async for write in paced(writes):
        match write:
            case TaskWrite(before, after, action):
                _write_task(state, change, before, after, action)
            case ServiceWrite():
                _write_service(state, change, write)
            case NodeWrite():
                change.put(state.nodes, replace(_latest(state.nodes, change, write.after.id), node=write.after))
            case _:
                assert_never(write)
    return change


def _latest(table: Table[R], change: Change, row_id: str) -> R:
    prepared = change.puts.get((table.name, row_id))
    return prepared if isinstance(prepared, table.kind) else table.rows[row_id]


def _write_task(
    state: ClusterState, change: Change, before: Task | None, after: Task | None, action: Action | None
) -> None:
    if after is None:
        assert before is not None
        change.delete(state.tasks, before.id)
        return
    if before is not None:
        row = _latest(state.tasks, change, after.id)
        why = action.reason if isinstance(action, SetDesired) else row.why_desired
        change.put(state.tasks, replace(row, task=after, why_desired=why))
        return
    assert action is not None
    service = _latest(state.services, change, after.service_id)
    made = TaskRow(
        id=after.id,
        task=after,
        service_name=service.name,
        service_labels=dict(service.labels),
        why_made=action.reason,
    )
    change.put(state.tasks, made)


def _write_service(state: ClusterState, change: Change, write: ServiceWrite) -> None:
    row = _latest(state.services, change, write.after.id)
    changed = _with_reason(replace(row, service=write.after), write)
    change.put(state.services, changed)
    told = service_event("update", row, changed)
    if len(told.actor.attributes) > 1:
        change.events.append(told)


def _with_reason(row: ServiceRow, write: ServiceWrite) -> ServiceRow:
    reason = Reason(write.after.updated_at_ns, write.action.reason)
    return replace(row, reasons=(*row.reasons, reason)[-KEPT_REASONS:])
