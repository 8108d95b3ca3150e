"""stack: services that belong together, made from a compose file."""

import time
from collections import Counter
from typing import Any, Final

from bennu.cli.client import Client
from bennu.cli.command import command, several, switch, text
from bennu.cli.commands.service import LISTING as SERVICES
from bennu.cli.commands.service import describe
from bennu.cli.commands.service_progress import follow_progress
from bennu.cli.commands.tasks import print_tasks
from bennu.cli.failure import Failure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import complain
from bennu.cli.stacks.composefile import load
from bennu.cli.stacks.deploy import deploy as deploy_stack
from bennu.cli.stacks.deploy import of_stack, remove
from bennu.cli.stacks.objects import NAMESPACE
from bennu.cli.values import encode_filters, parse_filter

LISTING: Final = Listing(headers={}, columns="Name Services", quiet="Name")
FILTER: Final = several("-f, --filter", "Filter output based on conditions provided", kind="filter", parse=parse_filter)
FORMAT: Final = text("--format", "Format output using a Go template")
IN_BACKGROUND: Final = (
    "Since --detach=false was not specified, tasks will be created in the background.\n"
    "In a future release, --detach=false will become the default."
)
RESOLVE: Final = ("always", "changed", "never")
KINDS: Final = ("service", "secret", "config", "network")
LOOK_EVERY_S: Final = 0.2
ENDED: Final = frozenset({"complete", "shutdown", "failed", "rejected", "orphaned"})


def check_name(name: str) -> None:
    if not name.strip("'\" \t"):
        raise Failure(f'invalid stack name: "{name}"')


@command(
    "STACK",
    several("-c, --compose-file", 'Path to a Compose file, or "-" to read from stdin'),
    switch("-d, --detach", "Exit immediately instead of waiting for the stack services to converge", default=True),
    switch("--prune", "Prune services that are no longer referenced"),
    switch("-q, --quiet", "Suppress progress output"),
    text("--resolve-image", "always, changed or never; an image is used as it is named either way", default="always"),
    least=1,
    most=1,
)
def deploy(
    client: Client,
    words: list[str],
    *,
    compose_file: list[str],
    detach: bool,
    prune: bool,
    quiet: bool,
    resolve_image: str,
    given: set[str],
) -> None:
    check_name(words[0])
    if resolve_image not in RESOLVE:
        raise Failure(f'Invalid option "{resolve_image}" for flag --resolve-image')
    if detach and "detach" not in given:
        complain(IN_BACKGROUND)
    ids = deploy_stack(client, words[0], load(compose_file), prune=prune)
    for service_id in () if detach else ids:
        follow_progress(client, service_id, quiet=quiet)


@command("", FORMAT, most=0)
def ls(client: Client, words: list[str], *, format: str | None) -> None:
    services = client.json("GET", "/services", query={"filters": encode_filters([f"label={NAMESPACE}"])})
    stacks = sorted(Counter(one["Spec"]["Labels"][NAMESPACE] for one in services).items())
    rows = [{"Name": name, "Services": str(count)} for name, count in stacks]
    print_list(LISTING, rows, lambda row, now: row, format, quiet=False)


@command(
    "STACK",
    FILTER,
    switch("--no-trunc", "Do not truncate output"),
    switch("-q, --quiet", "Only display task IDs"),
    FORMAT,
    least=1,
    most=1,
)
def ps(client: Client, words: list[str], *, filter: list[str], no_trunc: bool, quiet: bool, format: str | None) -> None:
    wanted = [*filter, f"label={NAMESPACE}={words[0]}"]
    if not print_tasks(client, wanted, full=no_trunc, quiet=quiet, form=format):
        raise Failure(f"nothing found in stack: {words[0]}")


@command("STACK", FILTER, switch("-q, --quiet", "Only display IDs"), FORMAT, least=1, most=1)
def services(client: Client, words: list[str], *, filter: list[str], quiet: bool, format: str | None) -> None:
    wanted = encode_filters([*filter, f"label={NAMESPACE}={words[0]}"])
    found = client.json("GET", "/services", query={"filters": wanted, "status": True})
    if not found:
        complain(f"Nothing found in stack: {words[0]}")
        return
    print_list(SERVICES, sorted(found, key=lambda one: str(one["Spec"]["Name"])), describe, format, quiet)


@command("STACK [STACK...]", switch("-d, --detach", "Do not wait for stack removal", default=True), least=1)
def rm(client: Client, words: list[str], *, detach: bool) -> None:
    failed = []
    for name in words:
        check_name(name)
        items = {kind: of_stack(client, f"{kind}s", name) for kind in KINDS}
        if not any(items.values()):
            complain(f"Nothing found in stack: {name}")
            continue
        all_gone = True
        for kind in KINDS:
            all_gone = remove(client, kind, items[kind]) and all_gone
            if kind == "service" and not detach:
                await_end(client, name)
        if not all_gone:
            failed.append(f"failed to remove some resources from stack: {name}")
    if failed:
        raise Failure("\n".join(failed))


def await_end(client: Client, stack: str) -> None:
    """Until no task of the stack is alive."""
    filters = encode_filters([f"label={NAMESPACE}={stack}"])

    def alive() -> list[dict[str, Any]]:
        tasks = client.json("GET", "/tasks", query={"filters": filters})
        return [task for task in tasks if task["Status"]["State"] not in ENDED]

    while alive():
        time.sleep(LOOK_EVERY_S)
