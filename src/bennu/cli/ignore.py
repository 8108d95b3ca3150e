""".dockerignore: which files of a build context stay at home."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rule:
    regex: re.Pattern[str]
    keep: bool  # written with a leading "!"


class IgnoreRules:
    """The last rule that matches a path, or a folder above it, decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.rules = [rule for line in lines if (rule := parse_rule(line)) is not None]
        self.has_exceptions = any(rule.keep for rule in self.rules)

    def excludes(self, path: str) -> bool:
        """`path` is relative to the context, with forward slashes."""
        parts = path.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        excluded = False
        for rule in self.rules:
            if rule.keep == excluded and any(rule.regex.fullmatch(one) for one in above):
                excluded = not rule.keep
        return excluded


def parse_rule(line: str) -> Rule | None:
    if line.startswith("#"):
        return None
    line = line.strip()
    keep = line.startswith("!")
    pattern = clean(line[1:].strip() if keep else line)
    return Rule(re.compile(translate(pattern), re.S), keep) if pattern else None


def clean(pattern: str) -> str:
    """Like Go's filepath.Clean, relative to the context."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(parts)


def translate(pattern: str) -> str:
    """`**` crosses folders; `*` and `?` stay within one; `[a-z]` and `\\x` as in a shell."""
    out, position = "", 0
    while position < len(pattern):
        letter = pattern[position]
        if pattern.startswith("**/", position):
            out, position = out + "(?:.*/)?", position + 3
        elif pattern.startswith("**", position):
            out, position = out + ".*", position + 2
        elif letter == "\\" and position + 1 < len(pattern):
            out, position = out + re.escape(pattern[position + 1]), position + 2
        elif letter == "[" and "]" in pattern[position + 2 :]:
            end = pattern.index("]", position + 2)
            out, position = out + pattern[position : end + 1], end + 1
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(letter) or re.escape(letter)
            position += 1
    return out


def read_ignore_file(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except FileNotFoundError:
        return []
