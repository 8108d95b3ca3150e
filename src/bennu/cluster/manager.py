"""The manager: reads the state, asks the pure core, writes its answer, waits for a change or an instant.

Law: it decides nothing. One round takes in the agents' reports, looks at the services that something happened to until
the core is satisfied, and writes all of it in one transaction; a manager that dies anywhere is continued by the next.
Where there is more to do than fits into one round the next one goes on, and everybody else has his turn in between.

One service's trouble is its own: what was decided about it in this round is dropped, it is let alone for a while
(`troubles.py`), and the others are managed.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from bennu.cluster.ids import new_id
from bennu.cluster.records import AliveRow, Attachment, BoundPort, NodeRow, Reason, Row, ServiceRow, TaskRow
from bennu.cluster.round import Round
from bennu.cluster.state import Changed, State
from bennu.cluster.telling import service_event
from bennu.cluster.thinking import Thinking
from bennu.cluster.troubles import Troubles, in_words
from bennu.cluster.wakes import Wakes
from bennu.errors import BennuError
from bennu.orchestration.actions import (
    PORTION,
    Action,
    AssignTask,
    CreateTask,
    DeleteTask,
    EndTask,
    Plan,
    RefuseTask,
    RollBack,
    SetDesired,
    SetNodeState,
    SetRollout,
    Wait,
)
from bennu.orchestration.apply import allocate, apply_to_service, apply_to_task, new_task
from bennu.orchestration.clock import SteadyClock
from bennu.orchestration.config import is_watched
from bennu.orchestration.evidence import Evidence
from bennu.orchestration.failures import FailureLog
from bennu.orchestration.fleet import Fleet
from bennu.orchestration.model import Node, NodeId, Service, ServiceId, Task, TaskId
from bennu.orchestration.nodes import apply_to_node, decide_node, enforce, orphan_tasks
from bennu.orchestration.observe import Report, observe
from bennu.orchestration.placement import place
from bennu.orchestration.reconcile import reconcile, reconcile_removed
from bennu.orchestration.states import NodeState, TaskState
from bennu.pace import paced

LOOKS_UNTIL_SETTLED: Final = 100
KEPT_REASONS: Final = 40
RETRY_S: Final = 1.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an agent knows of a task's container beside its state; empty fields leave what is known."""

    container_id: str = ""
    pid: int | None = None
    bound: tuple[BoundPort, ...] | None = None
    attachments: tuple[Attachment, ...] | None = None


