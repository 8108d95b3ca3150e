"""image: what containers are made of."""

import sys
from typing import Any

from bennu.cli.client import Client
from bennu.cli.command import command, several, switch, text
from bennu.cli.commands.inspect import image_path
from bennu.cli.commands.life import for_each
from bennu.cli.commands.volumes import report_pruned, report_reclaimed
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import complain, created_at, human_age, human_size, say, shorten_id
from bennu.cli.progress import show_progress
from bennu.cli.prompt import confirm
from bennu.cli.reference import split_reference
from bennu.cli.values import encode_filters, parse_filter

LISTING = Listing(
    headers={"ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT"},
    columns="Repository Tag ID CreatedSince Size",
    quiet="ID",
)
HISTORY = Listing(
    headers={"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY"},
    columns="ID CreatedSince CreatedBy Size Comment",
    quiet="ID",
)
FORMAT = text("--format", "Format output using a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'")
NO_TRUNC = switch("--no-trunc", "Don't truncate output")
QUIET = switch("-q, --quiet", "Only show image IDs")


def pull_image(client: Client, image: str, *, platform: str | None, quiet: bool, to_stderr: bool) -> None:
    """Have the daemon pull `image`, showing its progress."""
    name, tag = split_reference(image)
    query = {"fromImage": name, "tag": tag or "latest", "platform": platform}
    answer = client.call("POST", "/images/create", query=query)
    show_progress(answer.objects(), out=sys.stderr if to_stderr else sys.stdout, quiet=quiet)


@command(
    "NAME[:TAG|@DIGEST]",
    switch("-a, --all-tags", "Download all tagged images in the repository"),
    text("--platform", "Set platform if server is multi-platform capable"),
    switch("-q, --quiet", "Suppress verbose output"),
    least=1,
    most=1,
)
def pull(client: Client, words: list[str], *, all_tags: bool, platform: str | None, quiet: bool) -> None:
    name, tag = split_reference(words[0])
    if all_tags:
        if tag:
            raise Failure("tag can't be used with --all-tags/-a")
        answer = client.call("POST", "/images/create", query={"fromImage": name, "platform": platform})
        show_progress(answer.objects(), quiet=quiet)
        return
    if not tag and not quiet:
        say("Using default tag: latest")
    pull_image(client, words[0], platform=platform, quiet=quiet, to_stderr=False)
    say(words[0] if tag else f"{name}:latest")


def describe_all(items: list[dict[str, Any]], now: float, *, full: bool, digests: bool) -> list[dict[str, Any]]:
    return [row for item in items for row in describe(item, now, full=full, digests=digests)]


def describe(item: dict[str, Any], now: float, *, full: bool, digests: bool) -> list[dict[str, Any]]:
    """One row for each name of the image."""
    by_digest = dict(entry.split("@", 1) for entry in item.get("RepoDigests") or [] if "@" in entry)
    tags = [tag for tag in item.get("RepoTags") or [] if tag != "<none>:<none>"]
    names = [(tag.rpartition(":")[0], tag.rpartition(":")[2]) for tag in tags]
    if not names or digests:
        tagged = {name for name, _ in names}
        names += [(name, "<none>") for name in by_digest if name not in tagged and name != "<none>"]
    rows = []
    for repository, tag in names or [("<none>", "<none>")]:
        rows.append(
            {
                "Repository": repository,
                "Tag": tag,
                "Digest": by_digest.get(repository, "<none>"),
                "ID": item["Id"] if full else shorten_id(item["Id"]),
                "CreatedSince": human_age(item["Created"], now) if item["Created"] > 0 else "N/A",
                "CreatedAt": created_at(item["Created"]),
                "Size": human_size(item["Size"], 3),
                "VirtualSize": human_size(item["Size"], 3),
                "SharedSize": "N/A",
                "UniqueSize": "N/A",
                "Containers": "N/A",
            }
        )
    return rows


