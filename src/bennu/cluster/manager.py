"""The manager: reads the state, asks the pure core, writes its answer, waits for a change or an instant.

Law: it decides nothing. One round (`orchestration/round.py`) takes in the agents' reports, looks at the services that
something happened to until the core is satisfied, and all of it is written in one transaction; a manager that dies
anywhere is continued by the next. Where there is more to do than fits into one round, the next one goes on, and every
other coroutine has its turn in between.

One service's trouble is its own: what was decided about it in this round is undone, it is let alone for a while
(`troubles.py`), and the others are managed.
"""

import asyncio
import logging
import time
from typing import Final

from bennu.cluster.deadline_queue import DeadlineQueue
from bennu.cluster.ids import new_id
from bennu.cluster.round_rows import Facts, StoredState, change_of, with_facts
from bennu.cluster.state import Changed, ClusterState
from bennu.cluster.tables import AliveRow, NodeRow, Row, ServiceRow, TaskRow
from bennu.cluster.thinking import Thinking
from bennu.cluster.troubles import Troubles, in_words
from bennu.errors import BennuError
from bennu.orchestration.model.actions import Plan, Wait
from bennu.orchestration.model.clock import SteadyClock
from bennu.orchestration.model.nouns import NodeId, ServiceId, Task, TaskId
from bennu.orchestration.reconcile.service import DEFAULT_HISTORY_LIMIT
from bennu.orchestration.round import LOOKS_UNTIL_SETTLED, EvidenceSource, Round, TaskWrite
from bennu.orchestration.scheduler.failures import FailureLog
from bennu.orchestration.scheduler.node_set import NodeSet, frees_room
from bennu.orchestration.tasks.observe import Report
from bennu.pace import paced

RETRY_S: Final = 1.0
log = logging.getLogger(__name__)


