"""How far a service is, as lines."""

from typing import Any

from bennu.cli.commands.service_progress import bar, picture


def a_task(slot: int, state: str, desired: str = "running", node: str = "n", **status: str) -> dict[str, Any]:
    return {"Slot": slot, "NodeID": node, "DesiredState": desired, "Status": {"State": state, **status}}


def a_service(mode: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Spec": {"Name": "s", "Mode": mode}, **more}


def replicated(number: int) -> dict[str, Any]:
    return a_service({"Replicated": {"Replicas": number}})


def test_each_slot_has_a_line_and_the_whole_a_count() -> None:
    seen = picture(replicated(3), [a_task(1, "running"), a_task(2, "starting")], ())
    assert not seen.done
    assert seen.lines == {
        "overall progress": "1 out of 3 tasks",
        "1/3": "running",
        "2/3": "starting",
        "3/3": "",
    }
    assert picture(replicated(1), [a_task(1, "running")], ()).done
    assert picture(replicated(0), [], ()).done


def test_a_successor_that_gets_ready_stands_for_its_slot() -> None:
    tasks = [a_task(1, "failed", "shutdown"), a_task(1, "preparing", "ready"), a_task(1, "running", "shutdown")]
    assert picture(replicated(1), tasks, ()).lines["1/1"] == "preparing"


def test_an_error_is_shown_in_place_of_the_state_and_cut() -> None:
    seen = picture(replicated(1), [a_task(1, "pending", Err="no suitable node " * 9)], ())
    assert len(seen.lines["1/1"]) == 75
    assert seen.lines["1/1"].endswith("…")


def test_what_runs_on_a_node_that_is_down_does_not_count() -> None:
    assert not picture(replicated(1), [a_task(1, "running", node="dead")], {"dead"}).done


def test_more_than_twenty_tasks_are_one_number() -> None:
    assert list(picture(replicated(21), [], ()).lines) == ["overall progress"]


def test_a_global_service_names_its_nodes() -> None:
    service = a_service({"Global": {}})
    assert picture(service, [], ()).lines == {"overall progress": "waiting for new tasks"}
    seen = picture(service, [a_task(0, "running", node="abcdefghijklmnop")], ())
    assert seen.done
    assert seen.lines["abcdefghijkl"] == "running"


def test_a_rollback_says_so() -> None:
    service = replicated(1) | {"UpdateStatus": {"State": "rollback_started"}}
    assert picture(service, [], ()).lines["overall progress"] == "rolling back update: 0 out of 1 tasks"


def test_a_job_counts_completions_of_its_iteration() -> None:
    service = a_service({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 3}})
    tasks = [a_task(0, "complete", "complete"), a_task(1, "complete", "complete"), a_task(2, "running", "complete")]
    seen = picture(service, tasks, ())
    assert not seen.done
    assert seen.lines == {"job progress": "2 out of 3 complete", "active tasks": "1 out of 2 tasks"}
    assert not picture(service | {"JobStatus": {"JobIteration": {"Index": 1}}}, tasks, ()).done


def test_a_state_is_a_bar_and_nothing_else_is() -> None:
    assert bar("running") == "running   [" + "=" * 49 + ">]"
    assert bar("no suitable node") == "no suitable node"
