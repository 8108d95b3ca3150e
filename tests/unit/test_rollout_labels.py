"""Strategies as labels say them, and what a canary's witness makes of what it saw."""

from dataclasses import replace

import pytest

from bennu.cluster.strategy import name_of, read_strategy
from bennu.cluster.witness import parse_tcp_counters, took_ns, without_chance
from bennu.engine.record import HealthProbe
from bennu.errors import InvalidParameter
from bennu.orchestration.evidence import Cohort, Evidence
from bennu.orchestration.spec import BlueGreen, Canary, CanaryStep, Rolling, Strategy

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


def test_the_kernels_counters_are_read_by_name() -> None:
    text = "Ip: Forwarding\nIp: 1\nTcp: ActiveOpens PassiveOpens OutRsts\nTcp: 5 70 3\nUdp: InDatagrams\nUdp: 4\n"
    assert parse_tcp_counters(text) == (70, 3)


def test_a_probes_time_is_read_from_its_log() -> None:
    start, end = "2026-03-01T10:00:00.100000000Z", "2026-03-01T10:00:00.125500000Z"
    assert took_ns(HealthProbe(start=start, end=end, exit_code=0, output="")) == 25_500_000


@pytest.mark.parametrize(
    ("refused", "is_kept"),
    [pytest.param(3, False, id="may-be-chance"), pytest.param(60, True, id="can-hardly-be-chance")],
)
def test_refused_connections_are_put_forward_only_when_chance_hardly_explains_them(refused: int, is_kept: bool) -> None:
    quiet = Cohort(tasks=2, connections=1000, connection_failures=2)
    seen = Evidence(stable=quiet, canary=replace(quiet, connection_failures=refused))
    assert (without_chance(seen) == seen) is is_kept
    assert without_chance(seen).canary.connection_failures in (0, refused)
