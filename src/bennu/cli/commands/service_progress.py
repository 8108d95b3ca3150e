"""Waiting for a service to converge: a line for the whole and one for each task, as docker shows them."""

import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bennu.cli.client import Client
from bennu.cli.failure import Failure
from bennu.cli.output import say, visible
from bennu.cli.terminal import read_size
from bennu.cli.values import encode_filters

LOOK_EVERY_S: Final = 0.2
DEFAULT_MONITOR_NS: Final = 5_000_000_000
MOST_LINES: Final = 20  # more tasks than that are shown as one number
WIDEST_ERROR: Final = 75
STATES: Final = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running", "complete")
BAR: Final = 50
Dict = dict[str, Any]


@dataclass(slots=True)
class Picture:
    """How far a service is: lines by their names, and whether all is as wanted."""

    done: bool
    lines: dict[str, str] = field(default_factory=dict)


def follow_progress(client: Client, service_id: str, *, quiet: bool) -> None:
    """Until all tasks run and stayed so for the monitoring time. Raises: Failure when the rollout is paused."""
    screen = Screen(quiet)
    try:
        _follow(client, service_id, screen)
    except KeyboardInterrupt:
        say(f"Operation continuing in background.\nUse `bennu service ps {service_id}` to check progress.")


def _follow(client: Client, service_id: str, screen: "Screen") -> None:
    stable_since: float | None = None
    while True:
        service = client.json("GET", f"/services/{service_id}")
        status = service.get("UpdateStatus") or {}
        state = status.get("State", "")
        if state in ("paused", "rollback_paused"):
            what = "service rollback" if state == "rollback_paused" else "service update"
            raise Failure(f"{what} paused: {status.get('Message', '')}")
        now = picture(service, tasks_of(client, service), down_nodes(client))
        if state.startswith("rollback"):
            screen.show({"rollback": status.get("Message", "")})
        screen.show(now.lines)
        if "job progress" in now.lines:
            if now.done:
                screen.show({"": "job complete"})
                return
        elif not now.done:
            if stable_since is not None:
                screen.show({"verify": "Detected task failure"})
            stable_since = None
        else:
            stable_since = time.monotonic() if stable_since is None else stable_since
            left_s = stable_since + monitor_s(service) - time.monotonic()
            if left_s <= 0 or state == "completed":
                screen.show({"verify": f"Service {service['Spec']['Name']} converged"})
                return
            seconds = int(left_s) + 1
            screen.show({"verify": f"Waiting {seconds} seconds to verify that tasks are stable..."})
        time.sleep(LOOK_EVERY_S)


def tasks_of(client: Client, service: Dict) -> list[Dict]:
    filters = encode_filters([f"service={service['ID']}", "_up-to-date=true"])
    found: list[Dict] = client.json("GET", "/tasks", query={"filters": filters})
    return found


def down_nodes(client: Client) -> set[str]:
    return {node["ID"] for node in client.json("GET", "/nodes") if node["Status"]["State"] == "down"}


def monitor_s(service: Dict) -> float:
    return float((service["Spec"].get("UpdateConfig") or {}).get("Monitor") or DEFAULT_MONITOR_NS) / 1e9


# --- pure -------------------------------------------------------------------------------------------------------


def picture(service: Dict, tasks: Collection[Dict], down: Collection[str]) -> Picture:
    mode = service["Spec"]["Mode"]
    if "ReplicatedJob" in mode or "GlobalJob" in mode:
        return _picture_of_job(service, mode, tasks)
    by_slot = representatives(tasks, down)
    if "Replicated" in mode:
        wanted = mode["Replicated"].get("Replicas", 0)
        names: dict[Any, str] = {number: f"{number}/{wanted}" for number in range(1, wanted + 1)}
    else:
        names = {node_id: str(node_id)[:12] for node_id in sorted(map(str, by_slot))}
        wanted = len(names)
        if not wanted:
            return Picture(False, {"overall progress": "waiting for new tasks"})
    running = sum(is_running(task) for slot, task in by_slot.items() if slot in names)
    status = service.get("UpdateStatus") or {}
    what = "rolling back update: " if status.get("State", "").startswith("rollback") else ""
    lines = {"overall progress": f"{what}{running} out of {wanted} tasks"}
    if wanted <= MOST_LINES:
        lines |= {name: task_line(by_slot.get(slot)) for slot, name in names.items()}
    return Picture(running >= wanted, lines)


