"""volume: named places that outlive containers."""

from typing import Any

from bennu.cli.client import Client, segment
from bennu.cli.command import command, several, switch, text
from bennu.cli.commands.life import for_each
from bennu.cli.failure import Failure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import human_size, say
from bennu.cli.prompt import confirm
from bennu.cli.values import as_mapping, encode_filters, parse_filter

FILTER = several("-f, --filter", "Provide filter values", kind="filter", parse=parse_filter)
LISTING = Listing(
    headers={"Name": "VOLUME NAME", "Size": "SIZE", "Availability": "AVAILABILITY"},
    columns="Driver Name",
    quiet="Name",
)


@command(
    "[VOLUME]",
    text("-d, --driver", "Specify volume driver name", default="local"),
    several("--label", "Set metadata for a volume"),
    text("--name", "Volume name"),
    several("-o, --opt", "Set driver specific options", kind="map"),
    most=1,
)
def create(
    client: Client, words: list[str], *, driver: str, label: list[str], name: str | None, opt: list[str]
) -> None:
    if words and name:
        raise Failure("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
    body = {
        "Name": words[0] if words else name or "",
        "Driver": driver,
        "DriverOpts": as_mapping(opt),
        "Labels": as_mapping(label),
    }
    say(client.json("POST", "/volumes/create", json_body=body)["Name"])


def describe(item: dict[str, Any], now: float) -> dict[str, Any]:
    labels = item.get("Labels") or {}
    return {
        "Name": item["Name"],
        "Driver": item["Driver"],
        "Scope": item["Scope"],
        "Mountpoint": item["Mountpoint"],
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "Links": "N/A",
        "Size": "N/A",
        "Status": "N/A",
        "Group": "N/A",
        "Availability": "N/A",
        "Label": lambda name: labels.get(name, ""),
    }


@command(
    "",
    FILTER,
    text("--format", "Format output using a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'"),
    switch("-q, --quiet", "Only display volume names"),
    most=0,
)
def ls(client: Client, words: list[str], *, filter: list[str], format: str | None, quiet: bool) -> None:
    found = client.json("GET", "/volumes", query={"filters": encode_filters(filter)})
    volumes = sorted(found["Volumes"] or [], key=lambda volume: str(volume["Name"]))
    print_list(LISTING, volumes, describe, format, quiet)


@command("VOLUME [VOLUME...]", switch("-f, --force", "Force the removal of one or more volumes"), least=1)
def rm(client: Client, words: list[str], *, force: bool) -> None:
    def remove(name: str) -> None:
        client.do("DELETE", f"/volumes/{segment(name)}", query={"force": force})

    for_each(words, remove)


@command(
    "",
    switch("-a, --all", "Remove all unused volumes, not just anonymous ones"),
    several("--filter", 'Provide filter values (e.g. "label=<label>")', kind="filter", parse=parse_filter),
    switch("-f, --force", "Do not prompt for confirmation"),
    most=0,
)
def prune(client: Client, words: list[str], *, all: bool, filter: list[str], force: bool) -> None:
    what = "local volumes" if all else "anonymous local volumes"
    if not force and not confirm(f"WARNING! This will remove {what} not used by at least one container."):
        raise Failure("volume prune has been cancelled")
    report_reclaimed(prune_volumes(client, filter, all=all))


def prune_volumes(client: Client, filter: list[str], *, all: bool) -> int:
    """Answers the bytes reclaimed."""
    filters = encode_filters([*filter, "all=true"] if all else filter)
    report = client.json("POST", "/volumes/prune", query={"filters": filters})
    report_pruned("Volumes", report.get("VolumesDeleted"))
    return int(report.get("SpaceReclaimed", 0))


def report_pruned(what: str, names: list[str] | None) -> None:
    if names:
        say(f"Deleted {what}:")
        for name in names:
            say(name)
        say("")


def report_reclaimed(size_bytes: int) -> None:
    say(f"Total reclaimed space: {human_size(size_bytes)}")
