"""The shipped core under seeded faults: the design's laws hold on every step of every history."""

import os
from dataclasses import replace

import pytest

from bennu.orchestration.model.actions import CreateTask, Plan, SetDesired
from bennu.orchestration.model.nouns import ServiceId, Task
from bennu.orchestration.model.revisions import create_service
from bennu.orchestration.model.spec import ServiceSpec, TaskRestartPolicy, TaskSpec
from bennu.orchestration.model.states import NS_PER_SECOND, Origin, TaskState
from bennu.simulate.laws import LawBroken
from bennu.simulate.play import Play
from bennu.simulate.run import SeedFailed, run_cluster, run_seed, run_seeds
from bennu.simulate.scenario import Scenario

SEEDS = int(os.environ.get("BENNU_SEEDS", "1000"))
SLICES = 10


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_the_laws_hold_whatever_happens(part: int) -> None:
    totals = run_seeds(range(part, SEEDS, SLICES))
    assert totals.seeds == len(range(part, SEEDS, SLICES))
    assert totals.checks > 100 * totals.seeds
    assert totals.manager_lives > totals.seeds


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_the_laws_hold_over_100_000_histories() -> None:
    assert run_seeds(range(100_000)).seeds == 100_000


def test_a_seed_is_a_history() -> None:
    first, second = run_seed(11), run_seed(11)
    assert list(first.tasks.values()) == list(second.tasks.values())
    assert first.steps == second.steps


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(5013, id="a node goes down in the look that stops an old task elsewhere"),
        pytest.param(88755, id="a node is drained in the look that stops an old task elsewhere"),
        pytest.param(86609, id="a successor is dropped unstarted, for its predecessor is heard again"),
        pytest.param(6138, id="the node of a global canary is paused"),
        pytest.param(
            23025, id="the manager dies between a successor of the version before and the end of its predecessor"
        ),
    ],
)
def test_histories_that_once_broke_a_law(seed: int) -> None:
    run_seed(seed)


def test_a_failing_seed_says_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Scenario) -> Play:
        raise LawBroken(3, "two of them")

    monkeypatch.setattr(Scenario, "run", broken)
    with pytest.raises(SeedFailed, match=r"seed 5: law 3: two of them\nreplay: python -m bennu.simulate --seed 5"):
        run_seed(5)


@pytest.mark.slow
def test_a_cluster_of_100_nodes_gets_to_steady_state() -> None:
    report = run_cluster(nodes=100, services=4, replicas=250)
    assert report.tasks == 1000


# -- the checker itself: each law, broken by hand, is noticed


def a_world() -> Play:
    world = Scenario(0).world
    spec = ServiceSpec(name="web", task=TaskSpec(b"good#1", TaskRestartPolicy(max_attempts=1)))
    world.put_service(create_service(ServiceId("web"), spec, now_ns=0))
    return world


def make(world: Play, **fields: object) -> Task:
    action = CreateTask(1, "by hand", **fields)  # type: ignore[arg-type]
    world.manager.do(action, ServiceId("web"))
    task = list(world.tasks.values())[-1]
    node_id = next(iter(world.nodes))
    world.put_task(replace(task, node_id=node_id, status=replace(task.status, state=TaskState.RUNNING)))
    return world.tasks[task.id]


def breaks(law: int) -> "pytest.RaisesExc[LawBroken]":
    return pytest.raises(LawBroken, match=f"law {law}:")


def test_a_second_live_task_in_a_slot_is_noticed() -> None:
    world = a_world()
    make(world)
    second = make(world, desired=TaskState.READY)
    with breaks(3):
        world.laws.on_desired(second, SetDesired(second.id, TaskState.RUNNING, "by hand"), second.created_at_ns)


def test_a_start_before_the_delay_is_noticed() -> None:
    world = a_world()
    first = make(world)
    world.put_task(replace(first, status=replace(first.status, state=TaskState.FAILED)))
    second = make(world, desired=TaskState.READY, origin=Origin.RESTART)
    early = second.created_at_ns + 4 * NS_PER_SECOND
    with breaks(6):
        world.laws.on_desired(second, SetDesired(second.id, TaskState.RUNNING, "by hand"), early)


def test_an_attempt_too_many_is_noticed() -> None:
    world = a_world()
    for _ in range(2):
        task = make(world, desired=TaskState.READY, **({"origin": Origin.RESTART} if world.tasks else {}))
        world.put_task(replace(task, status=replace(task.status, state=TaskState.FAILED)))
    with breaks(6):
        make(world, desired=TaskState.READY, origin=Origin.RESTART)


def test_a_state_that_falls_is_noticed() -> None:
    world = a_world()
    task = make(world)
    with breaks(1):
        world.put_task(replace(task, status=replace(task.status, state=TaskState.READY)))
    with breaks(2):
        world.put_task(replace(task, desired=TaskState.READY))


def test_a_stopped_task_that_starts_is_noticed() -> None:
    world = a_world()
    task = replace(make(world), desired=TaskState.SHUTDOWN)
    with breaks(2):
        world.laws.on_process_start(task)


def test_an_early_signal_and_an_early_entry_are_noticed() -> None:
    laws = a_world().laws
    with breaks(5):
        laws.on_signal(False, 0, 5 * NS_PER_SECOND, 2 * NS_PER_SECOND)
    with breaks(5):
        laws.on_enter(TaskState.STARTING, is_stopping=False, is_ready=True)


def test_silence_about_an_empty_slot_is_noticed() -> None:
    world = a_world()
    task = make(world)
    world.put_task(replace(task, status=replace(task.status, state=TaskState.FAILED)))
    world.manager.plans[ServiceId("web")] = Plan()
    with breaks(7):
        world.laws._reached_or_explained(ServiceId("web"))
