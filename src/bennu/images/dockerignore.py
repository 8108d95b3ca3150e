"""Reads a `.dockerignore`: for what a client is asked to leave out, or has sent although it is named there.

Pure. The rules are those of moby `patternmatcher`: the last pattern that fits a path, or a folder above it, decides. A
pattern takes one pass over a path, whatever it is: all places of it that the path so far leads to are kept at once.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bennu.errors import InvalidParameter

MAX_IGNORE_BYTES: Final = 1 << 20
MAX_WORK: Final = 20_000_000  # letters of patterns times letters of the path


def read_patterns(text: bytes) -> tuple[str, ...]:
    """List the patterns, cleaned as BuildKit cleans them; `!` stands before those that keep what fits."""
    found = []
    for line in text.decode("utf-8", "replace").removeprefix("\ufeff").splitlines():
        word = line.strip() if not line.startswith("#") else ""
        sign = "!" if word.startswith("!") else ""
        word = word.removeprefix("!").strip()
        if not word:
            continue
        clean = posixpath.normpath(word)
        found.append(sign + (clean.lstrip("/") or clean if len(clean) > 1 else clean))
    return tuple(found)


def is_ignored(text: str, path: str) -> bool:
    """Tell whether a file of the context is to be left out, though it was sent. Raises: InvalidParameter."""
    path = posixpath.normpath(path).lstrip("/")
    if len(text) * len(path) > MAX_WORK:
        raise InvalidParameter("the .dockerignore is too long")
    ignored = False
    for word, leaves_out in _words(text):
        if leaves_out != ignored and (pattern := _compile(word)) is not None and pattern.fits(path):
            ignored = leaves_out
    return ignored


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each pattern, and whether it leaves out what fits."""
    for line in text.removeprefix("\ufeff").splitlines():
        word = line.strip() if not line.startswith("#") else ""
        leaves_out = not word.startswith("!")
        if word := word.removeprefix("!").strip():
            yield posixpath.normpath(word).lstrip("/"), leaves_out


@dataclass(slots=True)
class _Pattern:
    """Bit n of a state, and of these masks, is step n of the pattern: what comes before it has been found.

    stars: any letters but slashes. globs: any letters. folders: nothing, or anything that ends with a slash; each has
    the next bit too, where it is inside of that.
    """

    letters: dict[str, int] = field(default_factory=dict)
    classes: list[tuple[int, re.Pattern[str]]] = field(default_factory=list)
    ones: int = 0  # any letter but a slash
    stars: int = 0
    globs: int = 0
    folders: int = 0
    last: int = 1

    def fits(self, path: str) -> bool:
        """Tell whether the pattern fits the path, or a folder above it."""
        state = self._past_empty(1)
        for letter in path:
            if letter == "/" and state & self.last:
                return True
            if not (state := self._past_empty(self._step(state, letter))):
                return False
        return bool(state & self.last)

    def _step(self, state: int, letter: str) -> int:
        taken = self.letters.get(letter, 0)
        for bit, letters in self.classes:
            taken |= bit if letters.fullmatch(letter) else 0
        inside = (state & self.folders) << 1 | state & self.folders << 1
        if letter == "/":
            return (state & taken) << 1 | state & self.globs | inside | inside << 1
        return (state & (taken | self.ones)) << 1 | state & (self.stars | self.globs) | inside

    def _past_empty(self, state: int) -> int:
        while True:
            after = state | (state & (self.stars | self.globs)) << 1 | (state & self.folders) << 2
            if after == state:
                return state
            state = after


def _compile(word: str) -> _Pattern | None:
    """Read a pattern: `*` and `?` stop at slashes, `**` does not; one that cannot be read fits nothing."""
    pattern = _Pattern()
    position, before = 0, ""
    while position < len(word):
        letter, bit = word[position], pattern.last
        kind = "*" if letter == "*" else ""
        if word.startswith("**", position):
            position += 3 if word.startswith("**/", position) else 2
            kind = "glob" if position >= len(word) else "folders"
            if kind == before:  # the same again says nothing new
                continue
            pattern.globs |= bit if kind == "glob" else 0
            pattern.folders |= bit if kind == "folders" else 0
            pattern.last <<= 2 if kind == "folders" else 1
            before = kind
            continue
        position += 1
        before = kind
        if letter == "*":
            pattern.stars |= bit
        elif letter == "?":
            pattern.ones |= bit
        elif letter == "[" and (end := word.find("]", position + 1)) > 0:
            try:
                pattern.classes.append((bit, re.compile(f"[{word[position:end]}]")))
            except re.error:
                return None
            position = end + 1
        else:
            if letter == "\\" and position < len(word):
                letter = word[position]
                position += 1
            pattern.letters[letter] = pattern.letters.get(letter, 0) | bit
        pattern.last <<= 1
    return pattern
