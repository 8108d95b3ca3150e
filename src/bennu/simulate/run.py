"""Running seeds: many small histories, or one large cluster."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass

from bennu.orchestration.model.nouns import Node, NodeId, NodeResources, ServiceId
from bennu.orchestration.model.revisions import create_service
from bennu.orchestration.model.spec import Replicated, Reservation, ServiceSpec, TaskSpec
from bennu.orchestration.model.states import NS_PER_SECOND, TaskState
from bennu.simulate.play import Play
from bennu.simulate.scenario import Scenario


class SeedFailed(AssertionError):
    """The error of a seed that broke a law; the message holds the command that replays it."""

    def __init__(self, seed: int, error: BaseException) -> None:
        super().__init__(f"seed {seed}: {error}\nreplay: python -m bennu.simulate --seed {seed}")
        self.seed = seed


@dataclass(slots=True)
class Totals:
    seeds: int = 0
    events: int = 0
    looks: int = 0
    checks: int = 0
    tasks: int = 0
    manager_lives: int = 0


def run_seed(seed: int, *, verbose: bool = False) -> Play:
    """Play one history. Raises SeedFailed, from the broken law or the core's own error."""
    try:
        return Scenario(seed, verbose=verbose).run()
    except Exception as error:
        raise SeedFailed(seed, error) from error


def run_seeds(seeds: Iterable[int]) -> Totals:
    """Play many histories; stop at the first that fails."""
    totals = Totals()
    for seed in seeds:
        world = run_seed(seed)
        totals.seeds += 1
        totals.events += world.steps
        totals.looks += world.manager.looks
        totals.checks += world.laws.checks
        totals.tasks += int(world.new_task_id()[1:]) - 1
        totals.manager_lives += world.manager.life
    return totals


@dataclass(slots=True)
class ClusterReport:
    nodes: int
    services: int
    tasks: int
    steady_cpu_s: float  # CPU seconds of core and simulator until all tasks run
    core_cpu_s: float  # of these, the core
    looks: int
    decisions: int
    peak_mb: float  # the most memory the process has held
    one_failure_ms: float  # CPU milliseconds of the core to replace one failed task


def run_cluster(*, nodes: int, services: int, replicas: int, seed: int = 1) -> ClusterReport:
    """Bring a large cluster up on the virtual clock, then kill one task, and measure what it costs."""
    world = Play(seed)
    for number in range(nodes):
        node = Node(id=NodeId(f"n{number:05d}"), resources=NodeResources(64_000_000_000, 256 << 30))
        world.add_node(node)
    began = time.process_time()
    for number in range(services):
        service_id = ServiceId(f"s{number:04d}")
        task = TaskSpec(container=b"good#1", reservation=Reservation(100_000_000, 64 << 20))
        spec = ServiceSpec(name=service_id, mode=Replicated(replicas), task=task)
        world.manager.change_service(create_service(service_id, spec, now_ns=world.manager.now_ns), service_id)
    world.run_until(world.now_ns + 10 * NS_PER_SECOND)
    steady_s = time.process_time() - began
    running = sum(task.state is TaskState.RUNNING for task in world.tasks.values())
    if running != services * replicas:
        raise AssertionError(f"{running} of {services * replicas} tasks run")
    manager = world.manager
    return ClusterReport(
        nodes=nodes,
        services=services,
        tasks=running,
        steady_cpu_s=steady_s,
        core_cpu_s=manager.core_s,
        looks=manager.looks,
        decisions=manager.decisions,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        one_failure_ms=_replace_one(world),
    )


def _replace_one(world: Play) -> float:
    """Kill one task and let its service settle: what one failure costs, in milliseconds of CPU time.

    Only the core is timed: the looks at the one service that is concerned.
    """
    life = next(life for agent in world.agents.values() for life in agent.lives.values() if life.has_process)
    manager = world.manager
    world.agents[life.task.node_id or NodeId("")].kill(life)
    before = manager.core_s
    world.run_until(world.now_ns + 8 * NS_PER_SECOND)
    return (manager.core_s - before) * 1000
