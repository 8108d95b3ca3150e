"""Conversion of rows of earlier versions: their plain data is brought to today's shape before it is decoded.

A kind stays here for as long as this version may be started over state of a version that wrote the old shape.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bennu.cluster.tables import ServiceRow
from bennu.orchestration.model.nouns import Service

Plain = Mapping[str, Any]


def upgrade_service(data: Plain) -> Plain:
    """Convert a rollout of the time when every strategy had one shape.

    A rollback's shape was that of its spec's strategy too.
    """
    run = data.get("rollout")
    if run is None or run["$"] != "Rollout":
        return data
    status = (data.get("update_status") or {}).get("state", "")
    strategy = "Rolling" if status.startswith("rollback") else data["spec"].get("strategy", {}).get("$", "Rolling")
    match strategy:
        case "Canary":
            run = {"step_began_at_ns": run["began_at_ns"], **run, "$": "CanaryRun"}
        case "BlueGreen":
            run = {**run, "$": "BlueGreenRun", "ready_at_ns": run.get("step_ready_at_ns")}
        case _:
            run = {**run, "$": "RollingRun"}
    return {**data, "rollout": run}


def upgrade_service_row(data: Plain) -> Plain:
    """Convert a reason of the time when it was one text: its instant, a space, and the words."""
    if not any(isinstance(one, str) for one in data.get("reasons", ())):
        return data
    split = (one.partition(" ") for one in data["reasons"])
    return {**data, "reasons": [[int(instant), text] for instant, _, text in split]}


UPGRADES: Final[Mapping[type, Callable[[Plain], Plain]]] = {
    Service: upgrade_service,
    ServiceRow: upgrade_service_row,
}
