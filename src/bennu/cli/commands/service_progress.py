"""Waiting for a service to converge, line by line."""

import time
from typing import Any, Final

from bennu.cli.client import Client
from bennu.cli.failure import Failure
from bennu.cli.output import say
from bennu.cli.values import encode_filters

LOOK_EVERY_S: Final = 0.2
DEFAULT_MONITOR_NS: Final = 5_000_000_000


def follow_progress(client: Client, service_id: str, *, quiet: bool) -> int:
    """Until all tasks run and stayed so for the monitoring time; the exit code. Raises: Failure when it is paused."""
    said = ""
    stable_since: float | None = None
    while True:
        service = client.json("GET", f"/services/{service_id}")
        status = service.get("UpdateStatus") or {}
        state = status.get("State", "")
        if state in ("paused", "rollback_paused"):
            what = "service rollback" if state == "rollback_paused" else "service update"
            raise Failure(f"{what} paused: {status.get('Message', '')}")
        done, line = look(client, service)
        if state == "rollback_started":
            line = line.replace("overall progress: ", "overall progress: rolling back update: ")
        if line != said and not quiet:
            say(line)
        said = line
        is_job = line.startswith("job")
        if not done:
            stable_since = None
        elif is_job or (stable_since is not None and time.monotonic() >= stable_since + monitor_s(service)):
            if not quiet:
                say("job complete" if is_job else f"verify: Service {service['Spec']['Name']} converged")
            return 0
        elif stable_since is None:
            stable_since = time.monotonic()
        time.sleep(LOOK_EVERY_S)


def monitor_s(service: dict[str, Any]) -> float:
    return float((service["Spec"].get("UpdateConfig") or {}).get("Monitor") or DEFAULT_MONITOR_NS) / 1e9


def look(client: Client, service: dict[str, Any]) -> tuple[bool, str]:
    """Whether all is as wanted, and the line that says how far it is."""
    filters = encode_filters([f"service={service['ID']}", "_up-to-date=true"])
    tasks = client.json("GET", "/tasks", query={"filters": filters})
    mode = service["Spec"]["Mode"]
    if "ReplicatedJob" in mode or "GlobalJob" in mode:
        iteration = ((service.get("JobStatus") or {}).get("JobIteration") or {}).get("Index", 0)
        mine = [task for task in tasks if (task.get("JobIteration") or {}).get("Index", 0) == iteration]
        complete = sum(task["Status"]["State"] == "complete" for task in mine)
        total = mode["ReplicatedJob"].get("TotalCompletions", 0) if "ReplicatedJob" in mode else max(1, len(mine))
        return complete >= total, f"job progress: {complete} out of {total} complete"
    running = {
        task.get("Slot") or task.get("NodeID")
        for task in tasks
        if task["DesiredState"] == "running" and task["Status"]["State"] == "running"
    }
    if "Replicated" in mode:
        wanted = mode["Replicated"]["Replicas"]
    else:
        wanted = len({task["NodeID"] for task in tasks if task["DesiredState"] == "running"})
        if not wanted:
            return False, "overall progress: waiting for new tasks"
    return len(running) >= wanted, f"overall progress: {len(running)} out of {wanted} tasks"
