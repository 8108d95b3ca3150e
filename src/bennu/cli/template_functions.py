"""The functions that a template may call, and how Go shows values."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from bennu.cli.failure import Failure
from bennu.cli.template_fields import NoList, NoMap


class Missing:
    """A field that is not there; `problem` says which."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


def is_true(value: Any) -> bool:
    return not isinstance(value, Missing) and bool(value)


def to_text(value: Any) -> str:
    """As Go prints it. Raises: Failure for a missing field."""
    if isinstance(value, Missing):
        raise Failure(f"template parsing error: {value.problem}")
    return show(value)


def show(value: Any) -> str:
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(show(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def to_json(value: Any) -> str:
    if isinstance(value, (Missing, NoList, NoMap)):
        return "null"
    if isinstance(value, Mapping):
        value = {name: item for name, item in value.items() if not callable(item)}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None or isinstance(value, Missing):
            raise ValueError("index of untyped nil")
        if isinstance(value, Mapping):
            value = value.get(key)
            continue
        if not isinstance(key, int) or not 0 <= key < len(value):
            raise IndexError(f"index out of range: {key}")
        value = ord(value[key]) if isinstance(value, str) else value[key]
    return value


def cut(value: Any, *bounds: int) -> Any:
    return value[slice(*bounds)] if len(bounds) > 1 else value[bounds[0] if bounds else 0 :]


def length(value: Any) -> int:
    if value is None or isinstance(value, (Missing, int)):
        raise ValueError("len of nil pointer" if value is None else "len of wrong type")
    return len(value.encode()) if isinstance(value, str) else len(value)


def both(*values: Any) -> Any:
    return next((value for value in values if not is_true(value)), values[-1])


def either(*values: Any) -> Any:
    return next((value for value in values if is_true(value)), values[-1])


def plain(*values: Any) -> str:
    """Go's print: a space between operands when neither is a string."""
    shown = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            shown += " "
        shown += show(value)
    return shown


def print_formatted(form: str, *values: Any) -> str:
    """Go's printf; the verbs that people use."""
    out, position, rest = "", 0, list(values)
    while position < len(form):
        if form[position] != "%":
            out += form[position]
            position += 1
            continue
        end = position + 1
        while end < len(form) and form[end] in "+-# 0123456789.":
            end += 1
        verb = form[end : end + 1]
        flags, position = form[position + 1 : end], end + 1
        if verb == "%":
            out += "%"
        elif not rest:
            out += f"%!{verb}(MISSING)"
        else:
            out += format_one(flags, verb, rest.pop(0))
    return out


def format_one(flags: str, verb: str, value: Any) -> str:
    if verb == "q":
        return f"%{flags}s" % json.dumps(show(value), ensure_ascii=False)
    if verb in "dxXofegc" and isinstance(value, (int, float)):
        return f"%{flags}{verb}" % value
    return f"%{flags}s" % show(value)


def title(text: str) -> str:
    return "".join(
        letter.upper() if not number or not text[number - 1].isalnum() else letter for number, letter in enumerate(text)
    )


def pad(text: str, left: int, right: int) -> str:
    return " " * left + text + " " * right if text else text


def truncate(text: str, width: int) -> str:
    return text[:width]


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "json": to_json,
    "index": index,
    "slice": cut,
    "len": length,
    "and": both,
    "or": either,
    "not": lambda value: not is_true(value),
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "print": plain,
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "printf": print_formatted,
    "join": lambda values, separator: separator.join(show(value) for value in values or ()),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": title,
    "pad": pad,
    "truncate": truncate,
}
