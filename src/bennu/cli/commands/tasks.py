"""Tasks as `service ps`, `node ps` and `stack ps` list them: newest attempt of each slot first, former ones below."""

import re
import time
from datetime import datetime
from typing import Any, Final

from bennu.cli.client import Client
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import shorten_id
from bennu.cli.values import encode_filters

LISTING: Final = Listing(
    headers={"DesiredState": "DESIRED STATE", "CurrentState": "CURRENT STATE"},
    columns="ID Name Image Node DesiredState CurrentState Error Ports",
    quiet="ID",
)


def print_tasks(client: Client, wanted: list[str], *, full: bool, quiet: bool, form: str | None) -> int:
    """Answers how many there are."""
    tasks = client.json("GET", "/tasks", query={"filters": encode_filters(wanted)})
    services = {one["ID"]: one["Spec"]["Name"] for one in client.json("GET", "/services")}
    nodes = {one["ID"]: one["Description"]["Hostname"] for one in client.json("GET", "/nodes")}
    ordered = sorted(tasks, key=lambda task: (natural(slot_of(task, services)), -stamp(task["CreatedAt"])))
    former = ""
    for task in ordered:
        name = slot_of(task, services)
        task["Shown"] = f" \\_ {name}" if name == former else name
        former = name
    now = time.time()

    def describe(task: dict[str, Any], _: float) -> dict[str, Any]:
        status, image = task["Status"], task["Spec"]["ContainerSpec"]["Image"]
        ports = (status.get("PortStatus") or {}).get("Ports") or []
        return {
            "ID": task["ID"] if full else shorten_id(task["ID"]),
            "Name": task["Shown"],
            "Image": image if full else image.partition("@")[0],
            "Node": nodes.get(task.get("NodeID", ""), task.get("NodeID", "")),
            "DesiredState": task["DesiredState"].title(),
            "CurrentState": f"{status['State'].title()} {age(now - stamp(status['Timestamp']))}",
            "Error": f'"{status["Err"]}"' if status.get("Err") else "",
            "Ports": ",".join(f"*:{one['PublishedPort']}->{one['TargetPort']}/{one['Protocol']}" for one in ports),
        }

    print_list(LISTING, ordered, describe, form, quiet)
    return len(ordered)


def natural(text: str) -> list[tuple[int, int, str]]:
    """For sorting: numbers within a text count as numbers, so that `web.10` comes after `web.9`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def slot_of(task: dict[str, Any], services: dict[str, str]) -> str:
    return f"{services.get(task['ServiceID'], task['ServiceID'])}.{task.get('Slot') or task.get('NodeID', '')}"


def stamp(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 instant; its nanoseconds are more than Python reads."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def age(seconds: float) -> str:
    from bennu.lifecycle.status import human_duration

    words = human_duration(int(max(0.0, seconds) * 1e9))
    return f"{words[0].lower()}{words[1:]} ago"
