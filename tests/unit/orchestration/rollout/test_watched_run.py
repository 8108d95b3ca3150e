"""Canary and blue/green: their gates, their judges, and their verdicts in words."""

import random
from itertools import accumulate

import pytest
from orchestration.stage import S, Stage, a_node, a_spec

from bennu.errors import Conflict
from bennu.orchestration.model.spec import BlueGreen, Canary, CanaryStep, Global, UpdateConfig
from bennu.orchestration.model.states import Availability, TaskState, UpdateOrder, UpdateState
from bennu.orchestration.rollout.blue_green import may_serve
from bennu.orchestration.rollout.canary import step_target
from bennu.orchestration.rollout.canary_analysis import (
    Cohort,
    Evidence,
    Ruling,
    binomial_tail,
    chance_of_ever,
    judge_cohorts,
)
from bennu.orchestration.rollout.commands import abort_rollout, pause_rollout, promote_rollout, resume_rollout

U = UpdateState
CANARY = Canary((CanaryStep(tasks=1, watch_ns=30 * S), CanaryStep(percent=50, watch_ns=30 * S)))


def a_stage(strategy: Canary | BlueGreen, replicas: int = 4, **fields: object) -> Stage:
    stage = Stage(a_spec(replicas, strategy=strategy, **fields), [a_node("n1"), a_node("n2")])
    stage.advance(60)
    assert len(stage.running()) == replicas
    return stage


def new_ones(stage: Stage, image: bytes = b"v2") -> int:
    return list(stage.images().values()).count(image)


def test_a_canary_goes_step_by_step_and_then_the_rest_follows() -> None:
    stage = a_stage(CANARY)
    stage.update_image(b"v2")
    stage.advance(30)
    assert new_ones(stage) == 1
    stage.advance(5)
    assert new_ones(stage) == 2
    assert stage.service.rollout is not None
    assert "1 task of the new version ran for" in stage.service.rollout.verdict
    stage.advance(60)
    assert (new_ones(stage), stage.state()) == (4, U.COMPLETED)


def test_a_canary_that_dies_at_once_is_rolled_back_with_the_reason() -> None:
    stage = a_stage(CANARY)
    stage.update_image(b"crash")
    stage.advance(60)
    assert new_ones(stage, b"v1") == 4
    assert stage.state() is U.ROLLBACK_COMPLETED
    assert any("the new version died" in action.reason for _, action in stage.history)


def test_a_canary_that_never_gets_ready_is_rolled_back_after_its_time() -> None:
    stage = a_stage(Canary(CANARY.steps, ready_within_ns=40 * S))
    stage.update_image(b"hang")
    stage.advance(39)
    assert stage.state() is U.UPDATING
    stage.advance(2)
    assert stage.message() == "update rolled back: canary: 0 of 1 slots of the new version were ready within 40 s"
    stage.advance(60)
    assert new_ones(stage, b"v1") == 4


def test_measured_evidence_condemns_a_slow_canary() -> None:
    stage = a_stage(CANARY)
    stage.update_image(b"v2")
    stage.advance(10)
    stage.evidence = Evidence(
        stable=Cohort(tasks=3, watched_ns=30 * S, probes=100, probe_p95_ns=20_000_000),
        canary=Cohort(tasks=1, watched_ns=10 * S, probes=100, probe_p95_ns=90_000_000),
    )
    stage.settle()
    assert "answers its probes in 90.0 ms (95 %), the old one in 20.0 ms" in stage.message()


def test_what_dies_or_is_added_while_a_canary_is_watched_is_of_the_old_version() -> None:
    stage = a_stage(CANARY)
    stage.update_image(b"v2")
    stage.advance(3)
    canary = next(slot for slot, image in stage.images().items() if image == b"v2")
    for slot in {1, 2, 3, 4} - {canary}:
        stage.fail_slot(slot)
    stage.scale(6)
    stage.advance(12)
    assert (stage.images().pop(canary), new_ones(stage), len(stage.running())) == (b"v2", 1, 6)
    stage.fail_slot(canary)
    stage.advance(8)
    assert new_ones(stage) == 1, "the canary itself comes back as what it was"
    stage.advance(90)
    assert (new_ones(stage), stage.state()) == (6, U.COMPLETED)


