"""What `bennu rollout watch` draws, as text."""

from typing import Any

import pytest
from rich.console import Console

from bennu.cli.commands.rollout_view import join_ranges, next_lines, picture

LONG = "faah0efnuzzsayktg7uang9d0"


def task(slot: int, revision: int, state: str = "running", **more: Any) -> dict[str, Any]:
    facts = {"DesiredState": "running", "InBalancer": state == "running", "Connections": 0, "DrainLeft": None}
    words = {"NodeID": "n", "Health": "", "Err": "", "Why": "it was made", "ID": f"id{slot}{revision}"}
    return {"Slot": slot, "Revision": revision, "State": state, **facts, **words, **more}


def rollout(tasks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    found = {
        "Name": "web", "Strategy": "rolling", "State": "updating", "Message": "update in progress", "StartedAt": "",
        "CompletedAt": "", "Revision": 2, "PreviousRevision": 1, "Step": 0, "Steps": 0, "Switched": False,
        "Promoted": False, "Verdict": "", "Tasks": tasks, "Waits": [],
    }  # fmt: skip
    return found | more


def wait(subject: str, reason: str, left_s: float | None = None) -> dict[str, Any]:
    return {"Subject": subject, "Reason": reason, "Left": None if left_s is None else int(left_s * 1e9)}


def draw(found: dict[str, Any], width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(picture(found, width=width, height=height))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_slot_is_drawn_from_the_old_version_over_its_drain_to_the_new_one() -> None:
    leaving = task(2, 1, DesiredState="shutdown", InBalancer=False, Connections=3, DrainLeft=7_400_000_000)
    tasks = [task(1, 2, Connections=1), leaving, task(2, 2, "ready", DesiredState="ready"), task(3, 1)]
    drawn = draw(rollout(tasks, Waits=[wait("rollout", "the delay after slot 1 is not over", 1.44)]))
    assert drawn == [
        "web  updating  revision 1 → 2",
        "■■■■■■■■■■■■■▣▣▣▣▣▣▣▣▣▣▣▣▣□□□□□□□□□□□□□  1 of 3 slots serve revision 2",
        "",
        "SLOT  TASK  REVISION  STATE               TRAFFIC",
        "1     id12  2         running             serves, 1 connection",
        "2     id21  1         running → shutdown  drains 3 connections, 7.4 s at most",
        "2     id22  2         ready",
        "3     id31  1         running             serves",
        "",
        "next  the delay after slot 1 is not over (1.4 s left)",
    ]


def test_blue_that_is_kept_warm_does_not_count_and_green_that_waits_does_not_yet() -> None:
    waiting = [task(1, 1), task(1, 2, InBalancer=False)]
    assert "▣▣▣  0 of 1 slots serve revision 2" in draw(rollout(waiting))[1]
    switched = [task(1, 1, InBalancer=False), task(1, 2)]
    assert "■■■  1 of 1 slots serve revision 2" in draw(rollout(switched))[1]


def test_a_task_without_ports_serves_because_it_runs() -> None:
    assert "1 of 1 slots" in draw(rollout([task(1, 2, InBalancer=False, Connections=None)]))[1]


def test_a_pause_says_why() -> None:
    drawn = draw(rollout([task(1, 1)], State="paused", Message="update paused due to failure of task x"))
    assert drawn[:2] == ["web  paused  revision 1 → 2", "update paused due to failure of task x"]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 15)])
def test_it_fits_whatever_there_is(width: int, height: int) -> None:
    many = [task(slot, 1 + (slot < 20), Err="no such image" if slot % 7 == 0 else "") for slot in range(1, 200)]
    many[50] |= {"State": "starting"}
    waits = [wait(f"slot {slot}", "it waits for its turn " * 9) for slot in range(20, 200)]
    drawn = draw(rollout(many, Waits=waits, Verdict="it is good " * 12), width, height)
    assert len(drawn) <= height
    assert max(map(len, drawn)) <= width
    assert any(line.startswith("51 ") for line in drawn), "what moves is shown first"
    assert any(line.endswith("more tasks") for line in drawn)


def test_what_is_said_of_several_slots_is_said_once_and_the_soonest_first() -> None:
    waits = [
        wait("slot 3", "it waits for its turn"), wait("slot 4", "it waits for its turn"),
        wait("slot 1", f"its new task waits for the end of task {LONG}", 57.5),
        wait("slot 5", "it waits for its turn"), wait("rollout", "the delay is not over", 2),
    ]  # fmt: skip
    assert next_lines(rollout([], Waits=waits)) == [
        "the delay is not over (2.0 s left)",
        "slot 1: its new task waits for the end of task faah0efnuzzs (57.5 s left)",
        "slots 3 to 5: it waits for its turn",
    ]


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (["1"], ["1"]),
        (["1", "2"], ["1", "2"]),
        (["1", "2", "3", "7", "9", "10", "11", "12"], ["1 to 3", "7", "9 to 12"]),
        (["n1", "n2", "n3"], ["n1", "n2", "n3"]),
    ],
)
def test_numbers_in_a_row_are_joined(names: list[str], joined: list[str]) -> None:
    assert join_ranges(names) == joined
