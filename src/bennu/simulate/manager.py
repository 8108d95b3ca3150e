"""A simulated manager: a shell around the shipped round, and a victim.

It may die between any two writes of a round. A new one takes over with nothing but the store, a fresh steady clock and
a wall clock that may have jumped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import process_time

from bennu.orchestration.model.actions import Action, CreateTask, Plan, SetDesired
from bennu.orchestration.model.clock import SteadyClock
from bennu.orchestration.model.nouns import NodeId, Service, ServiceId, Task, TaskId
from bennu.orchestration.model.states import NS_PER_SECOND
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.round import NodeWrite, NotSettled, Round, ServiceWrite, TaskWrite, Write
from bennu.orchestration.scheduler.failures import FailureLog
from bennu.orchestration.scheduler.node_set import NodeSet, frees_room
from bennu.orchestration.tasks.observe import Report
from bennu.simulate.laws import LawBroken, Laws
from bennu.simulate.rollout_metrics import SimulatedMetrics
from bennu.simulate.world import World

WINDOW_NS = 100_000_000


class ManagerDied(Exception):
    """The manager's death between two writes; nothing after it happens in this life."""


class SimulatedManager:
    """One manager after another. Of the fields only the counters and `plans` outlive a death."""

    def __init__(self, world: World, laws: Laws, metrics: SimulatedMetrics) -> None:
        self.world = world
        self.laws = laws
        self.metrics = metrics
        self.history_limit = 5  # Docker's default
        self.is_alive = False
        self.life = 0
        self.looks = 0
        self.decisions = 0  # actions that the core asked for
        self.core_s = 0.0  # CPU time spent in the core, in seconds
        self.dies_after: int | None = None  # so many writes from now
        self.plans: dict[ServiceId, Plan] = {}  # the last, quiet plan of each service
        self.take_over()

    # -- life and death

    def take_over(self) -> None:
        world = self.world
        self.life += 1
        self.is_alive = True
        self.clock = SteadyClock.take_over(
            wall_ns=world.now_ns + world.wall_offset_ns,
            monotonic_ns=world.now_ns,
            newest_stored_ns=world.newest_stored_ns,
        )
        self.node_set = NodeSet(world.nodes.values(), world.tasks.values())
        self.failures = FailureLog(world.tasks.values())
        self.dirty: dict[ServiceId, None] = {}
        self.wakes: dict[ServiceId, int] = {}
        self.unplaced: dict[ServiceId, None] = {}  # services with a task that no node has room for
        self.look_is_due = False
        world.say(f"manager {self.life} takes over")
        for node_id in world.nodes:
            self.judge_node(node_id)
        for service_id in world.service_ids():
            self.note(service_id)
        for agent in world.agents.values():
            agent.reconnect()

    def die(self) -> None:
        self.is_alive = False
        self.dies_after = None
        world = self.world
        world.say(f"manager {self.life} dies")
        world.after(int(world.random.uniform(0, 8) * NS_PER_SECOND), self.take_over)

    @property
    def now_ns(self) -> int:
        now_ns = self.clock.now_ns(self.world.now_ns)
        self.world.newest_stored_ns = max(self.world.newest_stored_ns, now_ns)
        return now_ns

    def do(self, action: Action, service_id: ServiceId | None = None) -> None:
        """Decide one action by hand, and write it."""
        work = self._new_round()
        work.apply(action, service_id, now_ns=self.now_ns)
        self._write_all(work.writes)

    def _new_round(self) -> Round:
        return Round(
            self.world,
            self.node_set,
            self.failures,
            new_task_id=self.world.new_task_id,
            history_limit=self.history_limit,
            build_evidence=self._build_evidence,
        )

    def _build_evidence(self, service: Service, tasks: list[Task], now_ns: int) -> Evidence | None:
        return self.metrics.build_evidence(service, tasks, now_ns=now_ns)

    # -- looking

    def note(self, service_id: ServiceId) -> None:
        """Note that something of this service changed, and look at it within the window."""
        if not self.is_alive:
            return
        self.dirty[service_id] = None
        if not self.look_is_due:
            self.look_is_due = True
            self._later(self.world.random.randrange(WINDOW_NS), self._look)

    def note_all(self) -> None:
        for service_id in self.world.service_ids():
            self.note(service_id)

    def _later(self, delay_ns: int, do: Callable[[], None]) -> None:
        life = self.life

        def in_this_life() -> None:
            if self.is_alive and self.life == life:
                do()

        self.world.after(delay_ns, in_this_life)

    def _look(self) -> None:
        self.look_is_due = False
        try:
            while self.dirty:
                service_id = next(iter(self.dirty))
                del self.dirty[service_id]
                self._settle(service_id)
        except ManagerDied:
            self.die()

    def settle_all(self) -> None:
        """Decide everything that can be decided at this instant."""
        for service_id in self.world.service_ids():
            self._settle(service_id)

    def _settle(self, service_id: ServiceId) -> None:
        plan: Plan | None = None
        while plan is None:
            work = self._new_round()
            began = process_time()
            try:
                plan = work.settle(service_id, now_ns=self.now_ns)
            except NotSettled as error:
                raise LawBroken(7, str(error)) from None
            self.core_s += process_time() - began
            self.looks += work.looks
            self._write_mortally(work.writes)
        self.plans[service_id] = plan
        self._wake(service_id, plan.wake_at_ns)
        if work.service(service_id) is not None and work.has_unplaced(service_id):
            self.unplaced[service_id] = None
        else:
            self.unplaced.pop(service_id, None)

    def _wake(self, service_id: ServiceId, at_ns: int | None) -> None:
        """Look again no later than at this instant of the steady clock."""
        if at_ns is None or self.wakes.get(service_id) == at_ns:
            return
        self.wakes[service_id] = at_ns

        def wake() -> None:
            if self.wakes.get(service_id) == at_ns:
                del self.wakes[service_id]
            self.note(service_id)

        self._later(at_ns - self.now_ns, wake)

    # -- writing

    def _write_mortally(self, writes: list[Write]) -> None:
        for write in writes:
            if self.dies_after is not None:
                self.dies_after -= 1
                if self.dies_after < 0:
                    raise ManagerDied
            self.world.say(f"    {write.action}")
            self.decisions += 1
            self._write(write)

    def _write_all(self, writes: list[Write]) -> None:
        for write in writes:
            self._write(write)

    def _write(self, write: Write) -> None:
        """Store a write as if it were a transaction of its own, checked by the laws, and tell the node concerned."""
        world = self.world
        if write.action is not None:
            self.laws.on_action(write.action)
        match write:
            case TaskWrite(before, after, action):
                if isinstance(action, CreateTask) and after is not None:
                    self.laws.on_create(action, after, self.now_ns)
                if isinstance(action, SetDesired) and before is not None:
                    self.laws.on_desired(before, action, self.now_ns)
                if after is not None:
                    world.put_task(after)
                elif before is not None:
                    world.delete_task(before.id)
                task = after or before
                if task is not None and task.node_id is not None and task.node_id in world.agents:
                    world.agents[task.node_id].tell()
            case ServiceWrite(before, after, action):
                self.laws.on_rollout(before, action)
                world.put_service(after)
            case NodeWrite(after=node):
                world.nodes[node.id] = node

    # -- what agents and people say

    def take_in(self, task_id: TaskId, report: Report) -> bool:
        """Take in a report. False if there is no live manager to take it in."""
        if not self.is_alive:
            return False
        task = self.world.tasks.get(task_id)
        if task is not None:
            work = self._new_round()
            work.take_in(task_id, report, now_ns=self.now_ns)
            self._write_all(work.writes)
            self.note(task.service_id)
            if frees_room(task, self.world.tasks[task_id]):
                for service_id in list(self.unplaced):
                    self.note(service_id)
        return True

    def judge_node(self, node_id: NodeId) -> None:
        """Judge a node when its lease began or ended, or when this manager has just taken over."""
        if node_id not in self.world.nodes or not self.is_alive:
            return
        work = self._new_round()
        work.judge_node(node_id, is_alive=node_id in self.world.leases, now_ns=self.now_ns)
        for write in work.writes:
            self.world.say(f"    {write.action}")
            self._write(write)
            self.note_all()

    def change_node(self, node_id: NodeId, **changes: object) -> None:
        """Change a node as a person does: availability, labels, resources."""
        world = self.world
        world.nodes[node_id] = replace(world.nodes[node_id], **changes)  # type: ignore[arg-type]
        if not self.is_alive:
            return
        self.node_set.put_node(world.nodes[node_id])
        work = self._new_round()
        work.enforce_on(node_id, now_ns=self.now_ns)
        self._write_all(work.writes)
        self.note_all()

    def forget_node(self, node_id: NodeId) -> None:
        """Forget a node that a person has removed; its agent is gone already."""
        del self.world.nodes[node_id]
        self.node_set.drop_node(node_id)
        work = self._new_round()
        work.forget_node(node_id, now_ns=self.now_ns)
        self._write_all(work.writes)
        self.note_all()

    def change_service(self, service: Service | None, service_id: ServiceId) -> None:
        """Create, update or (None) remove a service, as a person does."""
        world = self.world
        if service is None:
            world.services.pop(service_id, None)
        else:
            world.put_service(service)
        self.note(service_id)
