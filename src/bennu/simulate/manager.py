"""A simulated manager: the thin shell around the shipped core, and a victim.

It may die between any two actions of a plan. A new one takes over with nothing but the store, a fresh steady clock and
a wall clock that may have jumped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import process_time

from bennu.orchestration.actions import (
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
)
from bennu.orchestration.apply import allocate, apply_to_service, apply_to_task, new_task
from bennu.orchestration.clock import SteadyClock
from bennu.orchestration.failures import FailureLog
from bennu.orchestration.fleet import Fleet
from bennu.orchestration.model import NodeId, Service, ServiceId, Task, TaskId
from bennu.orchestration.nodes import apply_to_node, decide_node, enforce, orphan_tasks
from bennu.orchestration.observe import Report, observe
from bennu.orchestration.placement import place
from bennu.orchestration.reconcile import reconcile, reconcile_removed
from bennu.orchestration.states import NS_PER_SECOND, TaskState
from bennu.simulate.laws import LawBroken
from bennu.simulate.world import World

LOOKS_UNTIL_SETTLED = 100
WINDOW_NS = 100_000_000


class ManagerDied(Exception):
    """Thrown between two actions; nothing after it happens in this life."""


class Manager:
    """One manager after another. Of its fields only `deaths` outlives a death."""

    def __init__(self, world: World, *, history_limit: int = 5) -> None:
        self.world = world
        self.history_limit = history_limit
        self.is_alive = False
        self.life = 0
        self.looks = 0
        self.decisions = 0  # actions that the core asked for
        self.core_s = 0.0  # CPU time spent in the core, in seconds
        self.dies_after: int | None = None  # so many actions from now
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
        self.fleet = Fleet(world.nodes.values(), world.tasks.values())
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

    def _act(self, action: Action, service_id: ServiceId | None) -> None:
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise ManagerDied
        self.world.say(f"    {action}")
        self._apply(action, service_id)

    # -- looking

    def note(self, service_id: ServiceId) -> None:
        """Something of this service changed: look at it within the window."""
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
        for _ in range(LOOKS_UNTIL_SETTLED):
            self.looks += 1
            began = process_time()
            plan = self._ask(service_id)
            self.core_s += process_time() - began
            if not plan.actions:
                self.plans[service_id] = plan
                self._wake(service_id, plan.wake_at_ns)
                return
            self.world.laws.on_plan(service_id, plan, self.now_ns)
            self.decisions += len(plan.actions)
            for action in plan.actions:
                self._act(action, service_id)
        raise LawBroken(7, f"service {service_id} is not settled after {LOOKS_UNTIL_SETTLED} looks: {plan}")

    def _ask(self, service_id: ServiceId) -> Plan:
        world = self.world
        service = world.services.get(service_id)
        tasks = world.tasks_of(service_id)
        if service is None:
            return reconcile_removed(tasks, world.nodes, now_ns=self.now_ns)
        evidence = world.witness.testify(service)
        plan = reconcile(
            service, tasks, world.nodes, now_ns=self.now_ns, history_limit=self.history_limit, evidence=evidence
        )
        if plan.actions:
            return plan
        for task in tasks:
            if task.state is TaskState.NEW and task.desired <= TaskState.COMPLETE:
                self._store(allocate(task, now_ns=self.now_ns))
        placed = place(service, world.tasks_of(service_id), self.fleet, self.failures, now_ns=self.now_ns)
        if placed.actions:
            return placed
        if placed.waits:
            self.unplaced[service_id] = None
        else:
            self.unplaced.pop(service_id, None)
        return Plan((), (*plan.waits, *placed.waits), plan.wake_at_ns)

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

    # -- carrying out

    def _apply(self, action: Action, service_id: ServiceId | None) -> None:
        world = self.world
        match action:
            case CreateTask():
                assert service_id is not None
                task = new_task(action, world.services[service_id], world.new_task_id(), now_ns=self.now_ns)
                world.laws.on_create(action, task, self.now_ns)
                self._store(task)
            case DeleteTask():
                deleted = world.tasks.get(action.task_id)
                world.delete_task(action.task_id)
                self.fleet.drop_task(action.task_id)
                if deleted is not None and deleted.node_id in world.agents:
                    world.agents[deleted.node_id].tell()
            case SetDesired() | AssignTask() | RefuseTask() | EndTask():
                old = world.tasks[action.task_id]
                if isinstance(action, SetDesired):
                    world.laws.on_desired(old, action, self.now_ns)
                self._store(apply_to_task(old, action, now_ns=self.now_ns))
            case SetRollout() | RollBack():
                assert service_id is not None
                world.laws.on_rollout(world.services[service_id], action)
                world.put_service(apply_to_service(world.services[service_id], action, now_ns=self.now_ns))
            case SetNodeState():
                world.nodes[action.node_id] = apply_to_node(world.nodes[action.node_id], action, now_ns=self.now_ns)
                self.fleet.put_node(world.nodes[action.node_id])

    def _store(self, task: Task) -> None:
        world = self.world
        if world.tasks.get(task.id) is task:
            return
        world.put_task(task)
        self.fleet.put_task(task)
        self.failures.note(task)
        if task.node_id is not None and task.node_id in world.agents:
            world.agents[task.node_id].tell()

    # -- what agents and people say

    def take_in(self, task_id: TaskId, report: Report) -> bool:
        """A report arrives. False if nobody is there to take it in."""
        if not self.is_alive:
            return False
        task = self.world.tasks.get(task_id)
        if task is not None:
            seen = observe(task, report, now_ns=self.now_ns)
            self._store(seen)
            self.note(task.service_id)
            if seen.has_ended and not task.has_ended:  # what it held is free for others
                for service_id in list(self.unplaced):
                    self.note(service_id)
        return True

    def judge_node(self, node_id: NodeId) -> None:
        """Its lease began or ended, or this manager has just taken over."""
        node = self.world.nodes.get(node_id)
        if node is None or not self.is_alive:
            return
        for action in decide_node(node, is_alive=node_id in self.world.leases).actions:
            self.world.say(f"    {action}")
            self._apply(action, None)
            self.note_all()

    def change_node(self, node_id: NodeId, **changes: object) -> None:
        """A person changes a node: availability, labels, resources."""
        world = self.world
        world.nodes[node_id] = replace(world.nodes[node_id], **changes)  # type: ignore[arg-type]
        if not self.is_alive:
            return
        self.fleet.put_node(world.nodes[node_id])
        for action in enforce(world.nodes[node_id], list(world.tasks_on(node_id)), world.services).actions:
            self._apply(action, None)
        self.note_all()

    def remove_node(self, node_id: NodeId) -> None:
        """A person removes a node for good."""
        world = self.world
        del world.nodes[node_id]
        world.agents.pop(node_id).is_gone = True
        self.fleet.drop_node(node_id)
        for action in orphan_tasks(None, list(world.tasks_on(node_id)), now_ns=self.now_ns).actions:
            self._apply(action, None)
        self.note_all()

    def change_service(self, service: Service | None, service_id: ServiceId) -> None:
        """A person creates, updates or (None) removes a service."""
        world = self.world
        if service is None:
            world.services.pop(service_id, None)
        else:
            world.put_service(service)
        self.note(service_id)
