"""Whole images and filesystems in and out: import, load, save, export, commit."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bennu.cli.client import Client, segment
from bennu.cli.command import command, several, switch, text
from bennu.cli.failure import Failure
from bennu.cli.output import say
from bennu.cli.progress import show_progress
from bennu.cli.reference import split_reference
from bennu.cli.terminal import is_terminal

CHUNK = 1 << 18
TAR = {"Content-Type": "application/x-tar"}


def read_chunks(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(CHUNK):
        yield data


@contextmanager
def open_input(path: str | None) -> Iterator[BinaryIO]:
    """The file, or this process's stdin."""
    if path is None or path == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or str(error)).lower()}") from None


def write_output(chunks: Iterable[bytes], path: str | None, refusal: str) -> None:
    """To the file, which appears only when it is whole, or to stdout unless that is a terminal."""
    if not path:
        if is_terminal(1):
            raise Failure(refusal)
        for data in chunks:
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    if not target.parent.is_dir():
        raise Failure(f"invalid output path: directory {str(target.parent)!r} does not exist")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            for data in chunks:
                file.write(data)
        partial.replace(target)
    except OSError as error:
        raise Failure(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
    finally:
        partial.unlink(missing_ok=True)


REFUSAL = "cowardly refusing to save to a terminal. Use the -o flag or redirect"


@command("IMAGE [IMAGE...]", text("-o, --output", "Write to a file, instead of STDOUT"), least=1)
def save(client: Client, words: list[str], *, output: str | None) -> None:
    if not output and is_terminal(1):
        raise Failure(REFUSAL)
    write_output(client.call("GET", "/images/get", query={"names": words}).chunks(), output, REFUSAL)


@command("CONTAINER", text("-o, --output", "Write to a file, instead of STDOUT"), least=1, most=1)
def export(client: Client, words: list[str], *, output: str | None) -> None:
    if not output and is_terminal(1):
        raise Failure(REFUSAL)
    write_output(client.call("GET", f"/containers/{segment(words[0])}/export").chunks(), output, REFUSAL)


@command(
    "",
    text("-i, --input", "Read from tar archive file, instead of STDIN"),
    switch("-q, --quiet", "Suppress the load output"),
    most=0,
)
def load(client: Client, words: list[str], *, input: str | None, quiet: bool) -> None:
    if input is None and is_terminal(0):
        raise Failure("requested load from stdin, but stdin is empty")
    with open_input(input) as file:
        query = {"quiet": "1" if quiet or not is_terminal(1) else "0"}
        answer = client.call("POST", "/images/load", query=query, body=read_chunks(file), headers=TAR)
        show_progress(answer.objects())


@command(
    "file|URL|- [REPOSITORY[:TAG]]",
    several("-c, --change", "Apply Dockerfile instruction to the created image"),
    text("-m, --message", "Set commit message for imported image", default=""),
    text("--platform", "Set platform if server is multi-platform capable"),
    least=1,
    most=2,
)
def import_(client: Client, words: list[str], *, change: list[str], message: str, platform: str | None) -> None:
    name, tag = split_reference(words[1]) if len(words) > 1 else ("", "")
    query: dict[str, Any] = {"repo": name, "tag": tag, "message": message, "changes": change, "platform": platform}
    if words[0].startswith(("http://", "https://")):
        answer = client.call("POST", "/images/create", query={**query, "fromSrc": words[0]})
        show_progress(answer.objects())
        return
    with open_input(words[0]) as file:
        answer = client.call(
            "POST", "/images/create", query={**query, "fromSrc": "-"}, body=read_chunks(file), headers=TAR
        )
        show_progress(answer.objects())


@command(
    "CONTAINER [REPOSITORY[:TAG]]",
    text("-a, --author", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")', default=""),
    several("-c, --change", "Apply Dockerfile instruction to the created image"),
    text("-m, --message", "Commit message", default=""),
    switch("-p, --pause", "Pause container during commit", default=True),
    least=1,
    most=2,
)
def commit(client: Client, words: list[str], *, author: str, change: list[str], message: str, pause: bool) -> None:
    name, tag = split_reference(words[1]) if len(words) > 1 else ("", "")
    query: dict[str, Any] = {
        "container": words[0],
        "repo": name,
        "tag": tag or ("latest" if name else ""),
        "author": author,
        "comment": message,
        "changes": change,
        "pause": None if pause else "0",
    }
    say(client.json("POST", "/commit", query=query)["Id"])
