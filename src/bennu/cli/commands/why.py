"""why: how a container died, who asked for it, and what was decided then; of a service, each slot's lives."""

import json as json_module
from typing import Any

import click

from bennu.cli.client import ApiClient, segment
from bennu.cli.failure import ApiFailure, CommandFailure
from bennu.cli.output import align, say, shorten_id


@click.command()
@click.option("-a", "--all", is_flag=True, help="Show all its lives in a table, newest first")
@click.option("--json", is_flag=True, help="Print the certificates as JSON")
@click.argument("name", metavar="CONTAINER|SERVICE|TASK")
@click.pass_obj
def why(client: ApiClient, name: str, all: bool, json: bool) -> None:
    """Tell why a container died, who asked for it, and what was decided then."""
    # What there is goes before what there was: a service may bear the name of a container that was removed.
    if not is_container(client, name) and (story := find_service_why(client, name)) is not None:
        print_json(story) if json else tell_service(story)
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
ENDING = ("complete", "shutdown", "remove")  # desired states of a task that is to end


def print_json(found: object) -> None:
    say(json_module.dumps(found, indent=4, ensure_ascii=False))


def row(death: dict[str, Any]) -> tuple[str, ...]:
    from bennu.cli.output import ellipsis
    from bennu.lifecycle.death_report import format_ns

    code = death["ExitCode"]
    return (
        str(death["Life"]),
        shorten_time(death["FinishedAt"]),
        format_ns(death["Lived"]),
        death["Cause"],
        "unknown" if code is None else str(code),
        ellipsis(requester(death["AskedBy"]), 40),
        f"{death['Decision']['Action']}: {death['Decision']['Reason']}",
    )


def full_story(death: dict[str, Any]) -> list[str]:
    from bennu.lifecycle.death_report import last_line

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
    from bennu.lifecycle.death_report import format_bytes, format_ns

    began, ended = shorten_time(death["StartedAt"]), shorten_time(death["FinishedAt"])
    found = [
        ("Container", f"{death['Name']} ({death['ContainerID'][:12]}), image {death['Image']}"),
        ("Life", f"{death['Life']}, from {began} to {ended}" if began else f"none began; tried until {ended}"),
        ("Lived", format_ns(death["Lived"])),
        ("Cause", death["Cause"]),
        ("Exit", death["Meaning"]),
        ("Error", death["Error"]),
        ("Asked by", requester(death["AskedBy"])),
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


def requester(by: dict[str, Any]) -> str:
    if by["Kind"] == "client" and by["Pid"] is not None:
        return f"{by['Command'] or 'a client'} (pid {by['Pid']}, uid {by['Uid']})"
    if by["Subject"]:
        return f"{by['Subject']} over TLS"
    return " ".join(filter(None, (by["Kind"], by["Command"])))


def shorten_time(moment: str) -> str:
    """Cut to whole seconds: `2026-03-01 12:00:00Z`; "" stays so."""
    return moment[:19].replace("T", " ") + "Z" if moment else ""


def milliseconds(moment: str) -> str:
    """Cut to milliseconds: `2026-03-01 12:00:00.250Z`; "" stays so."""
    fraction = moment[19:].strip(".Z").ljust(3, "0")[:3]
    return f"{moment[:19].replace('T', ' ')}.{fraction}Z" if moment else ""


# --- of services and tasks --------------------------------------------------------------------------------------


def find_service_why(client: ApiClient, name: str) -> dict[str, Any] | None:
    """Ask about a service of that name, else a task; None if there is neither."""
    for kind in ("services", "tasks"):
        try:
            found: dict[str, Any] = client.json("GET", f"/bennu/v1/{kind}/{segment(name)}/why")
        except ApiFailure:
            continue
        return found
    return None


def tell_service(story: dict[str, Any]) -> None:
    lines = [f"{story['Service']}: {reason}" for reason in story["Waits"]]
    for slot in story["Slots"]:
        lines.append(slot["Name"])
        for task in slot["Tasks"]:
            lines += [f"  {line}" for line in task_lines(task)]
    if story["Decisions"]:
        lines += ["", f"Decisions about {story['Service']}:"]
        lines += [f"  {decision['Time'][:19]}Z  {decision['Reason']}" for decision in story["Decisions"]]
    say("\n".join(lines) if lines else f"{story['Service']} has no tasks")


def task_lines(task: dict[str, Any]) -> list[str]:
    lines = [f"{shorten_id(task['ID'])}  {task['State']} since {task['Since'][:19]}Z  {task['Image']}"]
    if task["Err"]:
        lines.append(f"    {'waits: ' if task['State'] in ('new', 'pending') else ''}{task['Err']}")
    if task.get("Awaits"):
        lines.append(f"    waits: {task['Awaits']}")
    if task["Made"]:
        lines.append(f"    made because {task['Made']}")
    if task["Ended"]:
        word = "to end" if task["Desired"] in ENDING else "let run"
        lines.append(f"    {word} because {task['Ended']}")
    if task["Death"]:
        lines += [f"    {sentence}" for sentence in task["Death"]["Story"][:2]]
        lines += [f"    Hint: {hint}" for hint in task["Death"]["Hints"]]
    return lines
