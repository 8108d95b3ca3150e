"""A simulated node: an agent that makes its tasks real, and the processes that outlive it.

Durable here, as on a real node: which tasks it knows, their processes, their ends. Lost with a connection: nothing;
reports are repeated until the manager has taken them in, and may arrive late, twice, in any order, or not at all.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from bennu.orchestration.model.nouns import NodeId, Task, TaskId
from bennu.orchestration.model.states import NS_PER_SECOND, TaskState
from bennu.orchestration.rollout.blue_green import may_serve
from bennu.orchestration.tasks.observe import Report, classify_end
from bennu.orchestration.tasks.task_step import (
    MESSAGES,
    End,
    Prepare,
    StartTask,
    Stop,
    TaskProcess,
    TaskSeen,
    next_task_step,
    refusal,
)
from bennu.orchestration.tasks.traffic import Backend, Signs, Step, decide_ready, plan_traffic
from bennu.simulate.laws import Laws
from bennu.simulate.programs import draw, program_of
from bennu.simulate.world import SimulatedTask, World

RETRY_NS = 3 * NS_PER_SECOND
HEARTBEAT_NS = 5 * NS_PER_SECOND


class SimulatedAgent:
    """The agent of one node. `noise` is the chance that a message is lost, doubled or delayed by seconds."""

    def __init__(self, world: World, laws: Laws, node_id: NodeId, *, noise: float) -> None:
        self.world = world
        self.laws = laws
        self.node_id = node_id
        self.noise = noise
        self.lives: dict[TaskId, SimulatedTask] = {}
        self.is_connected = True
        self.is_gone = False
        self.sync_is_due = False
        self._beat()

    # -- connection

    def _beat(self) -> None:
        if self.is_gone:
            return
        if self.is_connected:
            self.world.keep_alive(self.node_id)
        self.world.after(int(HEARTBEAT_NS * self.world.random.uniform(0.9, 1.1)), self._beat)

    def disconnect(self, for_ns: int) -> None:
        """Cut the cable, or kill the daemon: processes live on and end as they please."""
        self.world.say(f"node {self.node_id} is cut off for {for_ns / NS_PER_SECOND:.1f} s")
        self.is_connected = False
        self.world.after(for_ns, self.connect)

    def connect(self) -> None:
        self.is_connected = True
        self.reconnect()

    def crash(self, for_ns: int) -> None:
        """Cut the machine's power: every process is gone, and its exit code is unknown."""
        self.disconnect(for_ns)
        for life in self.lives.values():
            if life.has_process:
                self._end(life, TaskState.FAILED, None, "its node lost power")
            elif life.state < TaskState.STARTING:
                life.state, life.err = TaskState.FAILED, "its node lost power"

    def reconnect(self) -> None:
        """Open a new session, also with a new manager: hear everything, report everything."""
        if self.is_connected and not self.is_gone:
            self.world.keep_alive(self.node_id)
            self.tell()
            for life in self.lives.values():
                life.reported = TaskState.NEW
                self._report(life)

    # -- being told

    def tell(self) -> None:
        """Schedule a read of the manager's list of this node's tasks, which has changed."""
        if not self.sync_is_due:
            self.sync_is_due = True
            self.world.after(self.world.random.randrange(100_000_000), self._sync)

    def _sync(self) -> None:
        self.sync_is_due = False
        if not self.is_connected or self.is_gone or not self.world.manager.is_alive:
            return
        listed: dict[TaskId, Task] = {}
        for task in self.world.tasks_on(self.node_id):
            if task.state >= TaskState.ASSIGNED:
                listed[task.id] = task
        for task_id, task in listed.items():
            life = self.lives.get(task_id)
            if life is None:
                self._accept(task)
            else:
                life.task = task
                self._follow(life)
        for task_id in [task_id for task_id in self.lives if task_id not in listed]:
            self._forget(self.lives[task_id])

    def _accept(self, task: Task) -> None:
        life = SimulatedTask(task, program_of(task.spec.container))
        self.lives[task.id] = life
        if task.has_ended:
            life.state = task.state
            return
        self._follow(life)

    def _seen(self, life: SimulatedTask) -> TaskSeen:
        if life.state < TaskState.READY:
            return TaskSeen(TaskProcess.ABSENT)
        if life.state is TaskState.READY:
            return TaskSeen(TaskProcess.MADE)
        if life.has_process:
            return TaskSeen(TaskProcess.RUNS, is_up=life.state is TaskState.RUNNING)
        return TaskSeen(TaskProcess.ENDED, exit_code=life.exit_code)

    def _follow(self, life: SimulatedTask) -> None:
        """Take the next step, unless it is being taken already."""
        match next_task_step(life.task.desired, life.state, self._seen(life), name=life.task.id):
            case Prepare() if life.state is TaskState.ACCEPTED:
                life.state = TaskState.PREPARING
                self._report(life)
                self.world.after(draw(self.world.random, life.program.prepare), partial(self._prepared, life))
            case StartTask():
                self._start(life)
            case Stop() if not life.is_stopping:
                life.is_stopping = True
                self._traffic(life)
            case End(report) if life.state <= TaskState.RUNNING:
                life.state = report.state
                self._report(life)

    def _prepared(self, life: SimulatedTask) -> None:
        if life.state is not TaskState.PREPARING:
            return
        if life.program.is_rejected:
            refused = refusal(life.state, "No such image: missing:latest")
            life.state, life.err = refused.state, refused.err
        else:
            life.state = TaskState.READY
        self._report(life)
        self._follow(life)

    def _start(self, life: SimulatedTask) -> None:
        world = self.world
        self.laws.on_process_start(life.task)
        life.state, life.has_process = TaskState.STARTING, True
        self._report(life)
        comes_up_ns = draw(world.random, life.program.start)
        if not life.program.never_ready:
            world.after(comes_up_ns, partial(self._up, life))
        if life.program.lives is not None:
            lives_ns = draw(world.random, life.program.lives)
            code = life.program.exit_code
            world.after(comes_up_ns + lives_ns, partial(self._end_by_itself, life, code))

    def _up(self, life: SimulatedTask) -> None:
        if life.state is TaskState.STARTING and not life.is_stopping:
            life.state = TaskState.RUNNING
            self._report(life)
            self._answer(life, is_ready=True)

    def _answer(self, life: SimulatedTask, *, is_ready: bool) -> None:
        """Answer the readiness probe well from now on, or with an error; in time the answer changes again."""
        if not life.has_process:
            return
        life.is_ready = is_ready
        self._traffic(life)
        if life.program.errs is not None:
            lasts_ns = draw(self.world.random, life.program.errs if is_ready else life.program.recovers)
            self.world.after(lasts_ns, partial(self._answer, life, is_ready=not is_ready))

    def kill(self, life: SimulatedTask) -> None:
        """Kill the process, as a person or the kernel does."""
        self._end_by_itself(life, 137)

    def _end_by_itself(self, life: SimulatedTask, code: int) -> None:
        if not life.has_process:
            return
        report = classify_end(exit_code=code, was_ordered=life.is_stopping)
        self._end(life, report.state, code, report.err)

    def _end(self, life: SimulatedTask, state: TaskState, code: int | None, err: str) -> None:
        life.has_process = life.in_balancer = False
        life.is_ready = None
        life.state, life.exit_code, life.err = state, code, err
        self._report(life)

    # -- stopping and traffic

    def _backend(self, life: SimulatedTask) -> Backend:
        service = self.world.services.get(life.task.service_id)
        return Backend(
            readiness=decide_ready(Signs(state=life.state, label_ready=life.is_ready)),
            in_balancer=life.in_balancer,
            left_at_ns=life.left_at_ns,
            is_to_stop=life.is_stopping,
            may_serve=service is None or may_serve(service, life.task),
            connections=1 if self.world.now_ns < life.last_connection_ends_ns else 0,
        )

    def _traffic(self, life: SimulatedTask) -> None:
        """Ask the core for the next step of this backend and take it."""
        if not life.has_process:
            return
        world = self.world
        plan = plan_traffic(self._backend(life), now_ns=world.now_ns)
        match plan.step:
            case Step.ENTER:
                self.laws.on_enter(life.state, is_stopping=life.is_stopping, is_ready=life.is_ready)
                life.in_balancer, life.left_at_ns = True, None
            case Step.LEAVE:
                life.in_balancer, life.left_at_ns = False, world.now_ns
                life.last_connection_ends_ns = world.now_ns + draw(world.random, life.program.drain)
                self._traffic(life)
            case Step.STOP:
                self.laws.on_signal(life.in_balancer, life.left_at_ns, life.last_connection_ends_ns, world.now_ns)
                ends_ns = draw(world.random, life.program.stop)
                world.after(ends_ns, partial(self._end_by_itself, life, 143))
            case Step.WAIT if life.is_stopping and plan.wake_at_ns is not None:
                at_ns = min(plan.wake_at_ns, max(world.now_ns + 1, life.last_connection_ends_ns))
                world.after(at_ns - world.now_ns, partial(self._traffic, life))

    def _forget(self, life: SimulatedTask) -> None:
        """End a task that the manager no longer knows, then drop it."""
        life.task = replace(life.task, desired=TaskState.REMOVE)
        if life.has_process:
            self._follow(life)
        else:
            life.state = max(life.state, TaskState.SHUTDOWN)
            del self.lives[life.task.id]

    # -- reporting

    def _report(self, life: SimulatedTask) -> None:
        """Send the present state; come back later to see whether it arrived."""
        random = self.world.random
        life.changed_at_ns = self.world.now_ns
        report = Report(
            state=life.state,
            message=MESSAGES.get(life.state, ""),
            err=life.err,
            exit_code=life.exit_code,
            timestamp_ns=self.world.now_ns,
        )
        if random.random() >= self.noise:
            self.world.after(random.randrange(50_000_000), partial(self._deliver, life, report))
        if random.random() < self.noise:
            self.world.after(random.randrange(5 * NS_PER_SECOND), partial(self._deliver, life, report))
        self.world.after(RETRY_NS, partial(self._repeat, life, report.state))

    def _deliver(self, life: SimulatedTask, report: Report) -> None:
        if self.is_connected and not self.is_gone and self.world.manager.take_in(life.task.id, report):
            life.reported = max(life.reported, report.state)

    def _repeat(self, life: SimulatedTask, state: TaskState) -> None:
        if life.state is state and life.reported < state and life.task.id in self.lives and self.is_connected:
            self._report(life)
