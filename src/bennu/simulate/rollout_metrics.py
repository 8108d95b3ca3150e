"""Rollout metrics of a simulation: it looks once a second at the tasks of watched rollouts, as the real one does.

Its observations survive every death of a manager, because the real one writes them down.
"""

from __future__ import annotations

from bennu.orchestration.model.config import is_under_watch
from bennu.orchestration.model.nouns import Rollout, Service, ServiceId, Task
from bennu.orchestration.model.states import NS_PER_SECOND
from bennu.orchestration.rollout.canary_analysis import Evidence
from bennu.orchestration.rollout.task_metrics import (
    ReadinessProbe,
    Sample,
    TaskMetrics,
    add_sample,
    build_evidence,
    died_by_itself,
    watched_ns,
)
from bennu.orchestration.rollout.watched_run import is_of_rollout
from bennu.simulate.programs import draw
from bennu.simulate.world import World

LOOK_EVERY_NS = NS_PER_SECOND


class SimulatedMetrics:
    def __init__(self, world: World) -> None:
        self.world = world
        self._buffers: dict[ServiceId, tuple[int, dict[str, TaskMetrics]]] = {}
        self._look()

    def _look(self) -> None:
        for service in list(self.world.services.values()):
            if service.rollout is not None and is_under_watch(service):
                self._look_at(service, service.rollout)
                self.world.manager.note(service.id)
        self.world.after(LOOK_EVERY_NS, self._look)

    def _look_at(self, service: Service, rollout: Rollout) -> None:
        metrics_by_task = self._metrics_of(service, rollout)
        self._buffers[service.id] = (rollout.began_at_ns, metrics_by_task)
        for task in self.world.tasks_of(service.id):
            new = TaskMetrics(is_new=is_of_rollout(service, rollout, task))
            metrics_by_task[task.id] = add_sample(metrics_by_task.get(task.id, new), self._sample(rollout, task))

    def _metrics_of(self, service: Service, rollout: Rollout) -> dict[str, TaskMetrics]:
        began_at_ns, metrics_by_task = self._buffers.get(service.id, (0, {}))
        return metrics_by_task if began_at_ns == rollout.began_at_ns else {}

    def _sample(self, rollout: Rollout, task: Task) -> Sample:
        world = self.world
        agent = world.agents.get(task.node_id) if task.node_id else None
        life = agent.lives.get(task.id) if agent else None
        answers = life is not None and life.has_process and life.is_ready is not None
        probe = (
            ReadinessProbe(f"{world.now_ns:020}", draw(world.random, life.program.answers))
            if life and answers
            else None
        )
        return Sample(
            died=died_by_itself(rollout, task),
            watched_ns=watched_ns(rollout, task, now_ns=world.manager.now_ns),
            was_oom_killed=life is not None and life.program.is_oom and task.has_ended,
            is_ready=life.is_ready if life is not None and life.has_process else None,
            probes=(probe,) if probe else (),
        )

    def build_evidence(self, service: Service, tasks: list[Task], *, now_ns: int) -> Evidence | None:
        if service.rollout is None or not is_under_watch(service):
            return None
        metrics_by_task = self._metrics_of(service, service.rollout)
        return build_evidence(service, service.rollout, tasks, metrics_by_task, now_ns=now_ns)
