"""events: what happens, as it happens."""

import time
from datetime import UTC, datetime
from typing import Any, Final

from bennu.cli.client import Client
from bennu.cli.command import command, several, text
from bennu.cli.output import say
from bennu.cli.values import SECOND, encode_filters, parse_filter, parse_timestamp

# Go's names of the fields whose JSON names differ.
ALIASES: Final = {
    "Status": "status",
    "ID": "id",
    "From": "from",
    "Scope": "scope",
    "Time": "time",
    "TimeNano": "timeNano",
}


def show_event(event: dict[str, Any]) -> str:
    """`2026-01-02T03:04:05.000000000Z container die ID (exitCode=0, image=x, name=y)`."""
    actor = event["Actor"]
    line = f"{show_moment(event)} {event['Type']} {event['Action']} {actor['ID']}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        line += " (" + ", ".join(f"{name}={attributes[name]}" for name in sorted(attributes)) + ")"
    return line


def show_moment(event: dict[str, Any]) -> str:
    nanoseconds = event.get("timeNano") or event.get("time", 0) * SECOND
    moment = datetime.fromtimestamp(nanoseconds // SECOND, UTC).astimezone()
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % SECOND:09d}{zone}"


@command(
    "",
    several("-f, --filter", "Filter output based on conditions provided", kind="filter", parse=parse_filter),
    text("--format", "Format output using a Go template, or 'json'"),
    text("--since", "Show all events created since timestamp"),
    text("--until", "Stream events until this timestamp"),
    most=0,
)
def events(
    client: Client, words: list[str], *, filter: list[str], format: str | None, since: str | None, until: str | None
) -> None:
    now_ns = time.time_ns()
    query = {
        "filters": encode_filters(filter),
        "since": parse_timestamp(since, now_ns) if since else None,
        "until": parse_timestamp(until, now_ns) if until else None,
    }
    answer = client.call("GET", "/events", query=query)
    for event in answer.objects():
        if format is None:
            say(show_event(event))
        else:
            from bennu.cli.formatting import Aliased, print_formatted

            print_formatted(format, Aliased(event, ALIASES))
