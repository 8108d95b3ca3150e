"""The daemon's progress messages on the screen: bars on a terminal, plain lines anywhere else."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from bennu.cli.failure import Failure
from bennu.cli.output import human_size, visible

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
            stream.write(visible(status_line(message), stream) + "\n")
        stream.flush()


def has_numbers(message: Message) -> bool:
    return bool((message.get("progressDetail") or {}).get("current") or message.get("progress"))


def status_line(message: Message) -> str:
    status = str(message.get("status", ""))
    return f"{message['id']}: {status}" if message.get("id") else status


def show_bars(messages: Iterable[Message], stream: TextIO) -> list[Any]:
    """One line for each id that moves, everything else above those lines."""
    found: list[Any] = []
    with Bars(stream) as bars:
        for message in messages:
            check_error(message)
            if message.get("aux") is not None:
                found.append(message["aux"])
            elif message.get("stream"):
                bars.write(message["stream"])
            elif message.get("id") and "progressDetail" in message:
                bars.move(message)
            else:
                bars.write(visible(status_line(message), stream) + "\n")
    return found


class Bars:
    """A terminal with bars at its end. Until the first one moves, output is plain (and rich is not loaded)."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live: Any = None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *reason: object) -> None:
        if self.live is not None:
            self.live.stop()

    def write(self, text: str) -> None:
        if self.live is not None:
            self.live.console.out(text, end="", highlight=False)
            return
        self.stream.write(text)
        self.stream.flush()

    def move(self, message: Message) -> None:
        identity, detail = message["id"], message.get("progressDetail") or {}
        done, total, status = detail.get("current", 0), detail.get("total") or None, message.get("status", "")
        if identity not in self.tasks:
            self.tasks[identity] = self._open().add_task(identity, total=None, status="", size="")
        changes: dict[str, Any] = {"status": status} if status else {}
        if done or total:
            size = human_size(done, 3) + (f"/{human_size(total, 3)}" if total else "")
            changes |= {"completed": done, "total": total, "size": size}
        elif any(word in status.lower() for word in ("complete", "exists")):
            changes |= {"completed": 1, "total": 1, "size": ""}
        self.live.update(self.tasks[identity], **changes)

    def _open(self) -> Any:
        if self.live is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            name = TextColumn("{task.description}: {task.fields[status]}", markup=False)
            size = TextColumn("{task.fields[size]}", markup=False)
            self.live = Progress(name, BarColumn(), size, console=Console(file=self.stream))
            self.live.start()
        return self.live