def representatives(tasks: Collection[Dict], down: Collection[str]) -> dict[Any, Dict]:
    """For each slot (global: each node) the task that matters: wanted rather than not, then the one least far."""
    found: dict[Any, Dict] = {}
    for task in tasks:
        if task.get("NodeID") in down:
            continue
        slot = task.get("Slot") or task.get("NodeID")
        if slot not in found or _order(task) < _order(found[slot]):
            found[slot] = task
    return found


def _order(task: Dict) -> tuple[int, int]:
    return rank(task["DesiredState"]), rank(task["Status"]["State"])


def rank(state: str) -> int:
    return STATES.index(state) if state in STATES else len(STATES)


def is_running(task: Dict) -> bool:
    return rank(task["DesiredState"]) <= rank("running") and task["Status"]["State"] == "running"


def task_line(task: Dict | None) -> str:
    if task is None:
        return ""
    error = str(task["Status"].get("Err") or "")
    if error:
        return error if len(error) <= WIDEST_ERROR else error[: WIDEST_ERROR - 1] + "…"
    return str(task["Status"]["State"])


def _picture_of_job(service: Dict, mode: Mapping[str, Dict], tasks: Collection[Dict]) -> Picture:
    iteration = ((service.get("JobStatus") or {}).get("JobIteration") or {}).get("Index", 0)
    mine = [task for task in tasks if (task.get("JobIteration") or {}).get("Index", 0) == iteration]
    complete = sum(task["Status"]["State"] == "complete" for task in mine)
    active = sum(is_running(task) or task["Status"]["State"] == "running" for task in mine)
    if "ReplicatedJob" in mode:
        total = mode["ReplicatedJob"].get("TotalCompletions", 0)
        most = mode["ReplicatedJob"].get("MaxConcurrent", total)
    else:
        total = most = max(1, len({task.get("NodeID") for task in mine}))
    lines = {
        "job progress": f"{complete} out of {total} complete",
        "active tasks": f"{active} out of {min(most, total)} tasks",
    }
    return Picture(complete >= total, lines)


# --- the screen -------------------------------------------------------------------------------------------------


class Screen:
    """Named lines: rewritten in place on a terminal, printed when they change anywhere else."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._is_terminal = sys.stdout.isatty()
        self._lines: dict[str, str] = {}

    def show(self, lines: Mapping[str, str]) -> None:
        changed = {name: text for name, text in lines.items() if self._lines.get(name) != text}
        if self._quiet or not changed:
            return
        before = len(self._lines)
        self._lines |= changed
        if not self._is_terminal:
            for name, text in changed.items():
                say(line(name, text))
            return
        up = f"\x1b[{before}A" if before else ""
        # A line that wraps would be two, and the next picture would begin in the wrong place.
        width = (read_size() or (0, 80))[1] or 80
        whole = "".join(
            f"\x1b[2K{visible(line(name, bar(text)), sys.stdout)[: width - 1]}\n" for name, text in self._lines.items()
        )
        sys.stdout.write(up + whole)
        sys.stdout.flush()


def line(name: str, text: str) -> str:
    return f"{name}: {text}" if name else text


def bar(state: str) -> str:
    """A state with how far it is from running; any other text as it is."""
    if state not in STATES:
        return state
    done = min(rank(state) + 1, rank("running") + 1) * BAR // (rank("running") + 1)
    return f"{state:<10}[{'=' * (done - 1)}>{' ' * (BAR - done)}]"
