"""ps: the list of containers."""

from typing import Any

from bennu.cli.client import Client
from bennu.cli.command import command, integer, several, switch, text
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import created_at, ellipsis, go_quote, human_age, human_size, shorten_id
from bennu.cli.values import encode_filters, parse_filter

COMMAND_WIDTH = 20

Item = dict[str, Any]


def format_ports(ports: list[Item]) -> str:
    """Sorted and joined; neighbours that are published on their own number, or not at all, merge into ranges."""
    merged: dict[str, list[list[int]]] = {}
    singles: list[str] = []
    for port in sorted(ports, key=port_order):
        address, private, public = port.get("IP", ""), port["PrivatePort"], port.get("PublicPort", 0)
        shown = f"[{address}]" if ":" in address else address
        if address and public != private:
            singles.append(f"{shown}:{public}->{private}/{port['Type']}")
            continue
        ranges = merged.setdefault(f"{shown}/{port['Type']}" if address else port["Type"], [])
        if ranges and ranges[-1][1] == private - 1:
            ranges[-1][1] = private
        elif not (ranges and ranges[-1][1] == private):
            ranges.append([private, private])
    texts = [range_text(key, first, last) for key, ranges in merged.items() for first, last in ranges]
    return ", ".join(texts + singles)


def port_order(port: Item) -> tuple[int, str, int, str]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]


def range_text(key: str, first: int, last: int) -> str:
    numbers = f"{first}-{last}" if first != last else str(first)
    address, slash, protocol = key.rpartition("/")
    return f"{address}:{numbers}->{numbers}/{protocol}" if slash else f"{numbers}/{protocol}"


def own_names(names: list[str]) -> list[str]:
    """Without the slash, and without the names that other containers' links give."""
    return [name.removeprefix("/") for name in names if "/" not in name.removeprefix("/")]


def describe(item: Item, now: float, *, full: bool) -> Item:
    """The words that `--format` knows."""
    image, command = item["Image"] or "<no image>", item["Command"]
    if not full:
        same = shorten_id(item.get("ImageID", "")) == shorten_id(image)
        image = shorten_id(image) if same else image.partition("@")[0]
        command = ellipsis(command, COMMAND_WIDTH)
    labels = item.get("Labels") or {}
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in item.get("Mounts") or []]
    names = own_names(item.get("Names") or [])
    size = human_size(item.get("SizeRw", 0), 3)
    if item.get("SizeRootFs"):
        size += f" (virtual {human_size(item['SizeRootFs'], 3)})"
    return {
        "Command": go_quote(command),
        "CreatedAt": created_at(item["Created"]),
        "ID": item["Id"] if full else shorten_id(item["Id"]),
        "Image": image,
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "LocalVolumes": str(sum(1 for mount in item.get("Mounts") or [] if mount.get("Driver") == "local")),
        "Mounts": ",".join(name if full else ellipsis(name, 15) for name in mounts),
        "Names": ",".join(item_name.removeprefix("/") for item_name in item["Names"]) if full else ",".join(names[:1]),
        "Networks": ",".join((item.get("NetworkSettings") or {}).get("Networks") or {}),
        "Platform": None,
        "Ports": format_ports(item.get("Ports") or []),
        "RunningFor": human_age(item["Created"], now),
        "Size": size,
        "State": item["State"],
        "Status": describe_status(item),
        "Label": lambda name: labels.get(name, ""),
    }


def describe_status(item: dict[str, Any]) -> str:
    """Docker's status, and whether traffic may come, where a label lets that be known."""
    own = item.get("Bennu")
    if own is None or item["State"] != "running":
        return str(item["Status"])
    return f"{item['Status']} ({'ready' if own['Ready'] else 'not ready'})"


LISTING = Listing(
    headers={
        "ID": "CONTAINER ID",
        "Names": "NAMES",
        "RunningFor": "CREATED",
        "LocalVolumes": "LOCAL VOLUMES",
        "CreatedAt": "CREATED AT",
    },
    columns="ID Image Command RunningFor Status Ports Names",
    quiet="ID",
)


@command(
    "",
    switch("-a, --all", "Show all containers (default shows just running)"),
    several("-f, --filter", "Filter output based on conditions provided", kind="filter", parse=parse_filter),
    text("--format", "Format output using a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'"),
    integer("-n, --last", "Show n last created containers (includes all states)", default=-1),
    switch("-l, --latest", "Show the latest created container (includes all states)"),
    switch("--no-trunc", "Don't truncate output"),
    switch("-q, --quiet", "Only display container IDs"),
    switch("-s, --size", "Display total file sizes"),
    most=0,
)
def ps(
    client: Client,
    words: list[str],
    *,
    all: bool,
    filter: list[str],
    format: str | None,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    if latest and last == -1:
        last = 1
    wants_size = size or (format is not None and ".Size" in format)
    query = {"all": all, "filters": encode_filters(filter), "limit": last if last > 0 else None, "size": wants_size}
    items = client.json("GET", "/containers/json", query=query)
    columns = LISTING.columns + (" Size" if size else "")
    print_list(LISTING, items, lambda item, now: describe(item, now, full=no_trunc), format, quiet, columns)
