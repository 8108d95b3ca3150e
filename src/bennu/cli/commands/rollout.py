"""rollout: watches and steers how a service gets from one revision to the next, and lists its revisions."""

import json as json_module
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import click

from bennu.cli.client import ApiClient, segment
from bennu.cli.commands.rollout_view import (
    HEADERS,
    UNDER_WAY,
    cells,
    headline,
    name_all,
    next_lines,
    picture,
    place,
    task_words,
)
from bennu.cli.commands.why import shorten_time
from bennu.cli.failure import CommandFailure
from bennu.cli.output import align, say, visible

LOOK_EVERY_S: Final = 0.25
REASONS: Final = 6
Json = dict[str, Any]


def path_of(service: str, rest: str) -> str:
    return f"/bennu/v1/services/{segment(service)}/{rest}"


def read(client: ApiClient, service: str) -> Json:
    found: Json = client.json("GET", path_of(service, "rollout"))
    return found


# --- verbs ------------------------------------------------------------------------------------------------------------


@click.group()
def rollout() -> None:
    """Watch and steer the rollout of a service."""


SERVICE: Final = click.argument("service")
JSON: Final = click.option("--json", is_flag=True, help="Print it as JSON")


@rollout.command()
@JSON
@SERVICE
@click.pass_obj
def status(client: ApiClient, service: str, json: bool) -> None:
    """Tell how a rollout stands, and what it waits for."""
    found = read(client, service)
    if json:
        say(json_module.dumps(found, indent=4, ensure_ascii=False))
        return
    lines = [*headline(found), "", align([HEADERS, *(cells(task) for task in found["Tasks"])])]
    lines += ["", *(f"Waiting: {line}" for line in next_lines(found))] if found["Waits"] else []
    if found["Reasons"]:
        lines += ["", "Decided lately:"]
        lines += [f"  {shorten_time(one['At'])}  {one['Reason']}" for one in found["Reasons"][-REASONS:]]
    say("\n".join(lines))


def _do(client: ApiClient, service: str, path: str, **query: int) -> None:
    client.call("POST", path_of(service, path), query=query)
    say(service)


@rollout.command()
@SERVICE
@click.pass_obj
def pause(client: ApiClient, service: str) -> None:
    """Hold a rollout where it is."""
    _do(client, service, "rollout/pause")


@rollout.command()
@SERVICE
@click.pass_obj
def resume(client: ApiClient, service: str) -> None:
    """Go on with a paused rollout."""
    _do(client, service, "rollout/resume")


@rollout.command()
@SERVICE
@click.pass_obj
def promote(client: ApiClient, service: str) -> None:
    """End the watching of a canary or blue/green rollout in its favour."""
    _do(client, service, "rollout/promote")


@rollout.command()
@SERVICE
@click.pass_obj
def abort(client: ApiClient, service: str) -> None:
    """Go back to the previous version."""
    _do(client, service, "rollout/abort")


@rollout.command()
@click.option("--to", type=int, required=True, help="Number of the revision, see history")
@SERVICE
@click.pass_obj
def rollback(client: ApiClient, service: str, to: int) -> None:
    """Go back to any revision that is remembered."""
    _do(client, service, "rollback", to=to)


@rollout.command()
@JSON
@SERVICE
@click.pass_obj
def history(client: ApiClient, service: str, json: bool) -> None:
    """List the revisions of a service."""
    found = client.json("GET", path_of(service, "history"))
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


@rollout.command()
@SERVICE
@click.pass_obj
def watch(client: ApiClient, service: str) -> int:
    """Show a rollout live, until it has ended or is paused; exit code 1 when it did not end well."""
    looks = looking(client, service)
    try:
        last = draw_live(looks) if sys.stdout.isatty() else print_changes(looks)
    except KeyboardInterrupt:
        say(f"Nobody watches any more; the rollout goes on. `bennu rollout watch {service}` shows it again.")
        return 0
    return 0 if last["State"] in ("completed", "rollback_completed", "") else 1


def looking(client: ApiClient, service: str) -> Iterator[Json]:
    """Yield how it stands, again and again, until it has ended; a daemon that is away for a moment is waited for."""
    away_since: float | None = None
    while True:
        try:
            found = read(client, service)
        except CommandFailure as failure:
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
    """Print a line for each change, for logs and pipes; answer the last look."""
    known: dict[str, str] = {}
    last: Json = {}
    for last in looks:
        facts = {"rollout": " ".join(headline(last))}
        for task in last["Tasks"]:
            facts[f"{place(task)} {task['ID'][:12]}"] = task_words(task)
        facts |= {"next": "; ".join(f"{name_all([wait['Subject']])}{wait['Reason']}" for wait in last["Waits"][:2])}
        for name, words in facts.items():
            if known.get(name) != words and words:
                say(f"{time.strftime('%H:%M:%S')}  {name}: {words}")
        known = facts
    return last


def made_visible(found: Any) -> Any:
    """Replace what would steer a terminal in every text of JSON."""
    if isinstance(found, dict):
        return {name: made_visible(value) for name, value in found.items()}
    if isinstance(found, list):
        return [made_visible(value) for value in found]
    return visible(found, sys.stdout) if isinstance(found, str) else found


def draw_live(looks: Iterator[Json]) -> Json:
    """Keep the picture on the screen; a person who leaves early is told that the rollout goes on."""
    from rich.live import Live

    last: Json = {}
    with Live(auto_refresh=False) as live:
        for last in looks:
            live.update(picture(made_visible(last), width=live.console.width, height=live.console.height), refresh=True)
    return last
