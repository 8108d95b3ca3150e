"""secret and config: small files that tasks are given."""

import base64
import sys
from pathlib import Path
from typing import Any, Final

from bennu.cli.client import Client, segment
from bennu.cli.command import Spec, command, several, switch, text
from bennu.cli.commands.life import for_each
from bennu.cli.commands.tasks import natural, stamp
from bennu.cli.failure import Failure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import human_age, say
from bennu.cli.values import as_mapping, encode_filters, parse_filter

FILTER: Final = several("-f, --filter", "Filter output based on conditions provided", kind="filter", parse=parse_filter)
COLUMNS: Final = {"secret": "ID Name Driver Created Updated", "config": "ID Name Created Updated"}


def describe(item: dict[str, Any], now: float) -> dict[str, Any]:
    return {
        "ID": item["ID"],
        "Name": item["Spec"]["Name"],
        "Driver": (item["Spec"].get("Driver") or {}).get("Name", ""),
        "Created": human_age(stamp(item["CreatedAt"]), now),
        "Updated": human_age(stamp(item["UpdatedAt"]), now),
    }


def read_data(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise Failure(f"error reading content from {name!r}: {error.strerror}") from None


def _create(kind: str) -> Spec:
    @command(f"{kind.upper()} file|-", several("-l, --label", f"{kind.title()} labels"), least=2, most=2)
    def create(client: Client, words: list[str], *, label: list[str]) -> None:
        data = base64.b64encode(read_data(words[1])).decode()
        body = {"Name": words[0], "Labels": as_mapping(label), "Data": data}
        say(client.json("POST", f"/{kind}s/create", json_body=body)["ID"])

    return create


def _ls(kind: str) -> Spec:
    @command(
        "",
        FILTER,
        text("--format", "Format output using a Go template"),
        switch("-q, --quiet", "Only display IDs"),
        most=0,
    )
    def ls(client: Client, words: list[str], *, filter: list[str], format: str | None, quiet: bool) -> None:
        found = client.json("GET", f"/{kind}s", query={"filters": encode_filters(filter)})
        listing = Listing(headers={}, columns=COLUMNS[kind], quiet="ID")
        print_list(listing, sorted(found, key=lambda one: natural(one["Spec"]["Name"])), describe, format, quiet)

    return ls


def _rm(kind: str) -> Spec:
    @command(f"{kind.upper()} [{kind.upper()}...]", least=1)
    def rm(client: Client, words: list[str]) -> None:
        def remove(name: str) -> str:
            client.do("DELETE", f"/{kind}s/{segment(name)}")
            return name

        for_each(words, remove)

    return rm


secret_create, secret_ls, secret_rm = _create("secret"), _ls("secret"), _rm("secret")
config_create, config_ls, config_rm = _create("config"), _ls("config"), _rm("config")
