"""why: how a container died, who asked for it, and what was decided then."""

import json as json_module
from typing import Any

import click

from bennu.cli.client import ApiClient, segment
from bennu.cli.commands.why_service import find_story, tell
from bennu.cli.failure import ApiFailure, CommandFailure
from bennu.cli.output import align, say


@click.command()
@click.option("-a", "--all", is_flag=True, help="Show all its lives in a table, newest first")
@click.option("--json", is_flag=True, help="Print the certificates as JSON")
@click.argument("name", metavar="CONTAINER|SERVICE|TASK")
@click.pass_obj
def why(client: ApiClient, name: str, all: bool, json: bool) -> None:
    """Tell why a container died, who asked for it, and what was decided then."""
    # What there is goes before what there was: a service may bear the name of a container that was removed.
    if not is_container(client, name) and (story := find_story(client, name)) is not None:
        print_json(story) if json else tell(story)
        return
    deaths = client.json("GET", f"/bennu/v1/containers/{segment(name)}/deaths")
    if json:
        print_json(deaths if all else deaths[:1])
        return
    if not deaths:
        raise CommandFailure(f"{name} has not died yet")
    if all:
        say(align([HEADERS, *(row(death) for death in deaths)]))
    else:
        say("\n".join(full_story(deaths[0])))


def is_container(client: ApiClient, name: str) -> bool:
    try:
        client.json("GET", f"/containers/{segment(name)}/json")
    except ApiFailure:
        return False
    return True


HEADERS = ("LIFE", "ENDED", "LIVED", "CAUSE", "EXIT", "ASKED BY", "THEN")


def print_json(found: object) -> None:
    say(json_module.dumps(found, indent=4, ensure_ascii=False))


def row(death: dict[str, Any]) -> tuple[str, ...]:
    from bennu.cli.output import ellipsis
    from bennu.lifecycle.telling import format_ns

    code = death["ExitCode"]
    return (
        str(death["Life"]),
        shorten_time(death["FinishedAt"]),
        format_ns(death["Lived"]),
        death["Cause"],
        "unknown" if code is None else str(code),
        ellipsis(asker(death["AskedBy"]), 40),
        f"{death['Decision']['Action']}: {death['Decision']['Reason']}",
    )


def full_story(death: dict[str, Any]) -> list[str]:
    from bennu.lifecycle.telling import last_line

    lines = [*death["Story"]]
    if death["Hints"]:
        lines += ["", *(f"Hint: {hint}" for hint in death["Hints"])]
    lines += ["", *align(facts(death)).splitlines()]
    for signal in death["Signals"]:
        lines.append(f"Signal:   {milliseconds(signal['Time'])}  {signal['Name']} ({signal['Verb']})")
    if death["HealthCheck"]:
        lines.append(f"Health:   {death['HealthCheck']}")
    for probe in death["Probes"][-3:]:
        lines.append(f"Probe:    {shorten_time(probe['End'])}  {probe['ExitCode']}  {last_line(probe['Output'])}")
    if death["LogTail"]:
        lines += ["", "It said last:", *(f"  {line}" for line in death["LogTail"])]
    return lines


def facts(death: dict[str, Any]) -> list[tuple[str, str]]:
    from bennu.lifecycle.telling import format_bytes, format_ns

    began, ended = shorten_time(death["StartedAt"]), shorten_time(death["FinishedAt"])
    found = [
        ("Container", f"{death['Name']} ({death['ContainerID'][:12]}), image {death['Image']}"),
        ("Life", f"{death['Life']}, from {began} to {ended}" if began else f"none began; tried until {ended}"),
        ("Lived", format_ns(death["Lived"])),
        ("Cause", death["Cause"]),
        ("Exit", death["Meaning"]),
        ("Error", death["Error"]),
        ("Asked by", asker(death["AskedBy"])),
        ("Policy", death["RestartPolicy"]),
        ("Then", f"{death['Decision']['Action']}: {death['Decision']['Reason']}"),
        ("Next try", milliseconds(death["Decision"]["NextTry"])),
    ]
    if oom := death["Oom"]:
        who = "its first process" if oom["MainProcess"] else "children of it"
        limit = format_bytes(oom["LimitBytes"]) if oom["LimitBytes"] else "none"
        memory = f"{oom['Kills']} killed ({who}), limit {limit}, peak {format_bytes(oom['PeakBytes'])}"
        found.append(("Memory", memory))
    return [(f"{name}:", value) for name, value in found if value]


def asker(by: dict[str, Any]) -> str:
    if by["Kind"] == "client" and by["Pid"] is not None:
        return f"{by['Command'] or 'a client'} (pid {by['Pid']}, uid {by['Uid']})"
    if by["Subject"]:
        return f"{by['Subject']} over TLS"
    return " ".join(filter(None, (by["Kind"], by["Command"])))


def shorten_time(moment: str) -> str:
    """`2026-03-01 12:00:00Z`; "" stays so."""
    return moment[:19].replace("T", " ") + "Z" if moment else ""


def milliseconds(moment: str) -> str:
    """`2026-03-01 12:00:00.250Z`; "" stays so."""
    fraction = moment[19:].strip(".Z").ljust(3, "0")[:3]
    return f"{moment[:19].replace('T', ' ')}.{fraction}Z" if moment else ""