def test_a_canary_on_a_node_that_is_paused_is_still_the_canary() -> None:
    stage = Stage(a_spec(mode=Global(), strategy=CANARY), [a_node(f"n{number}") for number in (1, 2, 3, 4)])
    stage.advance(60)
    stage.update_image(b"v2")

    def on_trial() -> list[str | None]:
        return [task.node_id for task in stage.tasks.values() if task.is_running and task.spec.container == b"v2"]

    stage.advance(5)
    (canary,) = on_trial()
    stage.set_node(str(canary), availability=Availability.PAUSE)
    stage.advance(20)
    assert on_trial() == [canary]
    stage.advance(15)
    assert len(on_trial()) == 2, "the second step asks for half of all four"
    for number in (1, 2, 3, 4):
        stage.set_node(f"n{number}", availability=Availability.PAUSE)
    stage.advance(40)
    assert (len(on_trial()), stage.state()) == (2, U.COMPLETED), "no rollout waits for nodes that take nothing new"


def test_step_targets() -> None:
    assert [
        step_target(CanaryStep(tasks=t, percent=p), 10) for t, p in ((0, 0), (3, 0), (0, 25), (1, 100), (20, 0))
    ] == [
        1,
        3,
        3,
        10,
        10,
    ]


@pytest.mark.parametrize(
    ("canary", "stable", "ruling"),
    [
        pytest.param(Cohort(deaths=0), Cohort(), Ruling.GOOD, id="nothing-happened"),
        pytest.param(Cohort(1, 10 * S, deaths=1), Cohort(9, 90 * S), Ruling.GOOD, id="one-death-proves-nothing"),
        pytest.param(Cohort(1, 10 * S, deaths=2), Cohort(9, 90 * S), Ruling.BAD, id="two-among-ten-do"),
        pytest.param(Cohort(1, 10 * S, deaths=2), Cohort(9, 90 * S, deaths=20), Ruling.GOOD, id="the-old-one-dies-too"),
        pytest.param(
            Cohort(connections=1000, connection_failures=50), Cohort(connections=9000), Ruling.BAD, id="connections"
        ),
        pytest.param(
            Cohort(connections=10**6, connection_failures=100),
            Cohort(connections=9 * 10**6, connection_failures=900),
            Ruling.GOOD,
            id="alike-at-scale",
        ),
        pytest.param(Cohort(1, S, health_flaps=3), Cohort(3, 30 * S), Ruling.BAD, id="health"),
    ],
)
def test_verdicts(canary: Cohort, stable: Cohort, ruling: Ruling) -> None:
    verdict = judge_cohorts(Evidence(stable, canary), confidence=0.95, slower_by=1.5)
    assert verdict.ruling is ruling, verdict.reason


def test_the_tail_sums_to_1_and_the_normal_curve_continues_it() -> None:
    assert binomial_tail(0, 5, 0.3) == 1
    assert binomial_tail(2, 2, 0.5) == 0.25
    exact, approximate = binomial_tail(60, 500, 0.1), binomial_tail(60, 501, 0.1)
    assert abs(exact - approximate) < 0.02


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_who_looks_at_every_event_blames_a_good_release_as_seldom_as_promised(share: float) -> None:
    """1,000 releases exactly as good as what they replace, with 100 chance deaths each, and a look after every one."""
    dice, alarms = random.Random(7), 0
    for _ in range(1000):
        hits = list(accumulate(dice.random() < share for _ in range(100)))
        alarms += any(chance_of_ever(one, trials, share) <= 0.05 for trials, one in enumerate(hits, start=1))
    assert alarms <= 50


@pytest.mark.parametrize(("share", "needed"), [(0.5, 7), (1 / 3, 4), (0.2, 3), (0.1, 2), (0.01, 1)])
def test_so_many_deaths_of_the_canary_alone_condemn_it(share: float, needed: int) -> None:
    assert chance_of_ever(needed, needed, share) <= 0.05
    assert chance_of_ever(needed - 1, needed - 1, share) > 0.05


def test_the_chance_of_ever_is_never_below_that_of_now() -> None:
    for share in (0.05, 0.3, 0.5, 0.9):
        for trials in range(1, 60):
            for hits in range(trials + 1):
                assert chance_of_ever(hits, trials, share) >= binomial_tail(hits, trials, share) * 0.999
    assert chance_of_ever(3, 3, 0.0) == 0
    assert 0 < chance_of_ever(500, 2000, 0.1) < 1e-6


