"""The short commands that change a container's state."""

from collections.abc import Callable
from urllib.parse import quote

from bennu.cli.client import Client, segment
from bennu.cli.command import command, integer, switch, text
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.output import complain, say

NAMES = "CONTAINER [CONTAINER...]"
SIGNAL = "-s, --signal"


def for_each(names: list[str], act: Callable[[str], str | None]) -> None:
    """Do it for every name and print what comes back (None: the name, "": nothing); complain at the end."""
    failures = []
    for name in names:
        try:
            shown = act(name)
        except ApiFailure as failure:
            failures.append(str(failure))
            continue
        if shown != "":
            say(name if shown is None else shown)
    if failures:
        raise Failure("\n".join(failures))


def post(client: Client, name: str, verb: str, query: dict[str, str | int | None] | None = None) -> None:
    client.do("POST", f"/containers/{segment(name)}/{verb}", query=query)


@command(NAMES, text(SIGNAL, "Signal to send to the container"), least=1)
def kill(client: Client, words: list[str], *, signal: str | None) -> None:
    for_each(words, lambda name: post(client, name, "kill", {"signal": signal}))


STOP_OPTIONS = (
    text(SIGNAL, "Signal to send to the container"),
    integer("-t, --timeout", "Seconds to wait before killing the container"),
    integer("--time", "Seconds to wait before killing the container"),
)


@command(NAMES, *STOP_OPTIONS, least=1)
def stop(client: Client, words: list[str], *, signal: str | None, timeout: int | None, time: int | None) -> None:
    query = {"signal": signal, "t": timeout if timeout is not None else time}
    for_each(words, lambda name: post(client, name, "stop", query))


@command(NAMES, *STOP_OPTIONS, least=1)
def restart(client: Client, words: list[str], *, signal: str | None, timeout: int | None, time: int | None) -> None:
    query = {"signal": signal, "t": timeout if timeout is not None else time}
    for_each(words, lambda name: post(client, name, "restart", query))


@command(NAMES, least=1)
def pause(client: Client, words: list[str]) -> None:
    for_each(words, lambda name: post(client, name, "pause"))


@command(NAMES, least=1)
def unpause(client: Client, words: list[str]) -> None:
    for_each(words, lambda name: post(client, name, "unpause"))


@command(
    NAMES,
    switch("-f, --force", "Force the removal of a running container (uses SIGKILL)"),
    switch("-l, --link", "Remove the specified link"),
    switch("-v, --volumes", "Remove anonymous volumes associated with the container"),
    least=1,
)
def rm(client: Client, words: list[str], *, force: bool, link: bool, volumes: bool) -> None:
    query = {"force": force, "link": link, "v": volumes}

    def remove(name: str) -> str | None:
        if not name.strip("/"):
            raise Failure("Container name cannot be empty")
        try:
            client.do("DELETE", f"/containers/{quote(name.strip('/'))}", query=query)
        except ApiFailure as failure:
            if not (force and failure.status == 404):
                raise
            complain(str(failure))  # forced: what is not there is gone
            return ""
        return name

    for_each(words, remove)


@command("CONTAINER NEW_NAME", least=2, most=2)
def rename(client: Client, words: list[str]) -> None:
    old, new = words[0].strip(), words[1].strip()
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    client.do("POST", f"/containers/{segment(old)}/rename", query={"name": new})


@command(NAMES, least=1)
def wait(client: Client, words: list[str]) -> None:
    def await_end(name: str) -> str:
        ended = client.json("POST", f"/containers/{segment(name)}/wait")
        return str(ended["StatusCode"])

    for_each(words, await_end)
