"""The design's laws, checked from outside the core at every step.

The checks keep their own books: they count restarts, starts and ends themselves and never ask the core whether it was
right. A broken law ends the run with `LawBroken`, which carries the law's number.

    1  an end is recorded once, with its true exit code            `at_the_end`
    2  what was ordered to stop does not start again                `on_process_start`, `on_task`
    3  one live task per slot, but beside the old one               `on_desired`, `on_process_start`
    4  an update leaves enough tasks ready                          `on_desired`
    5  ready before the first connection, drained before the signal `on_enter`, `on_signal`
    6  delay, attempts and window                                   `on_create`, `on_desired`
    7  reached or explained                                         `at_the_end`, and a bound on looks per event
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bennu.orchestration.model.actions import Action, CreateTask, Plan, RollBack, SetDesired, SetRollout
from bennu.orchestration.model.config import config_in_force, is_under_watch, starts_beside, strategy_in_force
from bennu.orchestration.model.constraints import satisfies
from bennu.orchestration.model.nouns import CanaryRun, Service, ServiceId, SlotKey, Task, TaskId, slot_key
from bennu.orchestration.model.spec import Canary, Replicated
from bennu.orchestration.model.states import NS_PER_SECOND, Availability, NodeState, Origin, RestartCondition, TaskState
from bennu.orchestration.rollout.canary import step_target
from bennu.orchestration.rollout.watched_run import is_of_rollout
from bennu.orchestration.slots.restart import STOP_TIMEOUT_NS
from bennu.orchestration.tasks.traffic import DEFAULT_DRAIN_DEADLINE_NS
from bennu.simulate.world import World

STUCK_AFTER_NS = 100 * NS_PER_SECOND
RECORDED_WITHIN_NS = 10 * NS_PER_SECOND  # how long a report may be on its way once no message is lost any more


class LawBroken(AssertionError):
    """The error of a law that does not hold. `law` is its number in the design."""

    def __init__(self, law: int, what: str) -> None:
        super().__init__(f"law {law}: {what}")
        self.law = law


@dataclass(slots=True)
class SlotBook:
    """The checker's record of one slot: every task made in it, in order, and restarts since the last fresh one."""

    tasks: list[Task] = field(default_factory=list)
    restarts: dict[TaskId, int] = field(
        default_factory=dict
    )  # successors that started or may start: when each was made
    version: int = -1


