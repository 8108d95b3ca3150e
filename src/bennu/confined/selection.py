"""What of a tree a COPY takes: one piece of code for copying and for the digest that tells whether it has changed.

The tree is the folder that this process stands in; names from it are looked up below it, whatever its links say.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from bennu.confined.patterns import PatternList, go_match, split_wildcards
from bennu.confined.tree import place_of, printable
from bennu.confined.words import Refused

TREE: Final = "."  # before an absolute path of the source: the folder that this process stands in
NOT_FOUND: Final = "not-found"


class Selected(NamedTuple):
    """One entry that is taken; a folder comes before what is in it.

    name: relative to the source itself, "" for that. place: its path for this process. implied: a folder that the
    patterns do not take, and something in it they do.
    """

    name: str
    place: str
    seen: os.stat_result
    implied: bool = False


def find_sources(path: str, *, wildcards: bool) -> list[str]:
    """List the paths that a source stands for, in order; none if a pattern fits nothing. Raises: OSError, Refused."""
    fixed, pattern = split_wildcards(path)
    if not wildcards or not pattern:
        return [path]
    start = place_of(fixed, TREE)
    found: list[str] = []
    ahead = [("", pattern.count("/"))]
    while ahead:
        name, below = ahead.pop()
        if name and go_match(pattern, name):
            found.append(f"{start.rstrip('/')}/{name}")
            continue
        if below < 0:
            continue
        folder = f"{TREE}{start.rstrip('/')}/{name}" if name else TREE + start
        with contextlib.suppress(NotADirectoryError, FileNotFoundError):
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                continue
            names = sorted(os.listdir(folder), reverse=True)
            ahead += [(f"{name}/{entry}" if name else entry, below - 1) for entry in names]
    return found


def find_source(path: str, *, follow: bool) -> tuple[str, os.stat_result]:
    """Find one source, which is followed to the end or only up to its last part; answers its place and its status.

    Raises: Refused ("not-found") with the path as it was typed; OSError.
    """
    clean = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    try:
        if follow or clean == "/":
            place = TREE + place_of(clean, TREE)
        else:
            above, _, name = clean.rpartition("/")
            place = f"{TREE}{place_of(above, TREE).rstrip('/')}/{name}"
        return place, os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(f'"{printable(clean)}": not found', NOT_FOUND) from None


def walk_selected(
    place: str, seen: os.stat_result, include: Sequence[str], exclude: Sequence[str]
) -> Iterator[Selected]:
    """Go through what is taken of one source, in order of the names; the source itself always is. Raises: OSError."""
    yield Selected("", place, seen)
    if stat.S_ISDIR(seen.st_mode):
        yield from _SelectionWalk(include, exclude).below(place)


class _Folder(NamedTuple):
    """A folder while it is gone through: what is ahead in it, last first, and what its lists said of it."""

    name: str
    place: str
    seen: os.stat_result
    ahead: list[str]
    included: list[bool]
    excluded: list[bool]


class _SelectionWalk:
    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = PatternList(include) if include else None
        self._exclude = PatternList(exclude) if exclude else None
        self._told = 0  # how many of the open folders have been given

    def below(self, top: str) -> Iterator[Selected]:
        open_folders = [_Folder("", top, os.lstat(top), _names(top), [], [])]
        self._told = 1
        while open_folders:
            folder = open_folders[-1]
            if not folder.ahead:
                open_folders.pop()
                self._told = min(self._told, len(open_folders))
                continue
            entry = folder.ahead.pop()
            name, place = f"{folder.name}/{entry}".lstrip("/"), f"{folder.place}/{entry}"
            taken, barred, included, excluded = self._decide(name, folder)
            seen = os.lstat(place)
            is_folder = stat.S_ISDIR(seen.st_mode)
            if taken:
                for above in open_folders[self._told :]:
                    yield Selected(above.name, above.place, above.seen, implied=True)
                self._told = len(open_folders)
                yield Selected(name, place, seen)
            if is_folder and not barred:
                open_folders.append(_Folder(name, place, seen, _names(place), included, excluded))
                self._told += taken

    def _decide(self, name: str, folder: _Folder) -> tuple[bool, bool, list[bool], list[bool]]:
        """Tell whether an entry is taken, whether nothing below it can be, and what its lists said."""
        taken, barred = True, False
        included: list[bool] = []
        excluded: list[bool] = []
        if self._include is not None:
            taken, included = self._include.fits(name, folder.included)
        if self._exclude is not None:
            barred, excluded = self._exclude.fits(name, folder.excluded)
            taken = taken and not barred
            barred = barred and not self._exclude.takes_back
        return taken, barred, included, excluded


def _names(place: str) -> list[str]:
    return sorted(os.listdir(place), reverse=True)