class Manager:
    """`run` it beside the agent. Everything it knows besides the state can be lost at any time."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._reports: list[tuple[str, Report, Facts]] = []
        self._dirty: dict[str, None] = {}
        self._dirty_nodes: dict[str, None] = {}
        self._wakes = Wakes()
        self._changed = asyncio.Event()
        self._unplaced: dict[str, None] = {}  # services with a task that no node has room for
        self._troubles = Troubles()
        self._thinking = Thinking()
        self._judged: dict[str, int] = {}  # the index of each node's row when it was last compared with its tasks
        self.waits: dict[str, tuple[Wait, ...]] = {}  # by service: what stands in the way, from the last quiet look
        self.testify: Callable[[Service, list[Task], int], Evidence | None] = lambda service, tasks, now_ns: None
        self._take_over()
        state.watchers.append(self._on_change)

    def _take_over(self) -> None:
        self._clock = SteadyClock.take_over(
            wall_ns=time.time_ns(),
            monotonic_ns=time.monotonic_ns(),
            newest_stored_ns=self._state.newest_instant_ns(),
        )
        self._rebuild_fleet()
        self._failures = FailureLog(row.task for row in self._state.tasks)
        for service_id in self._state.service_ids():
            self._dirty[service_id] = None
        for node_id in self._state.nodes.rows:
            self._dirty_nodes[node_id] = None
        self._changed.set()

    def _rebuild_fleet(self, work: Round | None = None) -> None:
        """From what is stored, and what this round has decided beside it."""
        self._fleet = Fleet((row.node for row in self._state.nodes), (row.task for row in self._state.tasks))
        for row in work.by_id.values() if work else ():
            self._fleet.put_task(row.task)

    def close(self) -> None:
        self._state.watchers.remove(self._on_change)

    @property
    def now_ns(self) -> int:
        return self._clock.now_ns(time.monotonic_ns())

    # --- what others say ----------------------------------------------------------------------------------------

    def report(self, task_id: str, report: Report, facts: Facts) -> None:
        """An agent tells what it sees. Taken in with the next round; the agent can always say it again."""
        self._reports.append((task_id, report, facts))
        self._changed.set()

    def look_again(self, service_id: str) -> None:
        """Something was seen that is not stored and may matter to a rollout."""
        self._dirty[service_id] = None
        self._changed.set()

    def _on_change(self, told: list[Changed]) -> None:
        """Something was written, by us or by the API."""
        for item in told:
            match item.after or item.before:
                case ServiceRow():
                    self._troubles.over(item.row_id)
                    self._thinking.forget(item.row_id)
                    self._dirty[item.row_id] = None
                case TaskRow(task=task):
                    if item.after is None:
                        self._fleet.drop_task(task.id)
                    else:
                        self._fleet.put_task(task)
                    self._dirty[task.service_id] = None
                    if isinstance(item.before, TaskRow) and frees(item.before.task, item.after):
                        self._dirty |= self._unplaced
                case NodeRow(node=node):
                    if item.after is None:
                        self._fleet.drop_node(node.id)
                    else:
                        self._fleet.put_node(node)
                    self._dirty_nodes[item.row_id] = None
                case AliveRow():
                    self._dirty_nodes[item.row_id] = None
        if self._dirty or self._dirty_nodes:
            self._changed.set()

    # --- the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. What fails is tried again."""
        while True:
            await self._wait()
            try:
                await self._look()
                continue
            except BennuError as error:
                log.error("the state of the cluster could not be written: %s", error)
            except Exception:  # a bug; but a swarm that nobody manages any more is worse
                log.exception("the manager failed")
            self._rebuild_fleet()
            self._dirty |= dict.fromkeys(self._state.service_ids())
            self._changed.set()
            await asyncio.sleep(RETRY_S)

    async def _wait(self) -> None:
        due = self._wakes.next_ns()
        limit = None if due is None else max(0, due - self.now_ns) / 1e9
        try:
            async with asyncio.timeout(limit):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()
        for key in self._wakes.take_due(self.now_ns):
            (self._dirty_nodes if key in self._state.nodes.rows else self._dirty)[key] = None

    async def _look(self) -> None:
        reports, self._reports = self._reports, []
        try:
            await self._look_with(reports)
        except BaseException:
            self._reports[:0] = reports
            raise

    async def _look_with(self, reports: list[tuple[str, Report, Facts]]) -> None:
        async with self._state.lock:
            work = Round(nodes={NodeId(row.id): row.node for row in self._state.nodes})
            self._take_in(work, reports)
            dirty_nodes, self._dirty_nodes = self._dirty_nodes, {}
            for node_id in dirty_nodes:
                try:
                    self._judge(work, node_id)
                except Exception:
                    log.exception("node %s cannot be judged", node_id)
            dirty, self._dirty = self._dirty, {}
            quiet = {service_id for service_id in dirty if await self._settle_apart(work, service_id)}
            await self._state.commit(work.change)
        # What we wrote ourselves was looked at until it was quiet: only what others changed meanwhile is new.
        for service_id in quiet:
            self._dirty.pop(service_id, None)
        if left := [service_id for service_id in dirty if service_id not in quiet]:
            # The first of them filled the round: it is the others' turn.
            self._dirty = dict.fromkeys([*left[1:], *self._dirty, left[0]])
            self._changed.set()
            await asyncio.sleep(0)

    def _take_in(self, work: Round, reports: list[tuple[str, Report, Facts]]) -> None:
        for task_id, report, facts in reports:
            row = self._row(work, task_id)
            if row is None:
                continue
            try:
                changed = as_reported(row, report, facts, now_ns=self.now_ns)
            except Exception:
                log.exception("task %s: what its node reports cannot be taken in", task_id)
                continue
            if changed != row:
                self._put_task(work, changed)
                self._dirty[row.task.service_id] = None

    def _judge(self, work: Round, node_id: str) -> None:
        row = self._state.nodes.get(node_id)
        now_ns = self.now_ns
        if row is None:
            if self._state.why_aside(self._state.nodes, node_id):
                return  # it is there, and nobody can say how it is
            held = [task.task for task in self._state.tasks if task.task.node_id == node_id]
            for action in orphan_tasks(None, held, now_ns=now_ns).actions:
                self._apply(work, action, "")
            return
        node = row.node
        for action in decide_node(node, is_alive=node_id in self._state.alive.rows).actions:
            if isinstance(action, SetNodeState):
                node = apply_to_node(node, action, now_ns=now_ns)
        if node != row.node:
            work.nodes[node.id] = node
            work.change.put(self._state.nodes, replace(row, node=node))
            self._dirty |= dict.fromkeys(self._state.service_ids())
        if node.state is NodeState.DOWN:
            self._give_up_later(work, node)
        if self._judged.get(node_id) != row.index:
            self._judged[node_id] = row.index
            services = {ServiceId(item.id): item.service for item in self._state.services}
            held = [item.task for item in self._state.tasks if item.task.node_id == node_id]
            for action in enforce(node, held, services).actions:
                self._apply(work, action, "")
            self._dirty |= dict.fromkeys(self._state.service_ids())

    def _give_up_later(self, work: Round, node: Node) -> None:
        """What a silent node held is given up after a day."""
        held = [row.task for row in self._state.tasks if row.task.node_id == node.id]
        plan = orphan_tasks(node, held, now_ns=self.now_ns)
        for action in plan.actions:
            self._apply(work, action, "")
        self._wakes.put(node.id, plan.wake_at_ns)

    async def _settle_apart(self, work: Round, service_id: str) -> bool:
        """Whether nothing is left to do about it for now. Whatever goes wrong is this service's trouble alone."""
        now_ns = self.now_ns
        if work.is_full or self._troubles.rests(service_id, now_ns=now_ns):
            return not work.is_full
        branch = work.branch(service_id)
        try:
            is_quiet = await self._settle(branch, service_id)
        except Exception as error:
            trouble = self._troubles.note(service_id, error, now_ns=now_ns)
            log.error("service %s: %s", service_id, in_words(trouble).reason, exc_info=error)
            self.waits[service_id] = (in_words(trouble),)
            self._wakes.put(service_id, trouble.until_ns)
            self._rebuild_fleet(work)
            return True
        work.merge(branch)
        self._troubles.over(service_id)
        return is_quiet

    async def _settle(self, work: Round, service_id: str) -> bool:
        """False when the round is full before nothing is left to do."""
        tasks = work.tasks.setdefault(service_id, {})
        for row in self._state.tasks_of(service_id):
            tasks.setdefault(row.task.id, row)
        for _ in range(LOOKS_UNTIL_SETTLED):
            plan = await self._ask(work, service_id)
            if not plan.actions and not work.is_full:
                self.waits[service_id] = plan.waits
                self._wakes.put(service_id, plan.wake_at_ns)
                if service_id not in self._state.services.rows and not self._state.tasks_of(service_id):
                    self.waits.pop(service_id, None)
                return True
            async for action in paced(plan.actions):
                self._apply(work, action, service_id)
            if work.is_full:
                return False
        log.error("service %s is not settled after %d looks", service_id, LOOKS_UNTIL_SETTLED)
        self.waits[service_id] = (Wait("service", f"it is not settled after {LOOKS_UNTIL_SETTLED} looks"),)
        self._wakes.put(service_id, self.now_ns + int(RETRY_S * 1e9))
        return True

    async def _ask(self, work: Round, service_id: str) -> Plan:
        now_ns = self.now_ns
        service = self._service(work, service_id)
        rows = work.tasks[service_id]
        tasks = [row.task for row in rows.values()]
        think = functools.partial(self._thinking.think, service_id, len(tasks))
        if service is None:
            self._unplaced.pop(service_id, None)
            if reason := self._state.why_aside(self._state.services, service_id):
                return Plan((), (Wait("service", f"its record is set aside: {reason}"),))
            return await think(lambda: reconcile_removed(tasks, work.nodes, now_ns=now_ns))
        cluster = self._state.cluster
        limit = cluster.history_limit if cluster else 5
        evidence = self.testify(service, tasks, now_ns) if is_watched(service) else None
        plan = await think(
            lambda: reconcile(service, tasks, work.nodes, now_ns=now_ns, history_limit=limit, evidence=evidence)
        )
        new = (task for task in tasks if task.state is TaskState.NEW and task.desired <= TaskState.COMPLETE)
        for task in () if plan.actions else islice(new, PORTION):
            self._put_task(work, replace(rows[task.id], task=allocate(task, now_ns=now_ns)))
        if plan.actions or work.is_full:
            return plan
        placed = await think(
            lambda: place(service, [row.task for row in rows.values()], self._fleet, self._failures, now_ns=now_ns)
        )
        if placed.actions:
            return placed
        if placed.waits:
            self._unplaced[service_id] = None
        else:
            self._unplaced.pop(service_id, None)
        return Plan((), (*plan.waits, *placed.waits), plan.wake_at_ns)

    def _row(self, work: Round, task_id: str) -> TaskRow | None:
        return work.by_id.get(task_id) or self._state.tasks.get(task_id)

    def _service(self, work: Round, service_id: str) -> Service | None:
        row = work.services.get(service_id) or self._state.services.get(service_id)
        return row.service if row else None

    # --- carrying out -------------------------------------------------------------------------------------------

    def _apply(self, work: Round, action: Action, service_id: str) -> None:
        now_ns = self.now_ns
        log.debug("%s", action)
        match action:
            case CreateTask():
                row = work.services.get(service_id) or self._state.services.rows[service_id]
                task = allocate(new_task(action, row.service, TaskId(new_id()), now_ns=now_ns), now_ns=now_ns)
                made = TaskRow(
                    id=task.id,
                    task=task,
                    service_name=row.name,
                    service_labels=dict(row.labels),
                    why_made=action.reason,
                )
                self._put_task(work, made)
            case DeleteTask():
                work.delete_task(self._state, service_id, action.task_id)
                self._fleet.drop_task(action.task_id)
            case SetDesired() | AssignTask() | RefuseTask() | EndTask():
                old = self._row(work, action.task_id)
                assert old is not None
                why = action.reason if isinstance(action, SetDesired) else old.why_desired
                changed = apply_to_task(old.task, action, now_ns=now_ns)
                if changed is not old.task:
                    self._put_task(work, replace(old, task=changed, why_desired=why))
            case SetRollout() | RollBack():
                self._put_service(work, service_id, action, now_ns)
            case SetNodeState():
                pass  # judged by `_judge` alone

    def _put_service(self, work: Round, service_id: str, action: SetRollout | RollBack, now_ns: int) -> None:
        row = work.services.get(service_id) or self._state.services.rows[service_id]
        reasons = (*row.reasons, Reason(now_ns, action.reason))[-KEPT_REASONS:]
        changed = replace(row, service=apply_to_service(row.service, action, now_ns=now_ns), reasons=reasons)
        work.services[service_id] = changed
        work.change.put(self._state.services, changed)
        told = service_event("update", row, changed)
        if len(told.actor.attributes) > 1:
            work.change.events.append(told)

    def _put_task(self, work: Round, row: TaskRow) -> None:
        work.put_task(self._state, row)
        self._fleet.put_task(row.task)
        self._failures.note(row.task)


def as_reported(row: TaskRow, report: Report, facts: Facts, *, now_ns: int) -> TaskRow:
    return replace(
        row,
        task=observe(row.task, report, now_ns=now_ns),
        container_id=facts.container_id or row.container_id,
        pid=row.pid if facts.pid is None else facts.pid,
        bound=row.bound if facts.bound is None else facts.bound,
        attachments=row.attachments if facts.attachments is None else facts.attachments,
    )


def frees(before: Task, after: Row | None) -> bool:
    """Whether a change of a task gives back what it held on its node, so that others may fit there now."""
    held = before.node_id is not None and not before.has_ended
    return held and (not isinstance(after, TaskRow) or after.task.has_ended)
