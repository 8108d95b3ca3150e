"""stack: services that belong together, as `docker stack deploy` made them."""

from collections import Counter
from typing import Final

from bennu.cli.client import Client
from bennu.cli.command import command, switch, text
from bennu.cli.commands.service import LISTING as SERVICES
from bennu.cli.commands.service import describe
from bennu.cli.commands.tasks import print_tasks
from bennu.cli.failure import Failure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import say
from bennu.cli.values import encode_filters

LABEL: Final = "com.docker.stack.namespace"
LISTING: Final = Listing(headers={}, columns="Name Services", quiet="Name")


def of_stack(name: str) -> str | None:
    return encode_filters([f"label={LABEL}={name}"])


@command("", text("--format", "Format output using a Go template"), most=0)
def ls(client: Client, words: list[str], *, format: str | None) -> None:
    services = client.json("GET", "/services", query={"filters": encode_filters([f"label={LABEL}"])})
    stacks = sorted(Counter(one["Spec"]["Labels"][LABEL] for one in services).items())
    rows = [{"Name": name, "Services": str(count)} for name, count in stacks]
    print_list(LISTING, rows, lambda row, now: row, format, quiet=False)


@command(
    "STACK",
    switch("--no-trunc", "Do not truncate output"),
    switch("-q, --quiet", "Only display task IDs"),
    least=1,
    most=1,
)
def ps(client: Client, words: list[str], *, no_trunc: bool, quiet: bool) -> None:
    print_tasks(client, [f"label={LABEL}={words[0]}"], full=no_trunc, quiet=quiet, form=None)


@command("STACK", switch("-q, --quiet", "Only display IDs"), least=1, most=1)
def services(client: Client, words: list[str], *, quiet: bool) -> None:
    found = client.json("GET", "/services", query={"filters": of_stack(words[0]), "status": True})
    print_list(SERVICES, found, describe, None, quiet)


@command("STACK [STACK...]", least=1)
def rm(client: Client, words: list[str]) -> None:
    for name in words:
        removed = 0
        for kind in ("services", "secrets", "configs", "networks"):
            for item in client.json("GET", f"/{kind}", query={"filters": of_stack(name)}):
                shown = item["Spec"]["Name"] if "Spec" in item else item["Name"]
                say(f"Removing {kind[:-1]} {shown}")
                client.do("DELETE", f"/{kind}/{item.get('ID') or item['Id']}")
                removed += 1
        if not removed:
            raise Failure(f"Nothing found in stack: {name}")
