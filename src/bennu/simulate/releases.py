"""Releases, good and bad, rolled out under every strategy: the outcome of each, and the harm it did on the way.

A service of good tasks is updated to another program while managers die; the history ends when the rollout does. Laws
are checked on every step, as in every simulation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bennu.orchestration.model.nouns import Node, NodeId, NodeResources, ServiceId
from bennu.orchestration.model.revisions import accept_update, create_service
from bennu.orchestration.model.spec import Replicated, Rolling, ServiceSpec, Strategy, TaskSpec, UpdateConfig
from bennu.orchestration.model.states import NS_PER_SECOND, UpdateState
from bennu.simulate.play import Play

SETTLED_S = 30
GIVEN_UP_S = 900
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Release:
    """A release to play; `before` and `after` name programs of `programs.py`."""

    after: str
    before: str = "good"
    replicas: int = 5
    strategy: Strategy = field(default_factory=Rolling)
    config: UpdateConfig = field(default_factory=UpdateConfig)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a release.

    `state` is UPDATING if the rollout still waits after `GIVEN_UP_S`. Counts are of slots that serve.
    """

    state: UpdateState
    message: str
    most_new: int  # the most of the new version at one time
    fewest: int  # the fewest of both at one time


def play_release(release: Release, seed: int) -> Outcome:
    """Play a release and measure its outcome. Raises: LawBroken."""
    world = Play(seed)
    for number in range(1, 4):
        node = Node(id=NodeId(f"n{number}"), resources=NodeResources(8_000_000_000, 8 << 30))
        world.add_node(node)
    service_id = ServiceId("web")
    spec = ServiceSpec(
        name="web",
        mode=Replicated(release.replicas),
        task=TaskSpec(container=f"{release.before}#1".encode()),
        update=release.config,
        strategy=release.strategy,
    )
    world.manager.change_service(create_service(service_id, spec, now_ns=world.manager.now_ns), service_id)
    _pass(world, SETTLED_S)
    updated = _with_program(spec, release.after)
    service = accept_update(world.services[service_id], updated, version=1, now_ns=world.manager.now_ns)
    world.manager.change_service(service, service_id)
    return _follow(world, service_id, release)


def _with_program(spec: ServiceSpec, program: str) -> ServiceSpec:
    return replace(spec, task=replace(spec.task, container=f"{program}#2".encode()))


def _pass(world: Play, seconds: float) -> None:
    world.run_until(world.now_ns + int(seconds * NS_PER_SECOND))


def _follow(world: Play, service_id: ServiceId, release: Release) -> Outcome:
    most_new, fewest = 0, release.replicas
    for _ in range(int(GIVEN_UP_S / LOOK_S)):
        if world.manager.is_alive and world.random.random() < 0.02:
            world.manager.dies_after = world.random.randrange(4)
        _pass(world, LOOK_S)
        serving = {task.slot: task for task in world.tasks_of(service_id) if task.is_running}
        new = sum(task.spec.container.endswith(b"#2") for task in serving.values())
        most_new, fewest = max(most_new, new), min(fewest, len(serving))
        status = world.services[service_id].update_status
        if status is not None and not status.state.is_under_way:
            break
    status = world.services[service_id].update_status
    assert status is not None, "the update never began"
    return Outcome(status.state, status.message, most_new, fewest)
