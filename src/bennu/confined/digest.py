"""The digest of what a COPY or a mount takes of a tree: names, modes, owners, links, attributes and bytes; no times.

The tree is this process's root.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Sequence
from typing import Any, Final

from bennu.confined.patterns import has_wildcards
from bennu.confined.selection import Selected, find_source, find_sources, walk_selected
from bennu.confined.tree import open_file

CHUNK: Final = 1 << 20
WORTH_REMEMBERING: Final = 4096  # bytes; smaller files are read as quickly
MAX_REMEMBERED: Final = 20_000
TICK_NS: Final = 100_000_000  # a change so close to the last one could leave the time as it is
PASSED_OVER: Final = ("security.", "system.", "trusted.overlay.", "user.overlay.")  # as BuildKit has it
KEPT: Final = "security.capability"


def digest(
    selections: Sequence[tuple[str, bool, bool, Sequence[str], Sequence[str]]], *, input: int
) -> tuple[str, dict[str, str]]:
    """Digest all of the selections (path, wildcards, follow, include, exclude) in their order.

    `input` gives in JSON what this answered second for the same tree before: files that have not been touched since
    then are not read again. Raises: Refused ("not-found"), OSError.
    """
    with open(input, "rb", closefd=False) as file:
        contents = Contents(json.load(file))
    os.chdir("/")
    found = hashlib.sha256()
    for path, wildcards, follow, include, exclude in selections:
        sources = find_sources(path, wildcards=wildcards)
        named = wildcards and has_wildcards(path)  # which of them it fits is not in what is asked for
        _add(found, ["sources", len(sources)])
        for source in sources:
            _add(found, ["source", source if named else ""])
            place, seen = find_source(source, follow=follow)
            for entry in walk_selected(place, seen, include, exclude):
                _add(found, _describe(entry, contents))
    return "sha256:" + found.hexdigest(), contents.seen


def _add(found: Any, words: Sequence[Any]) -> None:
    found.update(json.dumps(words).encode() + b"\n")


class Contents:
    """Hashes the bytes of files, each once; `seen`: the hashes of those that are worth remembering."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = known
        self._now_ns = time.time_ns()
        self.seen: dict[str, str] = {}

    def hash(self, entry: Selected) -> str:
        """Hash a regular file, or recall its hash: its time of change is the kernel's and nobody can set it back."""
        seen = entry.seen
        key = f"{seen.st_ino}:{seen.st_ctime_ns}:{seen.st_size}"
        content = self._known.get(key) or self.seen.get(key) or _hash(entry.place)
        worth = seen.st_size >= WORTH_REMEMBERING or seen.st_nlink > 1
        if worth and seen.st_ctime_ns < self._now_ns - TICK_NS and len(self.seen) < MAX_REMEMBERED:
            self.seen[key] = content
        return content


def _hash(place: str) -> str:
    content = hashlib.sha256()
    descriptor = open_file(place)
    try:
        while data := os.read(descriptor, CHUNK):
            content.update(data)
    finally:
        os.close(descriptor)
    return content.hexdigest()


def _describe(entry: Selected, contents: Contents) -> list[Any]:
    seen = entry.seen
    words: list[Any] = [entry.name, seen.st_mode, seen.st_uid, seen.st_gid, _attributes(entry.place)]
    if stat.S_ISREG(seen.st_mode):
        words.append(contents.hash(entry))
    elif stat.S_ISLNK(seen.st_mode):
        words.append(os.readlink(entry.place))
    elif stat.S_ISCHR(seen.st_mode) or stat.S_ISBLK(seen.st_mode):
        words.append(seen.st_rdev)
    return words


def _attributes(place: str) -> list[tuple[str, str]]:
    names = sorted(os.listxattr(place, follow_symlinks=False))
    kept = [name for name in names if name == KEPT or not name.startswith(PASSED_OVER)]
    return [(name, os.getxattr(place, name, follow_symlinks=False).hex()) for name in kept]
