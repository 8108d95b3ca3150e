"""The events of one run: a small cluster, services, and a timeline of people and misfortune, all drawn from the seed.

For `TROUBLE_S` seconds things happen; then every fault ends, and the world gets `QUIET_S` seconds to become as wished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from bennu.errors import BennuError
from bennu.orchestration.model.nouns import Node, NodeId, NodeResources, Service, ServiceId
from bennu.orchestration.model.revisions import accept_rollback, accept_update, create_service
from bennu.orchestration.model.spec import (
    BlueGreen,
    Canary,
    CanaryStep,
    EndpointSpec,
    Global,
    GlobalJob,
    Mode,
    Placement,
    PortSpec,
    Replicated,
    ReplicatedJob,
    Reservation,
    Rolling,
    ServiceSpec,
    Strategy,
    TaskRestartPolicy,
    TaskSpec,
    UpdateConfig,
)
from bennu.orchestration.model.states import (
    NS_PER_SECOND,
    Availability,
    FailureAction,
    PublishMode,
    RestartCondition,
    UpdateOrder,
)
from bennu.orchestration.rollout.commands import abort_rollout, pause_rollout, promote_rollout, resume_rollout
from bennu.simulate.play import Play
from bennu.simulate.programs import PROGRAMS

TROUBLE_S = 45
QUIET_S = 200

T = TypeVar("T")


class Scenario:
    """One drawn history. `run` plays it to the end and checks the laws."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.world = Play(seed, verbose=verbose)
        self.random = self.world.random
        self.release = 0
        self.world.manager.history_limit = self._pick(5, 5, 5, 0, 1, -1)
        noise = self._pick(0.0, 0.05, 0.3)
        for number in range(1, self.random.randint(1, 4) + 1):
            self._add_node(NodeId(f"n{number}"), noise)

    def run(self) -> Play:
        world = self.world
        begin = world.now_ns
        for number in range(1, self._pick(1, 1, 2) + 1):
            self._create(ServiceId(f"s{number}"))
        for _ in range(self.random.randint(1, 7)):
            world.after(int(self.random.uniform(0, TROUBLE_S) * NS_PER_SECOND), partial(self._something, self._event()))
        world.run_until(begin + TROUBLE_S * NS_PER_SECOND)
        self._make_peace()
        world.run_until(begin + (TROUBLE_S + QUIET_S) * NS_PER_SECOND)
        world.laws.at_the_end()
        return world

    # -- drawing

    def _pick(self, *choices: T) -> T:
        return choices[self.random.randrange(len(choices))]

    def _add_node(self, node_id: NodeId, noise: float) -> None:
        node = Node(
            id=node_id,
            hostname=f"host-{node_id}",
            labels={"dc": self._pick("a", "b")},
            resources=NodeResources(4_000_000_000, 4 << 30, {"gpu": frozenset({"g1", "g2"})}),
        )
        self.world.add_node(node, noise=noise)

    def _mode(self) -> Mode:
        kind = self.random.random()
        if kind < 0.72:
            return Replicated(self.random.randint(0, 4))
        if kind < 0.88:
            return Global()
        if kind < 0.96:
            return ReplicatedJob(self.random.randint(1, 2), self.random.randint(1, 4))
        return GlobalJob()

    def _task(self, *, is_job: bool) -> TaskSpec:
        self.release += 1
        # Jobs keep their whole history: without a delay a failing one would be nothing but history.
        soonest = 1 if is_job else 0
        programs = ("good", "good", "good", "good", "slow", "stubborn", *PROGRAMS)
        return TaskSpec(
            container=f"{self._pick(*programs)}#{self.release}".encode(),
            restart=self._pick(None, self._restart(soonest), self._restart(soonest)),
            placement=Placement(
                constraints=self._pick((), (), (), ("node.labels.dc==a",), ("node.labels.dc!=a",)),
                spread=self._pick((), ("node.labels.dc",)),
                max_replicas=self._pick(0, 0, 0, 1, 2),
            ),
            reservation=Reservation(
                self._pick(0, 0, 500_000_000, 1_500_000_000), generic=self._pick((), (), (("gpu", 1),))
            ),
        )

    def _restart(self, soonest: int) -> TaskRestartPolicy:
        return TaskRestartPolicy(
            condition=self._pick(*RestartCondition, RestartCondition.ANY, RestartCondition.ON_FAILURE),
            delay_ns=self._pick(soonest, 1, 3, 5, 5, 8) * NS_PER_SECOND,
            max_attempts=self._pick(0, 0, 1, 2, 3),
            window_ns=self._pick(0, 0, 10, 30) * NS_PER_SECOND,
        )

    def _config(self) -> UpdateConfig | None:
        if self.random.random() < 0.2:
            return None
        return UpdateConfig(
            parallelism=self._pick(1, 1, 2, 3, 0),
            delay_ns=self._pick(0, 0, 1, 6) * NS_PER_SECOND,
            failure_action=self._pick(*FailureAction),
            monitor_ns=self._pick(1, 5, 8) * NS_PER_SECOND,
            max_failure_ratio=self._pick(0.0, 0.0, 0.3, 0.5),
            order=self._pick(*UpdateOrder),
        )

    def _strategy(self) -> Strategy:
        kind = self.random.random()
        if kind < 0.7:
            return Rolling()
        if kind < 0.85:
            watch_ns = 5 * NS_PER_SECOND
            return Canary((CanaryStep(tasks=1, watch_ns=watch_ns), CanaryStep(percent=50, watch_ns=watch_ns)))
        return BlueGreen(2 * NS_PER_SECOND, 10 * NS_PER_SECOND, 60 * NS_PER_SECOND)

    def _endpoint(self) -> EndpointSpec | None:
        return self._pick(None, None, EndpointSpec(ports=(PortSpec(80, 8080, mode=PublishMode.HOST),)))

    # -- people

    def _create(self, service_id: ServiceId) -> None:
        mode = self._mode()
        is_job = isinstance(mode, ReplicatedJob | GlobalJob)
        spec = ServiceSpec(
            name=service_id,
            mode=mode,
            task=self._task(is_job=is_job),
            update=None if is_job else self._config(),
            rollback=None if is_job else self._config(),
            endpoint=self._endpoint() if service_id == "s1" else None,
            strategy=Rolling() if is_job else self._strategy(),
        )
        service = create_service(service_id, spec, now_ns=self.world.manager.now_ns)
        self.world.say(f"person creates {spec}")
        self.world.manager.change_service(service, service_id)

    def _event(self) -> Callable[[], None]:
        return self._pick(
            self._update,
            self._update,
            self._update,
            self._scale,
            self._rollback,
            self._force,
            self._verb,
            self._availability,
            self._relabel,
            self._remove,
            self._kill_one,
            self._kill_one,
            self._cut_off,
            self._cut_off,
            self._crash,
            self._kill_manager,
            self._kill_manager,
            self._kill_manager,
            self._lose_node,
        )

    def _something(self, event: Callable[[], None]) -> None:
        """Let a person do something. People need a manager; without one they come back later."""
        if not self.world.manager.is_alive:
            self.world.after(NS_PER_SECOND, partial(self._something, event))
            return
        try:
            event()
        except BennuError as refusal:
            self.world.say(f"refused: {refusal}")

    def _any_service(self) -> Service | None:
        services = list(self.world.services.values())
        return self._pick(*services) if services else None

    def _change(self, change: Callable[[Service, int], Service]) -> None:
        service = self._any_service()
        if service is None:
            return
        changed = change(service, self.world.manager.now_ns)
        self.world.say(f"person changes {service.id}: {changed.spec} {changed.update_status}")
        self.world.manager.change_service(changed, service.id)

    def _updated(self, service: Service, spec: ServiceSpec, now_ns: int) -> Service:
        self.release += 1
        return accept_update(service, spec, version=self.release, now_ns=now_ns)

    def _update(self) -> None:
        def change(service: Service, now_ns: int) -> Service:
            spec = replace(service.spec, task=self._task(is_job=service.is_job))
            if not service.is_job and self.random.random() < 0.3:
                spec = replace(spec, update=self._config(), rollback=self._config())
            return self._updated(service, spec, now_ns)

        self._change(change)

    def _scale(self) -> None:
        def change(service: Service, now_ns: int) -> Service:
            if not isinstance(service.spec.mode, Replicated):
                return service
            spec = replace(service.spec, mode=Replicated(self.random.randint(0, 5)))
            return self._updated(service, spec, now_ns)

        self._change(change)

    def _force(self) -> None:
        def change(service: Service, now_ns: int) -> Service:
            task = replace(service.spec.task, force_update=service.spec.task.force_update + 1)
            return self._updated(service, replace(service.spec, task=task), now_ns)

        self._change(change)

    def _rollback(self) -> None:
        self._change(lambda service, now_ns: accept_rollback(service, now_ns=now_ns))

    def _verb(self) -> None:
        verb = self._pick(pause_rollout, resume_rollout, promote_rollout, abort_rollout)
        self._change(lambda service, now_ns: verb(service, now_ns=now_ns))

    def _remove(self) -> None:
        service = self._any_service()
        if service is not None and self.random.random() < 0.5:
            self.world.say(f"person removes {service.id}")
            self.world.manager.change_service(None, service.id)

    # -- nodes and misfortune

    def _any_node(self) -> NodeId | None:
        nodes = list(self.world.nodes)
        return self._pick(*nodes) if nodes else None

    def _availability(self) -> None:
        node_id = self._any_node()
        if node_id is not None:
            availability = self._pick(*Availability)
            self.world.say(f"person sets {node_id} to {availability}")
            self.world.manager.change_node(node_id, availability=availability)
            back = partial(self._set_active, node_id)
            self.world.after(int(self.random.uniform(1, 60) * NS_PER_SECOND), partial(self._something, back))

    def _set_active(self, node_id: NodeId) -> None:
        if node_id in self.world.nodes:
            self.world.say(f"person sets {node_id} to active")
            self.world.manager.change_node(node_id, availability=Availability.ACTIVE)

    def _relabel(self) -> None:
        node_id = self._any_node()
        if node_id is not None:
            labels = {"dc": self._pick("a", "b", "c")}
            self.world.say(f"person labels {node_id} {labels}")
            self.world.manager.change_node(node_id, labels=labels)

    def _lose_node(self) -> None:
        node_id = self._any_node()
        if node_id is not None and len(self.world.nodes) > 1:
            self.world.say(f"person removes node {node_id}")
            self.world.remove_node(node_id)

    def _kill_one(self) -> None:
        lives = [life for agent in self.world.agents.values() for life in agent.lives.values() if life.has_process]
        if lives:
            life = self._pick(*lives)
            self.world.say(f"{life.task.id} is killed")
            self.world.agents[life.task.node_id or NodeId("")].kill(life)

    def _cut_off(self) -> None:
        node_id = self._any_node()
        if node_id is not None and self.world.agents[node_id].is_connected:
            self.world.agents[node_id].disconnect(int(self.random.uniform(0.5, 40) * NS_PER_SECOND))

    def _crash(self) -> None:
        node_id = self._any_node()
        if node_id is not None and self.world.agents[node_id].is_connected:
            self.world.agents[node_id].crash(int(self.random.uniform(5, 40) * NS_PER_SECOND))

    def _kill_manager(self) -> None:
        """Kill the manager between any two of the next actions; the wall clock may have been set meanwhile."""
        self.world.manager.dies_after = self.random.randrange(6)
        self.world.wall_offset_ns += self._pick(0, 0, -3600, 3600, -1, 30) * NS_PER_SECOND

    def _make_peace(self) -> None:
        """End all faults: messages arrive, managers live, nodes come back."""
        world = self.world
        world.say("peace")
        world.manager.dies_after = None
        for agent in world.agents.values():
            agent.noise = 0.0