class Manager:
    """The manager of the swarm; `run` it beside the agent. All it knows besides the state can be lost at any time."""

    def __init__(
        self, state: ClusterState, build_evidence: EvidenceSource = lambda service, tasks, now_ns: None
    ) -> None:
        self._state = state
        self._build_evidence = build_evidence
        self._reports: list[tuple[str, Report, Facts]] = []
        self._dirty: dict[str, None] = {}
        self._dirty_nodes: dict[str, None] = {}
        self._deadlines = DeadlineQueue()
        self._changed = asyncio.Event()
        self._unplaced: dict[str, None] = {}  # services with a task that no node has room for
        self._troubles = Troubles()
        self._thinking = Thinking()
        self._judged: dict[str, int] = {}  # the index of each node's row when it was last compared with its tasks
        self.waits: dict[str, tuple[Wait, ...]] = {}  # by service: what stands in the way, from the last quiet look
        self._take_over()
        state.watchers.append(self._on_change)

    def _take_over(self) -> None:
        self._clock = SteadyClock.take_over(
            wall_ns=time.time_ns(),
            monotonic_ns=time.monotonic_ns(),
            newest_stored_ns=self._state.newest_instant_ns(),
        )
        self._failures = FailureLog(row.task for row in self._state.tasks)
        self._look_at_all()

    def _look_at_all(self) -> None:
        """Build the node set anew and mark every service and node to be looked at: only what is stored counts."""
        self._node_set = NodeSet((row.node for row in self._state.nodes), (row.task for row in self._state.tasks))
        self._judged.clear()
        self._dirty |= dict.fromkeys(self._state.service_ids())
        self._dirty_nodes |= dict.fromkeys(self._state.nodes.rows)
        self._changed.set()

    def close(self) -> None:
        self._state.watchers.remove(self._on_change)

    @property
    def now_ns(self) -> int:
        return self._clock.now_ns(time.monotonic_ns())

    # --- what others say ----------------------------------------------------------------------------------------

    def report(self, task_id: str, report: Report, facts: Facts) -> None:
        """Accept an agent's report of what it sees, for the next round; the agent can always repeat it."""
        self._reports.append((task_id, report, facts))
        self._changed.set()

    def look_again(self, service_id: str) -> None:
        """Mark a service to be looked at: something was seen that is not stored and may matter to a rollout."""
        self._dirty[service_id] = None
        self._changed.set()

    def _on_change(self, told: list[Changed]) -> None:
        """Mark what has to be looked at after a write, by the manager or by the API."""
        for item in told:
            match item.after or item.before:
                case ServiceRow():
                    self._troubles.over(item.row_id)
                    self._thinking.forget(item.row_id)
                    self._dirty[item.row_id] = None
                case TaskRow(task=task):
                    if item.after is None:
                        self._node_set.drop_task(task.id)
                    else:
                        self._node_set.put_task(task)
                    self._dirty[task.service_id] = None
                    if frees_room(task_in(item.before), task_in(item.after)):
                        self._dirty |= self._unplaced
                case NodeRow(node=node):
                    if item.after is None:
                        self._node_set.drop_node(node.id)
                    else:
                        self._node_set.put_node(node)
                    self._dirty_nodes[item.row_id] = None
                case AliveRow():
                    self._dirty_nodes[item.row_id] = None
        if self._dirty or self._dirty_nodes:
            self._changed.set()

    # --- the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Decide and write until cancelled. A failed attempt is repeated."""
        while True:
            await self._wait()
            try:
                await self._look()
                continue
            except BennuError as error:
                log.error("the state of the cluster could not be written: %s", error)
            except Exception:  # a bug; but a swarm that nobody manages any more is worse
                log.exception("the manager failed")
            self._look_at_all()
            await asyncio.sleep(RETRY_S)

    async def _wait(self) -> None:
        due = self._deadlines.next_ns()
        limit = None if due is None else max(0, due - self.now_ns) / 1e9
        try:
            async with asyncio.timeout(limit):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()
        for key in self._deadlines.take_due(self.now_ns):
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
            work = self._new_round()
            told = self._take_in(work, reports)
            dirty_nodes, self._dirty_nodes = self._dirty_nodes, {}
            for node_id in dirty_nodes:
                try:
                    self._judge(work, NodeId(node_id))
                except Exception:
                    log.exception("node %s cannot be judged", node_id)
            dirty, self._dirty = self._dirty, {}
            quiet = {service_id for service_id in dirty if await self._settle_apart(work, ServiceId(service_id))}
            await self._state.commit(await change_of(self._state, work.writes, told))
        # What we wrote ourselves was looked at until it was quiet: only what others changed meanwhile is new.
        for service_id in quiet:
            self._dirty.pop(service_id, None)
        if left := [service_id for service_id in dirty if service_id not in quiet]:
            # The first of them filled the round: it is the others' turn.
            self._dirty = dict.fromkeys([*left[1:], *self._dirty, left[0]])
            self._changed.set()
            await asyncio.sleep(0)

    def _new_round(self) -> Round:
        cluster = self._state.cluster
        return Round(
            StoredState(self._state),
            self._node_set,
            self._failures,
            new_task_id=new_id,
            history_limit=cluster.history_limit if cluster else DEFAULT_HISTORY_LIMIT,
            build_evidence=self._build_evidence,
        )

    def _take_in(self, work: Round, reports: list[tuple[str, Report, Facts]]) -> dict[str, TaskRow]:
        """Take in the reports; answer the rows whose agents know something new beside their state."""
        told: dict[str, TaskRow] = {}
        for task_id, report, facts in reports:
            row = told.get(task_id) or self._state.tasks.get(task_id)
            if row is None:
                continue
            try:
                work.take_in(TaskId(task_id), report, now_ns=self.now_ns)
                changed = with_facts(row, facts)
            except Exception:
                log.exception("task %s: what its node reports cannot be taken in", task_id)
                continue
            if changed != row:
                told[task_id] = changed
        written = [write.after for write in work.writes if isinstance(write, TaskWrite) and write.after]
        self._dirty |= dict.fromkeys(task.service_id for task in (*written, *(row.task for row in told.values())))
        return told

    def _judge(self, work: Round, node_id: NodeId) -> None:
        row = self._state.nodes.get(node_id)
        if row is None:
            if not self._state.why_aside(self._state.nodes, node_id):  # else it is there, and nobody can say how
                work.forget_node(node_id, now_ns=self.now_ns)
            return
        again_ns = work.judge_node(node_id, is_alive=node_id in self._state.alive.rows, now_ns=self.now_ns)
        self._deadlines.put(node_id, again_ns)
        is_new = self._judged.get(node_id) != row.index
        if is_new:
            self._judged[node_id] = row.index
            work.enforce_on(node_id, now_ns=self.now_ns)
        if is_new or work.nodes[node_id] != row.node:
            self._dirty |= dict.fromkeys(self._state.service_ids())

    async def _settle_apart(self, work: Round, service_id: ServiceId) -> bool:
        """Settle one service; tell whether nothing is left to do about it for now.

        Any failure is this service's trouble alone.
        """
        now_ns = self.now_ns
        if work.is_full or self._troubles.rests(service_id, now_ns=now_ns):
            return not work.is_full
        since = len(work.writes)
        try:
            plan = await self._settle(work, service_id)
        except Exception as error:
            work.undo(since)
            trouble = self._troubles.note(service_id, error, now_ns=now_ns)
            log.error("service %s: %s", service_id, in_words(trouble).reason, exc_info=error)
            self.waits[service_id] = (in_words(trouble),)
            self._deadlines.put(service_id, trouble.until_ns)
            return True
        self._troubles.over(service_id)
        if plan is not None:
            self._note_quiet(work, service_id, plan)
        return plan is not None

    async def _settle(self, work: Round, service_id: ServiceId) -> Plan | None:
        """Settle a service as `Round.settle` does, with turns for others between actions and long looks in a thread."""
        if reason := self._state.why_aside(self._state.services, service_id):
            return Plan((), (Wait("service", f"its record is set aside: {reason}"),))
        for _ in range(LOOKS_UNTIL_SETTLED):
            look = work.look(service_id, now_ns=self.now_ns)
            plan = await self._thinking.think(service_id, len(look.tasks), look.decide)
            if not plan.actions:
                return plan
            async for action in paced(plan.actions):
                log.debug("%s", action)
                work.apply(action, service_id, now_ns=look.now_ns)
            if work.is_full:
                return None
        log.error("service %s is not settled after %d looks", service_id, LOOKS_UNTIL_SETTLED)
        wait = Wait("service", f"it is not settled after {LOOKS_UNTIL_SETTLED} looks")
        return Plan((), (wait,), self.now_ns + int(RETRY_S * 1e9))

    def _note_quiet(self, work: Round, service_id: ServiceId, plan: Plan) -> None:
        self._deadlines.put(service_id, plan.wake_at_ns)
        is_there = work.service(service_id) is not None
        if is_there and work.has_unplaced(service_id):
            self._unplaced[service_id] = None
        else:
            self._unplaced.pop(service_id, None)
        if is_there or self._state.tasks_of(service_id):
            self.waits[service_id] = plan.waits
        else:
            self.waits.pop(service_id, None)


def task_in(row: Row | None) -> Task | None:
    return row.task if isinstance(row, TaskRow) else None
