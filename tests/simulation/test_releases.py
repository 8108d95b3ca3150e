"""Good and bad releases under every way to roll out: who catches what, how much harm is done, how often it is a false
alarm. The laws hold on every step of every history."""

import os
from collections import Counter
from functools import partial

import pytest

from bennu.orchestration.model.spec import BlueGreen, Canary, CanaryStep, Rolling, Strategy, UpdateConfig
from bennu.orchestration.model.states import NS_PER_SECOND, FailureAction, UpdateOrder, UpdateState
from bennu.simulate.releases import Outcome, Release, play_release

S = NS_PER_SECOND
SEEDS = int(os.environ.get("BENNU_SEEDS", "1000"))
SLICES = 10
FEW = max(5, SEEDS // 100)
PAUSE, BACK = UpdateConfig(), UpdateConfig(failure_action=FailureAction.ROLLBACK)
CANARY = Canary((CanaryStep(tasks=1), CanaryStep(percent=50)), ready_within_ns=60 * S)
BRISK = Canary((CanaryStep(tasks=1, watch_ns=20 * S), CanaryStep(percent=50, watch_ns=20 * S)))
BLUE_GREEN = BlueGreen(settle_ns=5 * S, keep_warm_ns=60 * S, ready_within_ns=60 * S)
DONE, PAUSED, WENT_BACK = UpdateState.COMPLETED, UpdateState.PAUSED, UpdateState.ROLLBACK_COMPLETED
WAITS = UpdateState.UPDATING

# What a release does wrong, and how it ends: by pausing, by rolling back, as a canary, as blue/green.
CAUGHT = {
    "crash": (PAUSED, WENT_BACK, WENT_BACK, WENT_BACK),  # at once
    "early": (PAUSED, WENT_BACK, WENT_BACK, WENT_BACK),  # within the monitoring time
    "late": (DONE, DONE, WENT_BACK, WENT_BACK),  # after the monitoring time: who only monitors does not see it
    "greedy": (PAUSED, WENT_BACK, WENT_BACK, WENT_BACK),  # killed for lack of memory
    "missing": (PAUSED, WENT_BACK, WENT_BACK, WENT_BACK),  # its image is not there
    "unready": (WAITS, WAITS, WENT_BACK, WENT_BACK),  # never ready: nothing ends, and the update waits
    "sluggish": (DONE, DONE, WENT_BACK, DONE),  # answers five times slower: seen beside the old version only
    "erring": (DONE, DONE, WENT_BACK, DONE),  # answers with errors now and then, so that it is not ready
    "good": (DONE, DONE, DONE, DONE),
    "slow": (DONE, DONE, DONE, DONE),  # slow to start is not bad
    "stubborn": (DONE, DONE, DONE, DONE),  # nor is slow to stop
}
WAYS: tuple[tuple[UpdateConfig, Strategy], ...] = (
    (PAUSE, Rolling()), (BACK, Rolling()), (PAUSE, CANARY), (PAUSE, BLUE_GREEN),
)  # fmt: skip


def play(release: Release, seeds: range) -> list[Outcome]:
    return list(map(partial(play_release, release), seeds))


@pytest.mark.slow
@pytest.mark.parametrize("program", CAUGHT)
def test_each_way_catches_what_it_can_see(program: str) -> None:
    for (config, strategy), wanted in zip(WAYS, CAUGHT[program], strict=True):
        outcomes = play(Release(program, strategy=strategy, config=config), range(FEW))
        assert Counter(outcome.state for outcome in outcomes) == {wanted: FEW}, strategy


@pytest.mark.slow
@pytest.mark.parametrize("program", [name for name, ends in CAUGHT.items() if ends[2] is WENT_BACK and name != "late"])
def test_a_bad_canary_never_gets_beyond_its_first_step(program: str) -> None:
    assert max(outcome.most_new for outcome in play(Release(program, strategy=CANARY), range(FEW))) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("program", ["missing", "unready"])
def test_start_first_loses_nothing_to_a_version_that_never_serves(program: str) -> None:
    config = UpdateConfig(order=UpdateOrder.START_FIRST)
    assert {outcome.fewest for outcome in play(Release(program, config=config), range(FEW))} == {5}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_a_good_release_causes_no_alarm(part: int) -> None:
    for release in (Release("good", config=BACK), Release("good", strategy=BRISK)):
        outcomes = play(release, range(part, SEEDS, SLICES))
        assert {outcome.state for outcome in outcomes} == {DONE}


@pytest.mark.slow
def test_a_release_as_nervous_as_the_one_before_is_seldom_blamed() -> None:
    """Both versions die and err now and then. The judge looks every second, and may be wrong once in twenty."""
    outcomes = play(Release("nervous", before="nervous", strategy=BRISK), range(SEEDS))
    alarms = [outcome.message for outcome in outcomes if outcome.state is not DONE]
    print(f"{len(alarms)} false alarms in {SEEDS} releases")
    assert len(alarms) <= SEEDS / 20
