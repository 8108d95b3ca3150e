"""Strategies as labels say them."""

import pytest

from bennu.cluster.strategy import name_of, read_strategy
from bennu.errors import InvalidParameter
from bennu.orchestration.model.spec import BlueGreen, Canary, CanaryStep, Rolling, Strategy

S = 10**9


def labels(**given: str) -> dict[str, str]:
    return {f"bennu.rollout.{name.replace('_', '-')}": text for name, text in given.items()}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param({}, Rolling(), id="nothing-said"),
        pytest.param(labels(strategy="rolling", watch="1s"), Rolling(), id="rolling"),
        pytest.param(labels(strategy="canary"), Canary(), id="canary-by-default"),
        pytest.param(
            labels(strategy="canary", steps="1:30s, 25%,50%:2m", watch="10s"),
            Canary(steps=(
                CanaryStep(tasks=1, watch_ns=30 * S),
                CanaryStep(percent=25, watch_ns=10 * S),
                CanaryStep(percent=50, watch_ns=120 * S),
            )),
            id="steps",
        ),
        pytest.param(
            labels(strategy="canary", confidence="0.99", slower_by="3", ready_within="1m"),
            Canary(confidence=0.99, slower_by=3.0, ready_within_ns=60 * S),
            id="judgement",
        ),
        pytest.param(
            labels(strategy="blue-green", settle="1s", keep_warm="0", ready_within="5s"),
            BlueGreen(settle_ns=S, keep_warm_ns=0, ready_within_ns=5 * S),
            id="blue-green",
        ),
    ],
)  # fmt: skip
def test_labels_say_the_strategy(given: dict[str, str], wanted: Strategy) -> None:
    found = read_strategy({"other": "label", **given})
    assert found == wanted
    assert name_of(found) == given.get("bennu.rollout.strategy", "rolling")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("strategy", "purple"), ("strategy", ""), ("steps", ""), ("steps", "0"), ("steps", "101%"), ("steps", "1:x"),
        ("steps", "1,,2"), ("steps", ",".join("1" * 51)), ("watch", "soon"), ("confidence", "1"), ("confidence", "nan"),
        ("slower-by", "0.5"), ("ready-within", "-1s"), ("settle", "1"), ("colour", "red"),
    ],
)  # fmt: skip
def test_what_a_label_cannot_be_is_named(name: str, text: str) -> None:
    strategy = "blue-green" if name == "settle" else "canary"
    with pytest.raises(InvalidParameter, match=f"bennu.rollout.{name}"):
        read_strategy({"bennu.rollout.strategy": strategy, f"bennu.rollout.{name}": text})
