"""Splits one line of a Dockerfile: the instruction, its flags, its words. Pure."""

import json
import re
from typing import Final

from bennu.build.dockerfile.expansion import SPACES
from bennu.build.dockerfile.failure import DockerfileError
from bennu.go.printing import quote

BLANKS: Final = re.compile(r"[\t\v\f\r ]+")
MAX_JSON_DEPTH: Final = 100


def split_instruction(line: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    """Split a line into the instruction as it is written, its flags (`--x=y`) and the rest."""
    word, *more = BLANKS.split(line.strip(SPACES), maxsplit=1)
    flags, rest = _split_flags(more[0], escape) if more else ((), "")
    return word, flags, rest.strip(SPACES)


def _split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Split off the words at the begin that start with `--`; quotes and escapes in them are taken away.

    A `--` alone ends them and belongs to neither.
    """
    flags: list[str] = []
    position = 0
    while True:
        while position < len(text) and text[position] in SPACES:
            position += 1
        if not text.startswith("--", position):
            return tuple(flags), text[position:]
        flag, position = _read_flag(text, position, escape)
        if flag == "--":
            return tuple(flags), text[position:]
        flags.append(flag)


def _read_flag(text: str, position: int, escape: str) -> tuple[str, int]:
    out: list[str] = []
    quoted = ""
    while position < len(text) and (quoted or text[position] not in SPACES):
        letter = text[position]
        position += 1
        if letter == quoted:
            quoted = ""
        elif not quoted and letter in "'\"":
            quoted = letter
        elif letter == escape:
            out.append(text[position : position + 1])
            position += 1
        else:
            out.append(letter)
    return "".join(out), position


def split_words(text: str, escape: str) -> list[str]:
    """Split at blanks; quotes and escapes keep blanks together, and stay in the word."""
    words: list[str] = []
    out: list[str] = []
    quoted = ""
    position = 0
    while position < len(text):
        letter = text[position]
        position += 1
        if not quoted and letter in SPACES:
            words += ["".join(out)] if out else []
            out.clear()
            continue
        if letter == escape and quoted != "'":
            if position < len(text):  # the last of a line means nothing
                out.append(letter + text[position])
            position += 1
            continue
        if letter == quoted:
            quoted = ""
        elif not quoted and letter in "'\"":
            quoted = letter
        out.append(letter)
    return words + (["".join(out)] if out else [])


def split_pairs(instruction: str, text: str, escape: str) -> list[tuple[str, str, bool]]:
    """Read `k=v k2="v 2"`, or the old form `k the rest`: name, value, whether it is the old form.

    Raises: DockerfileError.
    """
    words = split_words(text, escape)
    if words and "=" not in words[0]:
        name, *values = BLANKS.split(text, maxsplit=1)
        if not values:
            raise DockerfileError(f"{instruction} must have two arguments")
        return [(name, values[0], True)]
    pairs = []
    for word in words:
        name, found, value = word.partition("=")
        if not found:
            raise DockerfileError(f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value")
        pairs.append((name, value, False))
    return pairs


def read_json_words(text: str) -> tuple[str, ...] | None:
    """Read a JSON list of strings; None: it is no JSON list, so it is for the shell.

    Raises: DockerfileError for a list with something else in it.
    """
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text) if text.count("[") <= MAX_JSON_DEPTH else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(words, list):
        return None
    if not all(isinstance(word, str) for word in words):
        raise DockerfileError("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(words)
