"""The daemon's progress messages on the screen: bars on a terminal, plain lines anywhere else."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from bennu.cli.failure import Failure

Message = dict[str, Any]


def show_progress(messages: Iterable[Message], *, out: TextIO | None = None, quiet: bool = False) -> list[Any]:
    """Show the messages as they come; the `aux` values among them.

    Raises: Failure with the daemon's words (and its exit code, for a build) as soon as one is an error.
    """
    stream = out or sys.stdout
    if quiet:
        return list(collect(messages))
    if stream.isatty():
        return show_bars(messages, stream)
    return list(show_lines(messages, stream))


def check_error(message: Message) -> None:
    detail = message.get("errorDetail") or {}
    text = message.get("error") or detail.get("message")
    if text:
        raise Failure(str(text), int(detail.get("code") or 1))


def collect(messages: Iterable[Message]) -> Iterator[Any]:
    for message in messages:
        check_error(message)
        if message.get("aux") is not None:
            yield message["aux"]


def show_lines(messages: Iterable[Message], stream: TextIO) -> Iterator[Any]:
    for message in messages:
        check_error(message)
        if message.get("aux") is not None:
            yield message["aux"]
        elif message.get("stream"):
            stream.write(message["stream"])
        elif not has_numbers(message):
            stream.write(status_line(message) + "\n")
        stream.flush()


def has_numbers(message: Message) -> bool:
    return bool((message.get("progressDetail") or {}).get("current") or message.get("progress"))


def status_line(message: Message) -> str:
    status = str(message.get("status", ""))
    return f"{message['id']}: {status}" if message.get("id") else status


def show_bars(messages: Iterable[Message], stream: TextIO) -> list[Any]:
    """One line for each id that moves, everything else above it."""
    found: list[Any] = []
    with bars(stream) as live:
        tasks: dict[str, Any] = {}
        for message in messages:
            check_error(message)
            if message.get("aux") is not None:
                found.append(message["aux"])
            elif message.get("stream"):
                live.console.out(message["stream"], end="", highlight=False)
            elif message.get("id") and "progressDetail" in message:
                move_bar(live, tasks, message)
            else:
                live.console.out(status_line(message), highlight=False)
    return found


def move_bar(live: Any, tasks: dict[str, Any], message: Message) -> None:
    identity, detail = message["id"], message.get("progressDetail") or {}
    if identity not in tasks:
        tasks[identity] = live.add_task(identity, total=None, status="")
    total = detail.get("total") or None
    changes: dict[str, Any] = {"status": message.get("status", "")}
    if total or detail.get("current"):
        changes |= {"completed": detail.get("current", 0), "total": total}
    elif "complete" in changes["status"].lower() or "exists" in changes["status"].lower():
        changes |= {"completed": 1, "total": 1}
    live.update(tasks[identity], **changes)


@contextmanager
def bars(stream: TextIO) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = Console(file=stream)
    columns = (TextColumn("{task.description}: {task.fields[status]}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console) as live:
        yield live
