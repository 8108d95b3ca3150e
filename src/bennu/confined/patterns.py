"""Patterns of names as Go has them: of COPY's sources (path/filepath), and of `.dockerignore` and --exclude.

Pure. The second kind are the rules of moby's patternmatcher, kept line for line where they are odd.
"""

import posixpath
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from bennu.confined.words import Refused

SPECIAL: Final = ".+()|{}$"


def go_match(pattern: str, name: str) -> bool:
    """Tell whether the whole name fits (Go's `filepath.Match`). Raises: Refused for what is no pattern."""
    return _compiled(pattern).fullmatch(name) is not None


_known: dict[str, re.Pattern[str]] = {}


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern not in _known:
        _known[pattern] = re.compile(_go_expression(pattern), re.DOTALL)
    return _known[pattern]


def _go_expression(pattern: str) -> str:
    parts, place = [""], 0
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char == "*":
            parts.append("")
        elif char == "?":
            parts[-1] += "[^/]"
        elif char == "[":
            words, place = _go_class(pattern, place)
            parts[-1] += words
        elif char == "\\":
            if place == len(pattern):
                raise _bad()
            parts[-1] += re.escape(pattern[place])
            place += 1
        else:
            parts[-1] += re.escape(char)
    return _join(parts)


def _join(parts: Sequence[str]) -> str:
    """Put stars between parts; what stands between two stars is taken where it comes first, for good.

    Any later place leaves less to what follows, so nothing is lost; trying them all would take for ever.
    """
    first, *rest = parts
    between = "".join(f"(?>[^/]*?{part})" for part in rest[:-1])
    return first + between + (f"[^/]*{rest[-1]}" if rest else "")


def _go_class(pattern: str, place: int) -> tuple[str, int]:
    """Read `[^a-z]` behind its bracket; answer the expression and the place behind it. Never fits a slash."""
    negated = pattern[place : place + 1] == "^"
    place += negated
    ranges = ""
    while True:
        if pattern[place : place + 1] == "]" and ranges:
            return f"(?!/)[{'^' if negated else ''}{ranges}]", place + 1
        low, place = _go_char(pattern, place)
        high = low
        if pattern[place : place + 1] == "-":
            high, place = _go_char(pattern, place + 1)
        # An empty range fits nothing: no name has this character.
        ranges += f"{re.escape(low)}-{re.escape(high)}" if low <= high else "\\ud800"


def _go_char(pattern: str, place: int) -> tuple[str, int]:
    char = pattern[place : place + 1]
    if char == "\\":
        place += 1
        char = pattern[place : place + 1]
    elif char in ("-", "]"):
        raise _bad()
    if not char or place + 1 == len(pattern):
        raise _bad()
    return char, place + 1


def _bad() -> Refused:
    return Refused("syntax error in pattern")


def has_wildcards(name: str) -> bool:
    """Tell whether a name means more than itself."""
    place = 0
    while place < len(name):
        if name[place] == "\\":
            place += 1
        elif name[place] in "*?[":
            return True
        place += 1
    return False


def split_wildcards(path: str) -> tuple[str, str]:
    """Split a path before the first part that has wildcards; the second is "" if none has."""
    parts = [part for part in posixpath.normpath(path).split("/") if part not in ("", ".")]
    first = next((place for place, part in enumerate(parts) if has_wildcards(part)), len(parts))
    return "/" + "/".join(parts[:first]), "/".join(parts[first:])


class ListedPattern(NamedTuple):
    """One pattern of a list: a path that fits is out of it (`!`), or in it."""

    expression: re.Pattern[str]
    takes_back: bool


class PatternList:
    """A list of patterns, of which the last that fits decides."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Read the patterns; empty ones are passed over. Raises: Refused."""
        self._patterns = [parsed for pattern in patterns if (parsed := _parse(pattern)) is not None]
        self.takes_back = any(pattern.takes_back for pattern in self._patterns)

    def fits(self, path: str, above: Sequence[bool]) -> tuple[bool, list[bool]]:
        """Tell whether a path is in the list.

        `above`: what this answered second for the folder that it is in; empty if nothing was asked of that: then each
        folder above it is looked at as well.
        """
        fits, found = False, []
        for place, pattern in enumerate(self._patterns):
            match = bool(above) and above[place]
            if not match and pattern.takes_back == fits:
                match = pattern.expression.fullmatch(path) is not None
                if not match and not above:
                    match = any(pattern.expression.fullmatch(folder) for folder in _above(path))
            found.append(match)
            if match:
                fits = not pattern.takes_back
        return fits, found


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _parse(text: str) -> ListedPattern | None:
    word = text.strip()
    if not word:
        return None
    word = clean(word)
    takes_back = word.startswith("!")
    word = word[1:] if takes_back else word
    if takes_back and not word:
        raise Refused('illegal exclusion pattern: "!"')
    go_match(word, ".")
    try:
        return ListedPattern(re.compile(_list_expression(word), re.DOTALL), takes_back)
    except re.error:
        raise _bad() from None


def clean(path: str) -> str:
    """Clean a path as Go's filepath.Clean does."""
    return "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else posixpath.normpath(path)


def _list_expression(pattern: str) -> str:
    """Translate a pattern: `*` and `?` stop at slashes, `**` does not; `**x` fits whatever ends in x."""
    if pattern.startswith("**") and pattern[2:3] != "/" and not re.search(r"[*?\[\]\\]", pattern[2:]):
        return ".*" + re.escape(pattern[2:])
    run, out, place = [""], "", 0
    has_classes = "[" in pattern
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char == "*" and pattern[place : place + 1] == "*":
            place += 1
            place += pattern[place : place + 1] == "/"
            while pattern.startswith("**/", place):  # the same again says nothing new
                place += 3
            out += _join(run) + (".*" if place >= len(pattern) else "(?:.*/)?")
            run = [""]
        elif char == "*" and not has_classes:
            run.append("")
        elif char == "*":
            run[-1] += "[^/]*"
        elif char == "?":
            run[-1] += "[^/]"
        elif char == "\\" and place < len(pattern):
            run[-1] += re.escape(pattern[place])
            place += 1
        elif char == "\\":
            run[-1] += "\\\\"
        elif char in "[]":
            run[-1] += char
        elif char in SPECIAL:
            run[-1] += "\\" + char
        else:
            run[-1] += char
    return out + _join(run)
