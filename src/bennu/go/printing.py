"""Values as Go's fmt prints them: `Sprint`, `Sprintln`, `Sprintf`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias

Value: TypeAlias = "str | int | float | bool | Mapping[str, Value] | Sequence[Value] | Struct | None"

MAX_WIDTH: Final = 10_000
_VERB: Final = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d+)?(?:\.(?P<precision>\d*))?(?P<verb>.)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct; `type` is what errors call it, `fields` are in their order."""

    type: str
    fields: Mapping[str, Value]


def type_of(value: Value) -> str:
    """Name a value's type as Go does."""
    match value:
        case Struct():
            return value.type
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Mapping():
            return "map[string]string"
    return "[]interface {}"


def format_value(value: Value) -> str:
    """Write a value as `%v` does: maps with sorted keys, structs by their fields alone."""
    match value:
        case Struct():
            return "{" + " ".join(map(format_value, value.fields.values())) + "}"
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _shortest(value)
        case str() | int():
            return str(value)
        case Mapping():
            return "map[" + " ".join(f"{key}:{format_value(value[key])}" for key in sorted(value)) + "]"
    return "[" + " ".join(map(format_value, value)) + "]"


def _shortest(value: float) -> str:
    """Write the fewest digits that tell a number from its neighbours, with an exponent from a million on."""
    digits = Decimal(repr(value)).normalize()
    if digits.is_finite() and -4 <= digits.adjusted() < 6:
        return format(digits, "f")
    mantissa, _, exponent = f"{digits:e}".partition("e")
    return f"{mantissa}e{exponent[:1]}{exponent[1:].zfill(2)}" if exponent else str(value)


def sprint(values: Sequence[Value]) -> str:
    """Write values one after the other, with a space between two that are no strings."""
    out = ""
    for number, value in enumerate(values):
        before = values[number - 1] if number else ""
        out += " " if number and not isinstance(value, str) and not isinstance(before, str) else ""
        out += format_value(value)
    return out


def sprintf(form: str, values: Sequence[Value]) -> str:
    """Write values into a format. A verb that does not fit its value is told in the text, as Go does."""
    taken = 0

    def write(found: re.Match[str]) -> str:
        nonlocal taken
        verb = found["verb"]
        if verb == "%":
            return "%"
        if verb is None:
            return "%!(NOVERB)"
        if taken >= len(values):
            return f"%!{verb}(MISSING)"
        taken += 1
        return _write_verb(found, verb, values[taken - 1])

    out = _VERB.sub(write, form)
    if taken < len(values):
        extra = ", ".join(f"{type_of(value)}={format_value(value)}" for value in values[taken:])
        out += f"%!(EXTRA {extra})"
    return out


def _write_verb(found: re.Match[str], verb: str, value: Value) -> str:
    flags, width = found["flags"], min(int(found["width"] or 0), MAX_WIDTH)
    digits = None if found["precision"] is None else min(int(found["precision"] or 0), MAX_WIDTH)
    text = _verb_text(verb, flags, digits, value)
    if text is None:
        return f"%!{verb}({type_of(value)}={format_value(value)})"
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        sign = text[:1] if text[:1] in "+-" and not isinstance(value, str) else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _verb_text(verb: str, flags: str, digits: int | None, value: Value) -> str | None:
    """Write one value by its verb, without its width; None: the verb does not fit."""
    plus = "+" if "+" in flags and isinstance(value, int | float) and value >= 0 else ""
    match verb, value:
        case "v", _:
            return plus + format_value(value)
        case "T", _:
            return type_of(value)
        case "t", bool():
            return format_value(value)
        case (("s" | "q" | "x" | "X"), str()):
            return _string_text(verb, digits, value)
        case _, bool():
            return None
        case (("d" | "b" | "o" | "x" | "X" | "U" | "c" | "q"), int()):
            return plus + _integer_text(verb, flags, value)
        case (("f" | "F" | "e" | "E" | "g" | "G"), float()):
            return plus + (f"{value:{verb}}" if digits is None else f"{value:.{digits}{verb}}")
        case "s", (Struct() | Mapping() | list() | tuple()):
            return format_value(value)
    return None


def _integer_text(verb: str, flags: str, value: int) -> str:
    if verb == "U":
        return f"U+{value:04X}"
    if verb in "cq":
        character = chr(value) if 0 <= value <= 0x10FFFF else "\ufffd"
        return character if verb == "c" else f"'{character}'"
    prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
    return ("-" if value < 0 else "") + prefix + format(abs(value), verb)


def _string_text(verb: str, digits: int | None, value: str) -> str:
    text = value if digits is None else value[:digits]
    match verb:
        case "q":
            return quote(text)
        case "x":
            return text.encode().hex()
        case "X":
            return text.encode().hex().upper()
    return text


def quote(text: str) -> str:
    """Write a text as a Go string."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in text) + '"'
