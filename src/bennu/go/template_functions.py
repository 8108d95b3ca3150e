"""The functions that every Go template has, but for `and` and `or`, which do not evaluate all arguments. Pure.

A function is given its arguments and raises ValueError with what Go would say of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias
from urllib.parse import quote_plus

from bennu.go.printing import Struct, Value, format_value, quote, sprint, sprintf, type_of

Function: TypeAlias = Callable[[Sequence[Value]], Value]

_HTML: Final = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})
_JS: Final = str.maketrans(
    {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
    | {chr(code): f"\\u{code:04X}" for code in range(32)}
)


def is_true(value: Value) -> bool:
    """Tell whether a value counts as true: it is not its type's zero, nor empty. A struct always is."""
    return isinstance(value, Struct) or bool(value)


def _kind(value: Value) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return type_of(value)
    raise ValueError("non-comparable type " + type_of(value))


def _eq(arguments: Sequence[Value]) -> Value:
    first, *others = arguments
    if not others:
        raise ValueError("missing argument for comparison")
    for other in others:
        if _kind(first) != _kind(other) and None not in (first, other):
            raise ValueError("incompatible types for comparison")
        if first == other:
            return True
    return False


def _compare(test: Callable[[bool, bool], bool]) -> Function:
    """Make an ordering; `test` is given whether the first is less, and whether both are equal."""

    def compare(arguments: Sequence[Value]) -> Value:
        first, second = arguments
        if _kind(first) != _kind(second):
            raise ValueError("incompatible types for comparison")
        if isinstance(first, str) and isinstance(second, str):
            return test(first.encode() < second.encode(), first == second)
        if isinstance(first, int | float) and isinstance(second, int | float) and not isinstance(first, bool):
            return test(first < second, first == second)
        raise ValueError("invalid type for comparison")

    return compare


def _len(arguments: Sequence[Value]) -> Value:
    match arguments[0]:
        case str() as text:
            return len(text.encode())
        case Mapping() | list() | tuple() as holder:
            return len(holder)
        case value:
            raise ValueError(f"len of type {type_of(value)}")


def _index(arguments: Sequence[Value]) -> Value:
    holder, *keys = arguments
    for key in keys:
        match holder:
            case Mapping():
                if not isinstance(key, str):
                    raise ValueError(f"value has type {type_of(key)}; should be string")
                holder = holder.get(key, "")
            case str() | list() | tuple():
                items: Sequence[Value] = list(holder.encode()) if isinstance(holder, str) else holder
                if isinstance(key, bool) or not isinstance(key, int):
                    raise ValueError(f"cannot index slice/array with type {type_of(key)}")
                if not 0 <= key < len(items):
                    raise ValueError(f"index out of range: {key}")
                holder = items[key]
            case None:
                raise ValueError("index of untyped nil")
            case _:
                raise ValueError(f"can't index item of type {type_of(holder)}")
    return holder


def _slice(arguments: Sequence[Value]) -> Value:
    holder, *bounds = arguments
    if not isinstance(holder, str | list | tuple):
        raise ValueError(f"can't slice item of type {type_of(holder)}")
    if len(bounds) > (2 if isinstance(holder, str) else 3):
        raise ValueError(f"too many slice indexes: {len(bounds)}")
    length = len(holder.encode()) if isinstance(holder, str) else len(holder)
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, int):
            raise ValueError(f"cannot index slice/array with type {type_of(bound)}")
        if not 0 <= bound <= length:
            raise ValueError(f"index out of range: {bound}")
    numbers = [bound for bound in bounds if isinstance(bound, int)]
    if any(first > second for first, second in pairwise(numbers)):
        raise ValueError(f"invalid slice index: {numbers[0]} > {numbers[1]}")
    begin, end = [*numbers[:2], *(0, length)[len(numbers[:2]) :]]
    return holder.encode()[begin:end].decode(errors="replace") if isinstance(holder, str) else list(holder[begin:end])


def _printf(arguments: Sequence[Value]) -> Value:
    form, *values = arguments
    if not isinstance(form, str):
        raise ValueError(f"wrong type for value; expected string; got {type_of(form)}")
    return sprintf(form, values)


def _call(arguments: Sequence[Value]) -> Value:
    shown = quote(arguments[0]) if isinstance(arguments[0], str) else format_value(arguments[0])
    raise ValueError(f"non-function {shown} of type {type_of(arguments[0])}")


# By name: the fewest arguments, the most (None: any number), and the function.
BUILT_IN: Final[Mapping[str, tuple[int, int | None, Function]]] = MappingProxyType(
    {
        "call": (1, None, _call),
        "eq": (1, None, _eq),
        "ge": (2, 2, _compare(lambda less, equal: not less)),
        "gt": (2, 2, _compare(lambda less, equal: not less and not equal)),
        "html": (0, None, lambda arguments: sprint(arguments).translate(_HTML)),
        "index": (1, None, _index),
        "js": (0, None, lambda arguments: sprint(arguments).translate(_JS)),
        "le": (2, 2, _compare(lambda less, equal: less or equal)),
        "len": (1, 1, _len),
        "lt": (2, 2, _compare(lambda less, equal: less)),
        "ne": (2, 2, lambda arguments: not _eq(arguments)),
        "not": (1, 1, lambda arguments: not is_true(arguments[0])),
        "print": (0, None, sprint),
        "printf": (1, None, _printf),
        "println": (0, None, lambda arguments: " ".join(sprint([one]) for one in arguments) + "\n"),
        "slice": (1, None, _slice),
        "urlquery": (0, None, lambda arguments: quote_plus(sprint(arguments), safe="~")),
    }
)
SHORT: Final = ("and", "or")


def wrong_count(name: str, given: int) -> str:
    """Say what is wrong with the number of arguments of a built-in function; "" if nothing is."""
    least, most = (1, None) if name in SHORT else BUILT_IN[name][:2]
    if given >= least and (most is None or given <= most):
        return ""
    want = str(least) if least == most else f"at least {least}"
    return f"wrong number of args for {name}: want {want} got {given}"
