"""Reads the instructions of `--change`, which are a Dockerfile's: words, flags, quotes, variables. Pure.

Builds have a parser of their own (`build/dockerfile/`), which is BuildKit's language and knows lines.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from bennu.errors import InvalidParameter

BLANKS: Final = re.compile(r"[\t\v\f\r ]+")
CONTINUED: Final = re.compile(r"\\[ \t]*\n")
VARIABLE: Final = re.compile(r"\\(.)|\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line: its word in capitals, its flags (`--x=y`) and the rest."""

    word: str
    flags: Mapping[str, str]
    rest: str

    def json_list(self) -> list[str] | None:
        """Read the rest as a JSON list of strings; None when it is not one: it is then for the shell."""
        if not self.rest.startswith("["):
            return None
        try:
            return msgspec.json.decode(self.rest, type=list[str])
        except (msgspec.DecodeError, RecursionError):
            return None


def parse_instructions(lines: Sequence[str]) -> list[Instruction]:
    """Read instructions; comments and empty lines are left out. Raises: InvalidParameter."""
    text = CONTINUED.sub("", "\n".join(lines))
    stripped = (line.strip() for line in text.split("\n"))
    return [_parse_line(line) for line in stripped if line and not line.startswith("#")]


def _parse_line(line: str) -> Instruction:
    """Read one instruction. Raises: InvalidParameter for a flag that is given twice."""
    word, *more = BLANKS.split(line.strip(), maxsplit=1)
    words, rest = _split_flags(more[0] if more else "")
    flags: dict[str, str] = {}
    for flag in words:
        name, _, value = flag.removeprefix("--").partition("=")
        if name in flags:
            raise InvalidParameter(f"duplicate flag specified: --{name}")
        flags[name] = value
    return Instruction(word.upper(), flags, rest)


def _split_flags(text: str) -> tuple[list[str], str]:
    """Split off the words at the begin that start with `--`, without quotes and backslashes.

    As moby `builder/dockerfile/parser/line_parsers.go` and `bflag.go`.

    A `--` alone ends them and belongs to neither.
    """
    flags: list[str] = []
    text = text.strip()
    while text.startswith("--"):
        flag, quote, position = "", "", 0
        while position < len(text) and (quote or not text[position].isspace()):
            char = text[position]
            if char == "\\" and position + 1 < len(text):
                position += 1
                flag += text[position]
            elif char == quote or (not quote and char in "\"'"):
                quote = "" if quote else char
            elif char != "\\":
                flag += char
            position += 1
        text = text[position:].strip()
        if flag == "--":
            break
        flags.append(flag)
    return flags, text


def split_words(text: str) -> list[str]:
    """Split at blanks; quotes and backslashes keep blanks together and stay in the word."""
    words: list[str] = []
    word = ""
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\" and position < len(text) and quote != "'":
            word += char + text[position]
            position += 1
        elif not quote and char.isspace():
            words += [word] if word else []
            word = ""
        else:
            quote = "" if char == quote else char if not quote and char in "\"'" else quote
            word += char
    return words + ([word] if word else [])


def expand(text: str, env: Mapping[str, str]) -> str:
    """Remove quotes and insert variables; nothing is replaced inside single quotes."""
    out = ""
    for part in re.split(r"('[^']*')", text):
        if len(part) > 1 and part.startswith("'") and part.endswith("'"):
            out += part[1:-1]
        else:
            out += _substitute(part.replace('\\"', "\0").replace('"', "").replace("\0", '\\"'), env)
    return out


def _substitute(text: str, env: Mapping[str, str]) -> str:
    def value_of(match: re.Match[str]) -> str:
        escaped, plain, braced, sign, other = match.groups()
        if escaped is not None:
            return str(escaped)
        value = env.get(plain or braced, "")
        if sign == "-":
            return value or str(other)
        if sign == "+":
            return str(other) if value else ""
        return value

    return VARIABLE.sub(value_of, text)


def parse_pairs(instruction: Instruction, env: Mapping[str, str]) -> dict[str, str]:
    """Read `k=v k2="v 2"`, or the old form `k the rest`. Raises: InvalidParameter."""
    words = split_words(instruction.rest)
    if not words:
        raise InvalidParameter(f"{instruction.word} requires at least one argument")
    if "=" not in words[0]:
        key, _, value = instruction.rest.partition(" ")
        if not value.strip():
            raise InvalidParameter(f"{instruction.word} must have two arguments")
        return {expand(key, env): expand(value.strip(), env)}
    pairs: dict[str, str] = {}
    for word in words:
        key, found, value = word.partition("=")
        if not found:
            raise InvalidParameter(f"Syntax error - can't find = in {_quote(word)}. Must be of the form: name=value")
        if not key:
            raise InvalidParameter(f"{instruction.word} names can not be blank")
        pairs[expand(key, env)] = expand(value, env)
    return pairs


def _quote(text: str) -> str:
    return msgspec.json.encode(text).decode()