class Laws:
    """The checker of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.books: dict[tuple[ServiceId, SlotKey], SlotBook] = {}
        self.checks = 0
        self.delay_of: dict[TaskId, int] = {}
        self.excused: dict[TaskId, set[TaskId]] = {}  # started task → tasks that may still run beside it

    # -- stored values

    def on_task(self, old: Task | None, new: Task) -> None:
        self.checks += 1
        if old is None:
            return
        if new.desired < old.desired:
            raise LawBroken(2, f"desired state of {new.id} fell from {old.desired.word} to {new.desired.word}")
        if new.status.state < old.status.state:
            raise LawBroken(1, f"observed state of {new.id} fell from {old.state.word} to {new.state.word}")
        if old.has_ended and new.status.exit_code != old.status.exit_code:
            raise LawBroken(1, f"the exit code of {new.id} changed after its end")

    def on_action(self, action: Action) -> None:
        if not action.reason:
            raise LawBroken(7, f"{action} has no reason")

    def on_rollout(self, service: Service, action: SetRollout | RollBack) -> None:
        status = service.update_status
        if isinstance(action, RollBack) and status is not None and status.state.is_rollback:
            raise LawBroken(4, f"{service.id}: a rollback was rolled back")

    # -- law 6

    def on_create(self, action: CreateTask, task: Task, now_ns: int) -> None:
        self.checks += 1
        service = self.world.services[task.service_id]
        self._canary_bounded(service, task)
        book = self.books.setdefault((service.id, slot_key(task, service)), SlotBook())
        if task.origin is Origin.RESTART:
            self._on_restart(book, task, now_ns)
        elif not (task.origin is Origin.CREATE and task.restarts):
            book.restarts = {}
        book.version = task.spec_version
        book.tasks.append(task)
        if task.desired is not TaskState.READY:
            self._excuse(service, task, now_ns)

    def _canary_bounded(self, service: Service, made: Task) -> None:
        """Check law 4 of canaries: no more slots are of the new version than the step says.

        It holds whatever fails or is added.
        """
        canary, rollout = strategy_in_force(service), service.rollout
        if not isinstance(canary, Canary) or not isinstance(rollout, CanaryRun):
            return
        if made.spec_version != service.spec_version:
            return
        if not is_under_watch(service) or rollout.step >= len(canary.steps):
            return
        tasks = self.world.tasks_of(service.id)
        new = {slot_key(task, service) for task in tasks if task.is_wanted and is_of_rollout(service, rollout, task)}
        # One that stopped for good is a slot too, while its node is there to be filled again.
        slots = rollout.slots | {slot_key(task, service) for task in tasks if self._has_place(task)}
        allowed = step_target(canary.steps[rollout.step], len(slots))
        if slot_key(made, service) not in new and len(new) >= allowed:
            raise LawBroken(4, f"{made.id} is of the new version, as {len(new)} slots are; the step allows {allowed}")

    def _has_place(self, task: Task) -> bool:
        if task.is_wanted:
            return True
        node = self.world.nodes.get(task.node_id) if task.node_id else None
        return task.desired is not TaskState.REMOVE and node is not None and node.is_usable

    def _on_restart(self, book: SlotBook, task: Task, now_ns: int) -> None:
        dead = next(
            (
                stored
                for known in reversed(book.tasks)
                if (stored := self.world.tasks.get(known.id)) is not None
                and stored.desired <= TaskState.COMPLETE
                and (stored.has_ended or self._is_lost(stored))
            ),
            None,
        )
        if dead is None:
            raise LawBroken(6, f"{task.id} succeeds nothing")
        policy = dead.spec.restart_policy
        if policy.condition is RestartCondition.NONE:
            raise LawBroken(6, f"{dead.id} has restart condition none and was restarted")
        if policy.condition is RestartCondition.ON_FAILURE and dead.state is TaskState.COMPLETE:
            raise LawBroken(6, f"{dead.id} completed and was restarted on failure")
        node = self.world.nodes.get(dead.node_id) if dead.node_id else None
        drained = node is not None and node.availability is Availability.DRAIN
        self.delay_of[task.id] = 0 if drained else policy.delay_ns
        if task.spec_version != book.version:
            book.restarts = {}
        book.restarts[task.id] = now_ns
        if policy.max_attempts == 0 or dead.spec_version != task.spec_version:
            return
        recent = [at for at in book.restarts.values() if policy.window_ns == 0 or at > now_ns - policy.window_ns]
        if len(recent) > policy.max_attempts:
            raise LawBroken(6, f"{len(recent)} restarts of {dead.service_id} slot {dead.slot}, {policy} allows fewer")

    def _is_lost(self, task: Task) -> bool:
        node = self.world.nodes.get(task.node_id) if task.node_id else None
        return task.node_id is not None and (node is None or not node.is_usable)

    # -- laws 3, 4, 6

    def on_desired(self, old: Task, action: SetDesired, now_ns: int) -> None:
        self.checks += 1
        service = self.world.services.get(old.service_id)
        if service is None or action.desired <= old.desired:
            return
        if old.desired is TaskState.READY and action.desired > TaskState.COMPLETE and not old.has_ended:
            # Its predecessor was found alive after all: a successor that never started was no attempt.
            self.books[service.id, slot_key(old, service)].restarts.pop(old.id, None)
        if action.desired in (TaskState.RUNNING, TaskState.COMPLETE):
            delay_ns = self.delay_of.get(old.id, 0)
            if now_ns < old.created_at_ns + delay_ns:
                raise LawBroken(6, f"{old.id} was started {now_ns - old.created_at_ns} ns after its predecessor's end")
            self._one_live_task(service, old)
            self._excuse(service, old, now_ns)
        elif action.desired is TaskState.SHUTDOWN and _is_serving(old):
            self._enough_ready(service, old)

    def _one_live_task(self, service: Service, started: Task) -> None:
        if starts_beside(service):
            return
        key = slot_key(started, service)
        for task in self.world.tasks_of(service.id):
            if (
                task.id != started.id
                and slot_key(task, service) == key
                and task.desired
                in (
                    TaskState.RUNNING,
                    TaskState.COMPLETE,
                )
            ):
                if task.has_ended or task.iteration != started.iteration:
                    continue
                raise LawBroken(3, f"{started.id} and {task.id} are both told to run in {key}")

    def _enough_ready(self, service: Service, stopped: Task) -> None:
        """Check law 4, when the updater stops a serving task."""
        status, rollout = service.update_status, service.rollout
        if rollout is None or status is None or not status.state.is_under_way or self._must_go(service, stopped):
            return
        here = slot_key(stopped, service)
        serving: set[SlotKey] = set()
        present: set[SlotKey] = set()
        for task in self.world.tasks_of(service.id):
            key = slot_key(task, service)
            if task.desired > TaskState.RUNNING or (key != here and key not in rollout.slots) or key in rollout.failed:
                continue
            present.add(key)
            if task.id != stopped.id and _is_serving(task):
                serving.add(key)
        if here in serving or here in rollout.failed:
            return
        if starts_beside(service):
            raise LawBroken(4, f"{stopped.id} was stopped before its successor ran")
        allowed = config_in_force(service).parallelism or len(rollout.slots)
        missing = len(present - serving)
        if missing > allowed:
            raise LawBroken(4, f"{missing} of {len(present)} slots down by stopping {stopped.id}, {allowed} allowed")

    def _must_go(self, service: Service, task: Task) -> bool:
        """Tell whether the task has to leave its node whatever the updater does."""
        node = self.world.nodes.get(task.node_id) if task.node_id else None
        if node is None or not node.is_usable:
            return True
        return service.is_global and not satisfies(service.spec.task.placement.constraints, node)

    # -- laws 2, 3: real processes

    def on_process_start(self, task: Task) -> None:
        self.checks += 1
        stored = self.world.tasks.get(task.id)
        if task.desired > TaskState.COMPLETE:
            raise LawBroken(2, f"{task.id} is started though it is to be {task.desired.word}")
        service = self.world.services.get(task.service_id)
        if service is None or stored is None or service.is_job:
            return
        key = slot_key(task, service)
        for made in self.books[service.id, key].tasks:
            known = self.world.tasks.get(made.id)
            agent = self.world.agents.get(known.node_id) if known is not None and known.node_id else None
            life = agent.lives.get(made.id) if agent is not None else None
            if life is None or not life.has_process or made.id == task.id:
                continue
            if made.id not in self.excused.get(task.id, ()) and task.id not in self.excused.get(made.id, ()):
                raise LawBroken(3, f"{task.id} is started while {made.id} runs in {key}")

    def _excuse(self, service: Service, started: Task, now_ns: int) -> None:
        """Note Docker's own exceptions, at the moment of the decision.

        The new task runs beside the old one, or the old one's node cannot be asked, or a minute was waited, or the
        manager itself declared the old task over.
        """
        excused = self.excused.setdefault(started.id, set())
        for made in self.books[service.id, slot_key(started, service)].tasks:
            known = self.world.tasks.get(made.id)
            node = self.world.nodes.get(known.node_id) if known is not None and known.node_id else None
            ordered = known.stop_ordered_at_ns if known is not None else None
            if (
                known is None
                or starts_beside(service)
                or node is None
                or node.state is NodeState.DOWN
                or known.state in (TaskState.REJECTED, TaskState.ORPHANED)
                or (ordered is not None and now_ns >= ordered + STOP_TIMEOUT_NS)
            ):
                excused.add(made.id)

    # -- law 5

    def on_enter(self, state: TaskState, *, is_stopping: bool, is_ready: bool | None) -> None:
        self.checks += 1
        if state is not TaskState.RUNNING or is_stopping or not is_ready:
            raise LawBroken(5, f"a backend that is {state.word} gets connections; its readiness is {is_ready}")

    def on_signal(self, in_balancer: bool, left_at_ns: int | None, quiet_at_ns: int, now_ns: int) -> None:
        self.checks += 1
        if in_balancer:
            raise LawBroken(5, "a task in the load balancer gets its stop signal")
        if left_at_ns is None or now_ns >= quiet_at_ns:
            return
        if now_ns < left_at_ns + DEFAULT_DRAIN_DEADLINE_NS:
            raise LawBroken(5, "a stop signal came before the drain ended or its deadline passed")

    # -- laws 1, 7: when everything is quiet again

    def at_the_end(self) -> None:
        self._true_ends()
        self.world.manager.settle_all()
        for service_id in self.world.service_ids():
            self._reached_or_explained(service_id)

    def _true_ends(self) -> None:
        for agent in self.world.agents.values():
            for life in agent.lives.values():
                stored = self.world.tasks.get(life.task.id)
                if stored is None or life.state <= TaskState.RUNNING or stored.state > TaskState.REMOVE:
                    continue
                by_agent = stored.status.message != "task rejected by constraint enforcer"
                if by_agent and stored.has_ended and stored.status.exit_code != life.exit_code:
                    raise LawBroken(
                        1, f"{stored.id} ended with {life.exit_code}, recorded is {stored.status.exit_code}"
                    )
                if not stored.has_ended and self.world.now_ns - life.changed_at_ns > RECORDED_WITHIN_NS:
                    raise LawBroken(1, f"the end of {stored.id} was never recorded")

    def _reached_or_explained(self, service_id: ServiceId) -> None:
        world = self.world
        plan = world.manager.plans.get(service_id)
        if plan is None:
            raise LawBroken(7, f"{service_id} was never settled")
        explained = {wait.subject for wait in plan.waits}
        service = world.services.get(service_id)
        tasks = world.tasks_of(service_id)
        if service is None:
            left = [task.id for task in tasks if f"task {task.id}" not in explained]
            if left:
                raise LawBroken(7, f"{left} of a removed service are left without a reason")
            return
        serving = {slot_key(task, service) for task in tasks if task.is_running}
        if isinstance(service.spec.mode, Replicated):
            numbers = {task.slot for task in tasks if task.desired is not TaskState.REMOVE}
            if len(numbers) != service.spec.mode.replicas:
                raise LawBroken(7, f"{service_id} has {len(numbers)} slots, wanted {service.spec.mode.replicas}")
        for task in tasks:
            key = slot_key(task, service)
            if task.desired > TaskState.COMPLETE or key in serving or task.state is TaskState.COMPLETE:
                continue
            if str(key) not in explained:
                raise LawBroken(7, f"{key} of {service_id} does not serve and nobody says why: {task}")
            self._not_stuck(service, task)
        self._rollout_ends(service, tasks, plan)

    def _not_stuck(self, service: Service, task: Task) -> None:
        """Check that no task is held up by the mere order of things: by now nothing is late any more."""
        node = self.world.nodes.get(task.node_id) if task.node_id else None
        if node is None or node.state is not NodeState.READY:
            return
        idle_ns = self.world.manager.now_ns - max(task.status.applied_at_ns, task.start_at_ns)
        on_its_way = (TaskState.ASSIGNED, TaskState.ACCEPTED, TaskState.PREPARING)
        held = task.state is TaskState.READY and task.desired > TaskState.READY
        if (task.state in on_its_way or held) and idle_ns > STUCK_AFTER_NS:
            raise LawBroken(7, f"{task.id} of {service.id} has been {task.state.word} for {idle_ns} ns")

    def _rollout_ends(self, service: Service, tasks: list[Task], plan: Plan) -> None:
        status, rollout = service.update_status, service.rollout
        if status is None or not status.state.is_under_way:
            return
        if not plan.waits:
            raise LawBroken(7, f"the rollout of {service.id} waits for nothing: {status}")
        if rollout is None or any(wait.until_ns is not None for wait in plan.waits):
            return
        wanted = [task for task in tasks if task.desired <= TaskState.RUNNING]
        if wanted and all(_is_serving(task) and task.spec_version == service.spec_version for task in wanted):
            raise LawBroken(7, f"the rollout of {service.id} has no end though all its tasks serve: {plan.waits}")


def _is_serving(task: Task) -> bool:
    return task.state is TaskState.RUNNING and task.desired is TaskState.RUNNING
