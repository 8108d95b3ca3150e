"""Walking a tree that somebody else has made: without recursion, without following links."""

import os
import stat
from collections.abc import Iterator
from typing import Final

MAX_LINKS: Final = 40  # the kernel's limit


def walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below the folder `root`, a folder before what is in it, each folder in order of the names.

    Names are relative to `root`. What vanishes meanwhile is left out. Raises: OSError.
    """
    waiting = [""]
    while waiting:
        name = waiting.pop()
        path = os.path.join(root, name)
        try:
            seen = os.lstat(path)
            entries = sorted(os.listdir(path), reverse=True) if stat.S_ISDIR(seen.st_mode) else ()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if name:
            yield name, seen
        waiting += [os.path.join(name, entry) for entry in entries]


def open_file(path: str) -> int:
    """A descriptor of a regular file; whatever else may stand there is neither opened for long nor waited for.

    Raises: FileNotFoundError for what is no regular file; OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(2, os.strerror(2), path)
    return descriptor


def resolve(root: str, target: str) -> str | None:
    """Where `target` leads for somebody whose root is the folder `root`, as a path below it; None if nowhere."""
    place: list[str] = []
    ahead = [part for part in reversed(target.split("/")) if part not in ("", ".")]
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            place = place[:-1]
            continue
        path = os.path.join(root, *place, part)
        try:
            is_link = stat.S_ISLNK(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not is_link:
            place.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        leads = os.readlink(path)
        place = [] if leads.startswith("/") else place
        ahead += [step for step in reversed(leads.split("/")) if step not in ("", ".")]
    return "/".join(place)
