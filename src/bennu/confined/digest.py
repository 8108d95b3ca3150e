"""The digest of what a COPY or a mount takes of a tree: names, modes, owners, links, attributes and bytes; no times.

The tree is this process's root.
"""

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from typing import Any, Final

from bennu.confined.patterns import has_wildcards
from bennu.confined.selection import Selected, find_source, find_sources, walk_selected
from bennu.confined.tree import open_file

CHUNK: Final = 1 << 20
PASSED_OVER: Final = ("security.", "system.", "trusted.overlay.", "user.overlay.")  # as BuildKit has it
KEPT: Final = "security.capability"


def digest(selections: Sequence[tuple[str, bool, bool, Sequence[str], Sequence[str]]]) -> str:
    """Digest all of the selections (path, wildcards, follow, include, exclude) in their order.

    Raises: Refused ("not-found"), OSError.
    """
    os.chdir("/")
    found = hashlib.sha256()
    links: dict[tuple[int, int], str] = {}
    for path, wildcards, follow, include, exclude in selections:
        sources = find_sources(path, wildcards=wildcards)
        named = wildcards and has_wildcards(path)  # which of them it fits is not in what is asked for
        _add(found, ["sources", len(sources)])
        for source in sources:
            _add(found, ["source", source if named else ""])
            place, seen = find_source(source, follow=follow)
            for entry in walk_selected(place, seen, include, exclude):
                _add(found, _describe(entry, links))
    return "sha256:" + found.hexdigest()


def _add(found: Any, words: Sequence[Any]) -> None:
    found.update(json.dumps(words).encode() + b"\n")


def _describe(entry: Selected, links: dict[tuple[int, int], str]) -> list[Any]:
    seen = entry.seen
    words: list[Any] = [entry.name, seen.st_mode, seen.st_uid, seen.st_gid, _attributes(entry.place)]
    if stat.S_ISREG(seen.st_mode):
        words.append(_content(entry, links))
    elif stat.S_ISLNK(seen.st_mode):
        words.append(os.readlink(entry.place))
    elif stat.S_ISCHR(seen.st_mode) or stat.S_ISBLK(seen.st_mode):
        words.append(seen.st_rdev)
    return words


def _content(entry: Selected, links: dict[tuple[int, int], str]) -> str:
    """Hash the bytes; those of a file with several names are read once."""
    key = entry.seen.st_dev, entry.seen.st_ino
    if key in links:
        return links[key]
    content = hashlib.sha256()
    descriptor = open_file(entry.place)
    try:
        while data := os.read(descriptor, CHUNK):
            content.update(data)
    finally:
        os.close(descriptor)
    if entry.seen.st_nlink > 1:
        links[key] = content.hexdigest()
    return content.hexdigest()


def _attributes(place: str) -> list[tuple[str, str]]:
    names = sorted(os.listxattr(place, follow_symlinks=False))
    kept = [name for name in names if name == KEPT or not name.startswith(PASSED_OVER)]
    return [(name, os.getxattr(place, name, follow_symlinks=False).hex()) for name in kept]