def blue_green(**fields: int) -> BlueGreen:
    return BlueGreen(settle_ns=5 * S, keep_warm_ns=fields.get("warm", 60) * S, ready_within_ns=40 * S)


def serving(stage: Stage) -> set[bytes]:
    return {t.spec.container for t in stage.tasks.values() if t.is_running and may_serve(stage.service, t)}


def test_blue_green_switches_once_and_keeps_the_old_warm() -> None:
    stage = a_stage(blue_green())
    stage.update_image(b"v2")
    stage.advance(5)
    assert len([task for task in stage.tasks.values() if task.is_running]) == 8
    assert serving(stage) == {b"v1"}
    stage.advance(1)
    assert serving(stage) == {b"v2"}
    stage.advance(59)
    assert len([task for task in stage.tasks.values() if task.is_running]) == 8
    stage.advance(20)
    assert (stage.images(), stage.state()) == (dict.fromkeys((1, 2, 3, 4), b"v2"), U.COMPLETED)


def test_going_back_from_a_switch_is_one_switch() -> None:
    stage = a_stage(blue_green())
    before = {task.id for task in stage.tasks.values()}
    stage.update_image(b"v2")
    stage.advance(10)
    assert serving(stage) == {b"v2"}
    stage.change(lambda service: abort_rollout(service, now_ns=stage.now_ns))
    stage.advance(0.1)
    assert b"v1" in serving(stage)
    stage.advance(60)
    assert {task.id for task in stage.tasks.values() if task.is_running} == before


def test_a_green_task_that_dies_before_the_switch_ends_the_rollout() -> None:
    stage = a_stage(blue_green())
    stage.update_image(b"crash")
    stage.advance(5)
    assert any("of the new version ended before the switch" in action.reason for _, action in stage.history)
    assert stage.state() is U.ROLLBACK_COMPLETED
    assert set(stage.images().values()) == {b"v1"}


def test_green_tasks_that_do_not_get_ready_in_time_end_the_rollout() -> None:
    stage = a_stage(blue_green())
    stage.update_image(b"hang")
    stage.advance(41)
    assert "was not ready within 40 s" in stage.message()


def test_a_blue_task_that_dies_meanwhile_gets_no_third_beside() -> None:
    stage = a_stage(blue_green())
    stage.update_image(b"v2")
    stage.advance(10)
    stage.fail(next(task.id for task in stage.tasks.values() if task.slot == 1 and task.spec.container == b"v1"))
    stage.settle()
    assert len(stage.live(1)) == 1


def test_promotion_by_a_person_ends_the_watching() -> None:
    stage = a_stage(CANARY)
    with pytest.raises(Conflict):
        promote_rollout(stage.service, now_ns=stage.now_ns)
    stage.update_image(b"v2")
    stage.advance(3)
    stage.change(lambda service: promote_rollout(service, now_ns=stage.now_ns))
    stage.advance(30)
    assert new_ones(stage) == 4
    green = a_stage(blue_green())
    green.update_image(b"v2")
    green.advance(1)
    green.change(lambda service: promote_rollout(service, now_ns=green.now_ns))
    green.advance(10)
    assert serving(green) == {b"v2"}


def test_a_paused_canary_is_watched_anew_when_it_goes_on() -> None:
    stage = a_stage(CANARY)
    stage.update_image(b"v2")
    stage.advance(20)
    stage.change(lambda service: pause_rollout(service, now_ns=stage.now_ns))
    stage.advance(600)
    assert new_ones(stage) == 1
    stage.change(lambda service: resume_rollout(service, now_ns=stage.now_ns))
    stage.advance(29)
    assert new_ones(stage) == 1
    stage.advance(5)
    assert new_ones(stage) == 2


def test_start_first_canaries_stand_beside_what_they_replace() -> None:
    stage = a_stage(CANARY, update=UpdateConfig(order=UpdateOrder.START_FIRST))
    stage.update_image(b"v2")
    stage.advance(0.3)
    assert len([task for task in stage.tasks.values() if task.state >= TaskState.STARTING and not task.has_ended]) == 5
