"""The short commands that change a container's state."""

from collections.abc import Callable, Iterator
from urllib.parse import quote

from bennu.cli.client import Client, segment
from bennu.cli.command import command, integer, switch, text
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.output import complain, say

NAMES = "CONTAINER [CONTAINER...]"
SIGNAL = "-s, --signal"
AT_ONCE = 50


def for_each(names: list[str], act: Callable[[str], str | None], *, at_once: bool = False) -> None:
    """Do it for every name and print what comes back (None: the name, "": nothing); complain at the end.

    `at_once`: all names at the same time, because each may take its grace period; printed in the order typed.
    """
    failures = []
    for name, outcome in zip(names, outcomes(names, act, at_once=at_once), strict=True):
        if isinstance(outcome, ApiFailure):
            failures.append(str(outcome))
        elif outcome != "":
            say(name if outcome is None else outcome)
    if failures:
        raise Failure("\n".join(failures))


def outcomes(names: list[str], act: Callable[[str], str | None], *, at_once: bool) -> Iterator[str | ApiFailure | None]:
    def attempt(name: str) -> str | ApiFailure | None:
        try:
            return act(name)
        except ApiFailure as failure:
            return failure

    if not at_once or len(names) == 1:
        yield from map(attempt, names)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(len(names), AT_ONCE)) as pool:
        yield from pool.map(attempt, names)


def post(client: Client, name: str, verb: str, query: dict[str, str | int | None] | None = None) -> None:
    client.do("POST", f"/containers/{segment(name)}/{verb}", query=query)


@command(NAMES, text(SIGNAL, "Signal to send to the container"), least=1)
def kill(client: Client, words: list[str], *, signal: str | None) -> None:
    for_each(words, lambda name: post(client, name, "kill", {"signal": signal}), at_once=True)


STOP_OPTIONS = (
    text(SIGNAL, "Signal to send to the container"),
    integer("-t, --timeout", "Seconds to wait before killing the container"),
    integer("--time", "Seconds to wait before killing the container"),
)


@command(NAMES, *STOP_OPTIONS, least=1)
def stop(client: Client, words: list[str], *, signal: str | None, timeout: int | None, time: int | None) -> None:
    query = {"signal": signal, "t": timeout if timeout is not None else time}
    for_each(words, lambda name: post(client, name, "stop", query), at_once=True)


def skip_delay(client: Client, name: str) -> None:
    client.do("POST", f"/bennu/v1/containers/{segment(name)}/restart-now")


@command(NAMES, *STOP_OPTIONS, switch("--now", "Skip the delay of a restart that is pending"), least=1)
def restart(
    client: Client, words: list[str], *, signal: str | None, timeout: int | None, time: int | None, now: bool
) -> None:
    if now:
        for_each(words, lambda name: skip_delay(client, name))
        return
    query = {"signal": signal, "t": timeout if timeout is not None else time}
    for_each(words, lambda name: post(client, name, "restart", query), at_once=True)


@command(NAMES, least=1)
def pause(client: Client, words: list[str]) -> None:
    for_each(words, lambda name: post(client, name, "pause"), at_once=True)


@command(NAMES, least=1)
def unpause(client: Client, words: list[str]) -> None:
    for_each(words, lambda name: post(client, name, "unpause"), at_once=True)


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
            raise Failure("container name cannot be empty")
        try:
            client.do("DELETE", f"/containers/{quote(name.strip('/'))}", query=query)
        except ApiFailure as failure:
            if not (force and failure.status == 404):
                raise
            complain(str(failure))  # forced: what is not there is gone
            return ""
        return name

    for_each(words, remove, at_once=True)


@command("CONTAINER NEW_NAME", least=2, most=2)
def rename(client: Client, words: list[str]) -> None:
    old, new = words[0].strip(), words[1].strip()
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    try:
        client.do("POST", f"/containers/{segment(old)}/rename", query={"name": new})
    except ApiFailure as failure:
        raise Failure(f"{failure}\nError: failed to rename container named {old}") from None


@command(NAMES, least=1)
def wait(client: Client, words: list[str]) -> None:
    def await_end(name: str) -> str:
        ended = client.json("POST", f"/containers/{segment(name)}/wait")
        return str(ended["StatusCode"])

    for_each(words, await_end)
