"""version: which command and which daemon are talking."""

import platform
from typing import Any

from bennu import API_VERSION, __version__
from bennu.cli.client import Client
from bennu.cli.command import command, text
from bennu.cli.failure import Failure
from bennu.cli.output import say


def client_facts() -> dict[str, Any]:
    return {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": platform.machine().replace("x86_64", "amd64").replace("aarch64", "arm64"),
    }


@command("", text("-f, --format", "Format output using a Go template, or 'json'"), most=0)
def version(client: Client, words: list[str], *, format: str | None) -> None:
    mine = client_facts()
    problem: Failure | None = None
    server: dict[str, Any] | None = None
    try:
        server = client.json("GET", "/version")
    except Failure as failure:
        problem = failure
    if format:
        from bennu.cli.formatting import print_formatted

        print_formatted(format, {"Client": mine, "Server": server})
    else:
        print_blocks(mine, server)
    if problem is not None:
        raise problem


def print_blocks(mine: dict[str, Any], server: dict[str, Any] | None) -> None:
    say("Client:")
    print_fields(
        {
            "Version": mine["Version"],
            "API version": mine["ApiVersion"],
            "Python version": mine["PythonVersion"],
            "OS/Arch": f"{mine['Os']}/{mine['Arch']}",
        },
        indent=1,
    )
    if server is None:
        return
    title = (server.get("Platform") or {}).get("Name", "")
    say(f"\nServer: {title}".rstrip())
    for component in server.get("Components") or []:
        say(f" {component['Name']}:")
        details = component.get("Details") or {}
        shown = {"Version": component["Version"]}
        for key, label in (("ApiVersion", "API version"), ("GitCommit", "Git commit"), ("GoVersion", "Go version")):
            if details.get(key):
                shown[label] = details[key]
        if details.get("MinAPIVersion"):
            shown["API version"] += f" (minimum version {details['MinAPIVersion']})"
        if details.get("Os"):
            shown["OS/Arch"] = f"{details['Os']}/{details.get('Arch', '')}"
        print_fields(shown, indent=2)


def print_fields(fields: dict[str, str], indent: int) -> None:
    for name, value in fields.items():
        say(f"{' ' * indent}{name + ':':<18} {value}")
