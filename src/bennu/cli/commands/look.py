"""Looking into a container: top, port, diff; and update."""

from typing import Any, Final

from bennu.cli.client import Client, segment
from bennu.cli.command import command, text
from bennu.cli.commands.life import NAMES
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.output import complain, say
from bennu.cli.run_body import parse_restart, put
from bennu.cli.run_options import RESOURCES

CHANGE_LETTERS: Final = "CAD"
TOP_WIDTH: Final = 20


@command("CONTAINER [ps OPTIONS]", least=1, interspersed=False)
def top(client: Client, words: list[str]) -> None:
    arguments = " ".join(words[1:])
    found = client.json("GET", f"/containers/{segment(words[0])}/top", query={"ps_args": arguments or None})
    rows = [found["Titles"], *(found["Processes"] or [])]
    for row in rows:
        cells = [
            cell.ljust(max(TOP_WIDTH, max(len(other[column]) for other in rows) + 3)) for column, cell in enumerate(row)
        ]
        say("".join([*cells[:-1], row[-1]]))


@command("CONTAINER [PRIVATE_PORT[/PROTO]]", least=1, most=2)
def port(client: Client, words: list[str]) -> None:
    found = client.json("GET", f"/containers/{segment(words[0])}/json")
    ports: dict[str, list[dict[str, str]] | None] = found["NetworkSettings"]["Ports"] or {}
    if len(words) == 2:
        number, _, protocol = words[1].partition("/")
        wanted = f"{number}/{protocol or 'tcp'}"
        if not ports.get(wanted):
            raise Failure(f"Error: No public port '{words[1]}' published for {words[0]}")
        for binding in ports[wanted] or []:
            say(show_binding(binding))
        return
    for name in sorted(ports, key=lambda name: (int(name.partition("/")[0]), name)):
        for binding in ports[name] or []:
            say(f"{name} -> {show_binding(binding)}")


def show_binding(binding: dict[str, str]) -> str:
    address = binding["HostIp"]
    return f"[{address}]:{binding['HostPort']}" if ":" in address else f"{address}:{binding['HostPort']}"


@command("CONTAINER", least=1, most=1)
def diff(client: Client, words: list[str]) -> None:
    changes = client.json("GET", f"/containers/{segment(words[0])}/changes")
    for change in changes or []:
        say(f"{CHANGE_LETTERS[change['Kind']]} {change['Path']}")


@command(NAMES, *RESOURCES, text("--restart", "Restart policy to apply when a container exits"), least=1)
def update(client: Client, words: list[str], *, restart: str | None, **values: Any) -> None:
    if restart is None and all(value is None for value in values.values()):
        raise Failure("you must provide one or more flags when using this command")
    body: dict[str, Any] = {"HostConfig": {}}
    for option in RESOURCES:
        put(body, option, values[option.key])
    change = body["HostConfig"]
    if restart is not None:
        change["RestartPolicy"] = parse_restart(restart)
    failures = []
    for name in words:
        try:
            answer = client.json("POST", f"/containers/{segment(name)}/update", json_body=change)
        except ApiFailure as failure:
            failures.append(str(failure))
            continue
        say(name)
        for warning in (answer or {}).get("Warnings") or []:
            complain(warning)
    if failures:
        raise Failure("\n".join(failures))
