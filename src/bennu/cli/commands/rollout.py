"""rollout: how a service gets from one version to the next, watched and steered; and the revisions it left behind."""

import contextlib
import json as json_module
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from bennu.cli.client import Client, segment
from bennu.cli.command import command, switch
from bennu.cli.commands.why import shorten_time
from bennu.cli.failure import Failure
from bennu.cli.output import align, say

if TYPE_CHECKING:
    from rich.console import RenderableType

UNDER_WAY: Final = ("updating", "rollback_started")
LOOK_EVERY_S: Final = 0.25
REASONS: Final = 6
Json = dict[str, Any]


def path_of(service: str, rest: str) -> str:
    return f"/bennu/v1/services/{segment(service)}/{rest}"


def read(client: Client, service: str) -> Json:
    found: Json = client.json("GET", path_of(service, "rollout"))
    return found


# --- verbs ------------------------------------------------------------------------------------------------------------


@command("SERVICE", switch("--json", "Print it as JSON"), least=1, most=1)
def status(client: Client, words: list[str], *, json: bool) -> None:
    found = read(client, words[0])
    if json:
        say(json_module.dumps(found, indent=4, ensure_ascii=False))
        return
    lines = [*headline(found), "", table(found)]
    lines += ["", *(f"Waiting: {line}" for line in next_lines(found))] if found["Waits"] else []
    if found["Reasons"]:
        lines += ["", "Decided lately:"]
        lines += [f"  {shorten_time(one['At'])}  {one['Reason']}" for one in found["Reasons"][-REASONS:]]
    say("\n".join(lines))


def _do(client: Client, words: list[str], verb: str) -> None:
    client.do("POST", path_of(words[0], f"rollout/{verb}"))
    say(words[0])


@command("SERVICE", least=1, most=1)
def pause(client: Client, words: list[str]) -> None:
    _do(client, words, "pause")


@command("SERVICE", least=1, most=1)
def resume(client: Client, words: list[str]) -> None:
    _do(client, words, "resume")


@command("SERVICE", least=1, most=1)
def promote(client: Client, words: list[str]) -> None:
    _do(client, words, "promote")


@command("SERVICE", least=1, most=1)
def abort(client: Client, words: list[str]) -> None:
    _do(client, words, "abort")


@command("SERVICE", switch("--json", "Print it as JSON"), least=1, most=1)
def history(client: Client, words: list[str], *, json: bool) -> None:
    found = client.json("GET", path_of(words[0], "history"))
    if json:
        say(json_module.dumps(found, indent=4, ensure_ascii=False))
        return
    rows = [
        (
            f"{one['Revision']}{' *' if one['Current'] else ''}",
            shorten_time(one["MadeAt"]),
            one["Image"],
            mode_words(one["Mode"]),
            one["Strategy"],
        )
        for one in found
    ]
    say(align([("REVISION", "MADE", "IMAGE", "MODE", "STRATEGY"), *rows]))


def mode_words(mode: Json) -> str:
    (kind, how), *_ = mode.items()
    return f"{how['Replicas']} replicas" if kind == "Replicated" else str(kind).lower()


# --- the live view ----------------------------------------------------------------------------------------------------


@command("SERVICE", least=1, most=1)
def watch(client: Client, words: list[str]) -> int:
    """Until the rollout has ended or is paused; 1 when it did not end well."""
    looks = looking(client, words[0])
    last = draw_live(looks) if sys.stdout.isatty() else print_changes(looks)
    return 0 if last["State"] in ("completed", "rollback_completed", "") else 1


def looking(client: Client, service: str) -> Iterator[Json]:
    """How it stands, again and again, to the last look. A daemon that is away for a moment is waited for."""
    away_since: float | None = None
    while True:
        try:
            found = read(client, service)
        except Failure as failure:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > 30 or "not found" in str(failure):
                raise
            time.sleep(LOOK_EVERY_S)
            continue
        away_since = None
        yield found
        if found["State"] not in UNDER_WAY and not (found["State"] == "" and is_about_to_begin(found)):
            return
        time.sleep(LOOK_EVERY_S)


def is_about_to_begin(found: Json) -> bool:
    return any(task["Revision"] != found["Revision"] and task["DesiredState"] == "running" for task in found["Tasks"])