@command(
    "[REPOSITORY[:TAG]]",
    switch("-a, --all", "Show all images (default hides intermediate images)"),
    switch("--digests", "Show digests"),
    several("-f, --filter", "Filter output based on conditions provided", kind="filter", parse=parse_filter),
    FORMAT,
    NO_TRUNC,
    QUIET,
    most=1,
)
def images(
    client: Client,
    words: list[str],
    *,
    all: bool,
    digests: bool,
    filter: list[str],
    format: str | None,
    no_trunc: bool,
    quiet: bool,
) -> None:
    import time

    if words:
        filter = [*filter, f"reference={words[0]}"]
    found = client.json("GET", "/images/json", query={"all": all, "filters": encode_filters(filter)})
    rows = describe_all(found, time.time(), full=no_trunc, digests=digests)
    columns = "Repository Tag Digest ID CreatedSince Size" if digests else None
    print_list(LISTING, rows, lambda row, now: row, format, quiet, columns)


@command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", least=2, most=2)
def tag(client: Client, words: list[str]) -> None:
    name, tag_text = split_reference(words[1])
    query = {"repo": name, "tag": tag_text or "latest"}
    client.do("POST", f"/images/{image_path(words[0])}/tag", query=query)


@command(
    "IMAGE [IMAGE...]",
    switch("-f, --force", "Force removal of the image"),
    switch("--no-prune", "Do not delete untagged parents"),
    least=1,
)
def rmi(client: Client, words: list[str], *, force: bool, no_prune: bool) -> None:
    def remove(name: str) -> str:
        query = {"force": force, "noprune": no_prune}
        try:
            report = client.json("DELETE", f"/images/{image_path(name)}", query=query)
        except ApiFailure as failure:
            if not (force and failure.status == 404):
                raise
            complain(str(failure))
            return ""
        return "\n".join(removal_lines(report))

    for_each(words, remove)


def removal_lines(report: list[dict[str, str]] | None) -> list[str]:
    return [
        f"Deleted: {entry['Deleted']}" if entry.get("Deleted") else f"Untagged: {entry['Untagged']}"
        for entry in report or []
    ]


@command(
    "IMAGE",
    FORMAT,
    switch("-H, --human", "Print sizes and dates in human readable format", default=True),
    NO_TRUNC,
    QUIET,
    least=1,
    most=1,
)
def history(client: Client, words: list[str], *, format: str | None, human: bool, no_trunc: bool, quiet: bool) -> None:
    found = client.json("GET", f"/images/{image_path(words[0])}/history")
    print_list(HISTORY, found, lambda item, now: describe_layer(item, now, human, no_trunc), format, quiet)


def describe_layer(item: dict[str, Any], now: float, human: bool, full: bool) -> dict[str, Any]:
    created_by = item["CreatedBy"].replace("\t", " ")
    return {
        "ID": item["Id"] if full else shorten_id(item["Id"]),
        "CreatedSince": human_age(item["Created"], now) if human else created_at(item["Created"]),
        "CreatedAt": created_at(item["Created"]),
        "CreatedBy": created_by if full or len(created_by) <= 45 else created_by[:44] + "…",
        "Size": human_size(item["Size"], 3) if human else str(item["Size"]),
        "Comment": item["Comment"],
    }


@command(
    "",
    switch("-a, --all", "Remove all unused images, not just dangling ones"),
    several("--filter", 'Provide filter values (e.g. "until=<timestamp>")', kind="filter", parse=parse_filter),
    switch("-f, --force", "Do not prompt for confirmation"),
    most=0,
)
def prune(client: Client, words: list[str], *, all: bool, filter: list[str], force: bool) -> None:
    which = "images without at least one container associated to them" if all else "dangling images"
    if not force and not confirm(f"WARNING! This will remove all {which}."):
        raise Failure("image prune has been cancelled")
    report_reclaimed(prune_images(client, filter, all=all))


def prune_images(client: Client, filter: list[str], *, all: bool) -> int:
    """Answers the bytes reclaimed."""
    filters = encode_filters([*filter, f"dangling={'false' if all else 'true'}"])
    report = client.json("POST", "/images/prune", query={"filters": filters})
    lines = [line[:1].lower() + line[1:] for line in removal_lines(report.get("ImagesDeleted"))]
    report_pruned("Images", lines)
    return int(report.get("SpaceReclaimed", 0))
