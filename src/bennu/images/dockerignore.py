"""Reads a `.dockerignore`: for what a client is asked to leave out, or has sent although it is named there.

Pure. The rules are those of moby `patternmatcher`: the last pattern that fits a path, or a folder above it, decides.
"""

import posixpath
import re
from collections.abc import Iterator

MAX_IGNORE_BYTES = 1 << 20


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
    """Tell whether a file of the context is to be left out, though it was sent."""
    ignored = False
    for pattern, wanted in _patterns(text):
        if wanted != ignored and any(pattern.fullmatch(one) for one in _with_parents(path)):
            ignored = wanted
    return ignored


def _patterns(text: str) -> Iterator[tuple[re.Pattern[str], bool]]:
    """Yield each pattern, and whether it leaves out what fits; one that cannot be read fits nothing."""
    for line in text.removeprefix("\ufeff").splitlines():
        word = line.strip() if not line.startswith("#") else ""
        leaves_out = not word.startswith("!")
        word = word.removeprefix("!").strip()
        if word:
            try:
                yield re.compile(_expression(posixpath.normpath(word).lstrip("/"))), leaves_out
            except re.error:
                continue


def _expression(pattern: str) -> str:
    """Translate a pattern: `*` and `?` stop at slashes, `**` does not."""
    out, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        if pattern.startswith("**", position):
            position += 2
            if pattern.startswith("/", position):
                position += 1
            out += ".*" if position >= len(pattern) else "(?:.*/)?"
            continue
        position += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and (end := pattern.find("]", position + 1)) > 0:
            out += f"[{pattern[position:end]}]"
            position = end + 1
        elif char == "\\" and position < len(pattern):
            out += re.escape(pattern[position])
            position += 1
        else:
            out += re.escape(char)
    return out


def _with_parents(path: str) -> list[str]:
    parts = posixpath.normpath(path).lstrip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