def print_changes(looks: Iterator[Json]) -> Json:
    """A line for each change, for logs and pipes."""
    known: dict[str, str] = {}
    last: Json = {}
    for last in looks:
        facts = {"rollout": " ".join(headline(last))}
        for task in last["Tasks"]:
            facts[f"{place(task)} {task['ID'][:12]}"] = task_words(task)
        facts |= {"next": "; ".join(f"{wait['Subject']}: {wait['Reason']}" for wait in last["Waits"][:2])}
        for name, words in facts.items():
            if known.get(name) != words and words:
                print(f"{time.strftime('%H:%M:%S')}  {name}: {words}", flush=True)
        known = facts
    return last


def draw_live(looks: Iterator[Json]) -> Json:
    from rich.live import Live

    last: Json = {}
    with contextlib.suppress(KeyboardInterrupt), Live(refresh_per_second=8) as live:
        for last in looks:
            live.update(picture(last))
    return last


def picture(found: Json) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in HEADERS:
        grid.add_column(name)
    for task in found["Tasks"]:
        grid.add_row(*cells(task), style=colour(task, found))
    first, *rest = headline(found)
    waits = [Text(f"next: {line}", style="dim") for line in next_lines(found)[:4]]
    return Group(Text(first, style="bold"), *map(Text, rest), Text(), grid, Text(), *waits)


def colour(task: Json, found: Json) -> str:
    if task["State"] in ("failed", "rejected"):
        return "red"
    if task["DesiredState"] not in ("running", "ready"):
        return "dim"
    if task["State"] != "running":
        return "yellow"
    return "green" if task["Revision"] == found["Revision"] else ""


# --- words ------------------------------------------------------------------------------------------------------------

HEADERS: Final = ("SLOT", "TASK", "REVISION", "STATE", "HEALTH", "TRAFFIC", "CONNECTIONS", "ABOUT")


def headline(found: Json) -> list[str]:
    kind = "" if found["Strategy"] == "rolling" else f" ({found['Strategy']})"
    lines = [f"{found['Name']}{kind}, revision {found['Revision']}: {found['State'] or 'no rollout'}"]
    if found["Message"]:
        lines[0] += f": {found['Message']}"
    if found["State"] in (*UNDER_WAY, "paused") and found["Steps"] and not found["Promoted"]:
        lines.append(f"step {min(found['Step'], found['Steps'])} of {found['Steps']}")
    if found["Switched"] and found["State"] in UNDER_WAY:
        lines.append("the traffic goes to the new version")
    if found["Verdict"]:
        lines.append(f"verdict: {found['Verdict']}")
    return lines


def table(found: Json) -> str:
    return align([HEADERS, *(cells(task) for task in found["Tasks"])])


def cells(task: Json) -> tuple[str, ...]:
    open_now = task["Connections"]
    return (
        place(task),
        task["ID"][:12],
        "" if task["Revision"] is None else str(task["Revision"]),
        state_words(task),
        task["Health"],
        traffic_words(task),
        "" if open_now is None else str(open_now),
        task["Err"] or task["Why"],
    )


def place(task: Json) -> str:
    return str(task["Slot"] or task["NodeID"][:12])


def state_words(task: Json) -> str:
    if task["State"] == task["DesiredState"] or task["DesiredState"] in ("running", "ready"):
        return str(task["State"])
    return f"{task['State']} → {task['DesiredState']}"


def traffic_words(task: Json) -> str:
    if task["InBalancer"]:
        return "in"
    if task["State"] == "running" and task["DesiredState"] not in ("running", "ready"):
        return "draining" if task["Connections"] else "out"
    return "out" if task["State"] == "running" else ""


def task_words(task: Json) -> str:
    words = [f"revision {task['Revision']}", state_words(task), task["Health"], traffic_words(task), task["Err"]]
    return ", ".join(word for word in words if word)


def next_lines(found: Json) -> list[str]:
    lines = []
    for wait in found["Waits"]:
        when = "" if wait["Left"] is None else f" (in {wait['Left'] / 1e9:.1f} s)"
        lines.append(f"{wait['Subject']}: {wait['Reason']}{when}")
    return lines
