"""Rows as earlier versions wrote them are read as what they mean today."""

import json
from typing import Any

import pytest

from bennu.cluster import codec
from bennu.cluster.tables import Reason, ServiceRow
from bennu.orchestration.model.nouns import BlueGreenRun, CanaryRun, RollingRun, Rollout, SlotKey

SLOTS = frozenset({SlotKey(1), SlotKey(2)})


def a_row(run: dict[str, Any], strategy: str, state: str) -> bytes:
    service = {
        "$": "Service",
        "id": "s",
        "rollout": {"$": "Rollout", "began_at_ns": 3, "slots": [[1, ""], [2, ""]], "total": 2, **run},
        "spec": {"$": "ServiceSpec", "name": "web", **({"strategy": {"$": strategy}} if strategy else {})},
        "update_status": {"$": "UpdateStatus", "message": "m", "started_at_ns": 3, "state": state},
    }
    reasons = ["5 2 of 2 slots are outdated: an update was forced", "7 back"]
    return json.dumps({"$": "ServiceRow", "id": "s", "service": service, "reasons": reasons}).encode()


@pytest.mark.parametrize(
    ("strategy", "state", "run", "expected"),
    [
        pytest.param(
            "",
            "updating",
            {"failed": [[1, ""]], "settled_at_ns": 9, "step_began_at_ns": 3},
            RollingRun(3, 2, SLOTS, (SlotKey(1),), 9),
            id="rolling",
        ),
        pytest.param(
            "Canary",
            "paused",
            {"promoted": True, "step": 1, "step_began_at_ns": 5, "step_ready_at_ns": 7, "verdict": "as good"},
            CanaryRun(3, 2, SLOTS, step=1, step_began_at_ns=5, step_ready_at_ns=7, verdict="as good", promoted=True),
            id="canary",
        ),
        pytest.param(
            "Canary",
            "updating",
            {},
            CanaryRun(3, 2, SLOTS, step_began_at_ns=3),
            id="a canary that never said when its step began",
        ),
        pytest.param(
            "BlueGreen",
            "updating",
            {"step_began_at_ns": 3, "step_ready_at_ns": 7, "switched_at_ns": 8, "verdict": "all ran"},
            BlueGreenRun(3, 2, SLOTS, ready_at_ns=7, switched_at_ns=8, verdict="all ran"),
            id="blue/green",
        ),
        pytest.param(
            "Canary",
            "rollback_started",
            {"step_began_at_ns": 3},
            RollingRun(3, 2, SLOTS),
            id="the rollback of a canary",
        ),
    ],
)
def test_a_rollout_of_one_shape_for_all_strategies(
    strategy: str, state: str, run: dict[str, Any], expected: Rollout
) -> None:
    row = codec.decode(ServiceRow, a_row(run, strategy, state))
    assert row.service.rollout == expected
    assert codec.decode(ServiceRow, codec.encode(row)) == row


def test_a_reason_with_its_instant_in_front() -> None:
    row = codec.decode(ServiceRow, a_row({}, "", "updating"))
    assert row.reasons == (Reason(5, "2 of 2 slots are outdated: an update was forced"), Reason(7, "back"))
    assert codec.decode(ServiceRow, codec.encode(row)) == row
