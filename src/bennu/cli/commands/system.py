"""info, df, prune: the daemon as a whole."""

from typing import Any, Final

from bennu import __version__
from bennu.cli.client import Client
from bennu.cli.command import command, several, switch, text
from bennu.cli.commands.images import prune_images
from bennu.cli.commands.networks import prune_networks
from bennu.cli.commands.volumes import prune_volumes, report_pruned, report_reclaimed
from bennu.cli.failure import Failure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import complain, human_binary_size, human_size, say
from bennu.cli.prompt import confirm
from bennu.cli.values import encode_filters, parse_filter

FORMAT: Final = text("-f, --format", "Format output using a Go template, or 'json'")
SIMPLE: Final = (
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
)
HOST: Final = (
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
)


@command("", FORMAT, most=0)
def info(client: Client, words: list[str], *, format: str | None) -> None:
    mine = {"Debug": False, "Version": __version__}
    if format:
        from bennu.cli.formatting import print_formatted

        print_formatted(format, {**client.json("GET", "/info"), "ClientInfo": mine})
        return
    say(f"Client:\n Version:    {__version__}\n\nServer:")
    found = client.json("GET", "/info")
    for line in info_lines(found):
        say(" " + line)
    for warning in found.get("Warnings") or []:
        complain(warning)


def info_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"Containers: {found['Containers']}"]
    lines += [f" {state}: {found['Containers' + state]}" for state in ("Running", "Paused", "Stopped")]
    lines += [f"Images: {found['Images']}", f"Server Version: {found['ServerVersion']}"]
    lines.append(f"Storage Driver: {found['Driver']}")
    lines += [f" {name}: {value}" for name, value in found.get("DriverStatus") or []]
    lines += [f"{label}: {found.get(key)}" for label, key in SIMPLE]
    plugins = found.get("Plugins") or {}
    lines.append("Plugins:")
    lines += [f" {kind}: {' '.join(plugins[kind])}" for kind in ("Volume", "Network", "Log") if plugins.get(kind)]
    swarm = (found.get("Swarm") or {}).get("LocalNodeState")
    lines += [f"Swarm: {swarm}"] if swarm else []
    lines.append("Runtimes: " + " ".join(sorted(found.get("Runtimes") or {})))
    lines += [f"Default Runtime: {found.get('DefaultRuntime')}", f"Init Binary: {found.get('InitBinary')}"]
    security = found.get("SecurityOptions") or []
    if security:
        lines += ["Security Options:", *(f" {option}" for option in security)]
    lines += [f"{label}: {found.get(key)}" for label, key in HOST]
    lines.append(f"Total Memory: {human_binary_size(found.get('MemTotal', 0))}")
    lines += [f"{label}: {found.get(key)}" for label, key in (("Name", "Name"), ("ID", "ID"))]
    lines.append(f"Bennu Root Dir: {found['DockerRootDir']}")
    lines.append(f"Live Restore Enabled: {str(found.get('LiveRestoreEnabled', False)).lower()}")
    return lines


USAGE: Final = Listing(headers={"TotalCount": "TOTAL"}, columns="Type TotalCount Active Size Reclaimable", quiet="Type")


@command("", text("--format", "Format output using a Go template"), switch("-v, --verbose", "Not there yet"), most=0)
def df(client: Client, words: list[str], *, format: str | None, verbose: bool) -> None:
    if verbose:
        raise Failure("system df --verbose is not implemented")
    found = client.json("GET", "/system/df")
    print_list(USAGE, usage_rows(found), lambda row, now: row, format, quiet=False)


def usage_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    images, containers = found.get("Images") or [], found.get("Containers") or []
    volumes, caches = found.get("Volumes") or [], found.get("BuildCache") or []
    used_layers = sum(image["Size"] - max(image.get("SharedSize", 0), 0) for image in images if image["Containers"])
    idle_images = found.get("LayersSize", 0) - used_layers
    running = [container for container in containers if container["State"] in ("running", "paused", "restarting")]
    idle_containers = sum(container.get("SizeRw", 0) for container in containers if container not in running)
    used = [volume for volume in volumes if (volume.get("UsageData") or {}).get("RefCount", 0) > 0]

    def total(items: list[dict[str, Any]], *path: str) -> int:
        return sum(max(dig(item, path), 0) for item in items)

    idle_volumes = total(volumes, "UsageData", "Size") - total(used, "UsageData", "Size")
    live_images = sum(1 for image in images if image["Containers"])
    return [
        usage("Images", len(images), live_images, found.get("LayersSize", 0), idle_images),
        usage("Containers", len(containers), len(running), total(containers, "SizeRw"), idle_containers),
        usage("Local Volumes", len(volumes), len(used), total(volumes, "UsageData", "Size"), idle_volumes),
        usage("Build Cache", len(caches), 0, total(caches, "Size"), total(caches, "Size")),
    ]


def dig(item: dict[str, Any], path: tuple[str, ...]) -> int:
    value: Any = item
    for name in path:
        value = (value or {}).get(name)
    return int(value or 0)


def usage(kind: str, count: int, active: int, size: int, idle: int) -> dict[str, Any]:
    share = f" ({idle * 100 // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": human_size(idle) + share,
    }


FILTER: Final = several(
    "--filter", 'Provide filter values (e.g. "label=<key>=<value>")', kind="filter", parse=parse_filter
)
FORCE: Final = switch("-f, --force", "Do not prompt for confirmation")


@command("", FILTER, FORCE, most=0)
def container_prune(client: Client, words: list[str], *, filter: list[str], force: bool) -> None:
    if not force and not confirm("WARNING! This will remove all stopped containers."):
        raise Failure("container prune has been cancelled")
    report_reclaimed(prune_containers(client, filter))


def prune_containers(client: Client, filter: list[str]) -> int:
    """Answers the bytes reclaimed."""
    report = client.json("POST", "/containers/prune", query={"filters": encode_filters(filter)})
    report_pruned("Containers", report.get("ContainersDeleted"))
    return int(report.get("SpaceReclaimed", 0))


@command(
    "",
    switch("-a, --all", "Remove all unused images not just dangling ones"),
    FILTER,
    FORCE,
    switch("--volumes", "Prune anonymous volumes"),
    most=0,
)
def prune(client: Client, words: list[str], *, all: bool, filter: list[str], force: bool, volumes: bool) -> None:
    parts = ["all stopped containers", "all networks not used by at least one container"]
    parts += ["all anonymous volumes not used by at least one container"] if volumes else []
    parts.append("all images without at least one container" if all else "all dangling images")
    warning = "WARNING! This will remove:\n" + "\n".join(f"  - {part}" for part in parts) + "\n"
    if not force and not confirm(warning):
        raise Failure("system prune has been cancelled")
    reclaimed = prune_containers(client, filter)
    prune_networks(client, filter)
    if volumes:
        reclaimed += prune_volumes(client, filter, all=False)
    reclaimed += prune_images(client, filter, all=all)
    report_reclaimed(reclaimed)
