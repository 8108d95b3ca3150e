"""`${NAME}` in the values of a compose file, as the shell and compose know it.

$NAME ${NAME}                 the value; nothing when it is not set
${NAME:-text} ${NAME-text}    the text when NAME is not set (`:` or empty)
${NAME:?why} ${NAME?why}      a failure with the reason when it is not set (`:` or empty)
${NAME:+text} ${NAME+text}    the text when it is set (`:` and not empty)
$$                            a dollar
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from bennu.cli.failure import Failure

NAME: Final = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")


def interpolate(value: Any, env: Mapping[str, str], path: str) -> Any:
    """Every text in the value with its variables filled in; keys stay. Raises: Failure that names the path."""
    if isinstance(value, str):
        return fill(value, env, path)
    if isinstance(value, dict):
        return {key: interpolate(part, env, f"{path}.{key}") for key, part in value.items()}
    if isinstance(value, list):
        return [interpolate(part, env, f"{path}.[]") for part in value]
    return value


def fill(text: str, env: Mapping[str, str], path: str) -> str:
    found, position = [], 0
    while (dollar := text.find("$", position)) >= 0:
        found.append(text[position:dollar])
        piece, position = _variable(text, dollar + 1, env, path)
        found.append(piece)
    return "".join(found) + text[position:]


def _variable(text: str, start: int, env: Mapping[str, str], path: str) -> tuple[str, int]:
    """The value of what begins behind the dollar, and where the text goes on."""
    if text.startswith("$", start):
        return "$", start + 1
    if not text.startswith("{", start):
        name = NAME.match(text, start)
        if name is None:
            raise _invalid(text, path)
        return env.get(name[0], ""), name.end()
    name = NAME.match(text, start + 1)
    end = _closing(text, start + 1)
    if name is None or end < 0:
        raise _invalid(text, path)
    return _braced(name[0], text[name.end() : end], env, text, path), end + 1


def _closing(text: str, start: int) -> int:
    """Where the brace that was opened just before `start` is closed; -1: nowhere."""
    depth = 1
    for position in range(start, len(text)):
        if text.startswith("${", position):
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    return -1


def _braced(name: str, rest: str, env: Mapping[str, str], text: str, path: str) -> str:
    value = env.get(name)
    if not rest:
        return value or ""
    empty_counts = rest.startswith(":")
    operator, words = rest[empty_counts : empty_counts + 1], rest[empty_counts + 1 :]
    is_set = bool(value) if empty_counts else value is not None
    if operator == "-":
        return value or "" if is_set else fill(words, env, path)
    if operator == "+":
        return fill(words, env, path) if is_set else ""
    if operator == "?":
        if is_set:
            return value or ""
        raise Failure(f"invalid interpolation for {path}: required variable {name} is missing a value: {words}")
    raise _invalid(text, path)


def _invalid(text: str, path: str) -> Failure:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return Failure(f'invalid interpolation format for {path}: "{quoted}"; you may need to escape any $ with another $')
