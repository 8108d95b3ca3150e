"""Decodes JSON as Go's `encoding/json` does, into the shapes of this program.

Keys match a field in any case, and exactly in the first place. Keys of no field are passed over. `null` is "nothing
given": a field keeps its default, an entry of a map or list is its type's zero. Of a key that comes twice the last one
counts. A list of `Words` may come as one text. What cannot be read is told in Go's words.
"""

import contextlib
import functools
import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import inspect as shapes

from bennu.errors import InvalidParameter
from bennu.go.json import repair, value_end
from bennu.model import OR_ONE_TEXT

Decoded = TypeVar("Decoded")

ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
BIG_NUMBER: Final = b"0" * 19  # what 19 digits are then: the search takes a tenth of an expression's time
LARGE: Final = 1 << 20  # bytes
SPACE: Final = b" \t\r\n"
CLOSING: Final = (b"]", b"}")  # Go's decoder takes these behind a value for the end of what it stands in
GO_TYPES: Final[dict[type[shapes.Type], str]] = {
    shapes.StrType: "string",
    shapes.IntType: "int64",
    shapes.FloatType: "float64",
    shapes.BoolType: "bool",
}


class Number(float):
    """A number that is not whole, with its digits as they came."""

    literal: str = ""


def decode(raw: bytes, shape: type[Decoded]) -> Decoded | None:
    """Decode the JSON value in `raw` as `shape`; None for `null`. Raises: InvalidParameter in Go's words."""
    if len(raw) < LARGE:
        return _decode(raw, shape)
    with _without_collection():
        return _decode(raw, shape)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Let no garbage be looked for: of millions of new values it would look at each again and again.

    Two threads that do so at the same time only switch it on again early.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _decode(raw: bytes, shape: type[Decoded]) -> Decoded | None:
    rest = b""
    try:
        tree = _parse(raw, fitting_of(cast("Any", shape)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        end = _end_of(raw)
        raw, rest = raw[:end], raw[end:].strip(SPACE)
        tree = _parse_slowly(raw)
    decoded = None if tree is None else _convert(raw, tree, shape)
    if rest and not rest.startswith(CLOSING):
        raise InvalidParameter("unexpected content after JSON")
    return decoded


def _parse(raw: bytes | msgspec.Raw, fitting: "Fitting") -> Any:
    """Parse without making anything of what is large and in fields that nobody has: it may be millions of values."""
    if memoryview(raw).nbytes < LARGE or fitting.fields is None:
        return msgspec.json.decode(raw)
    try:
        values = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return msgspec.json.decode(raw)
    known = ((key, value, fitting.fields.get(key) or fitting.folded.get(fold(key))) for key, value in values.items())
    return {key: _parse(value, found[1]) for key, value, found in known if found is not None}


def _end_of(raw: bytes) -> int:
    try:
        return value_end(raw)
    except ValueError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from None


def _parse_slowly(raw: bytes) -> Any:
    """Parse what msgspec will not take."""
    try:
        return json.loads(repair(raw), parse_int=_whole_number)
    except RecursionError:
        raise InvalidParameter("invalid JSON: exceeded max depth") from None


def _whole_number(digits: str) -> int:
    return int(digits) if len(digits) < 100 else 10**100  # too large, however large


def _convert(raw: bytes, tree: Any, shape: type[Decoded]) -> Decoded:
    fitted = fit(tree, fitting_of(cast("Any", shape)))
    if BIG_NUMBER in raw.translate(ZEROS):
        _check_numbers(fitted)
    try:
        return msgspec.convert(fitted, type=shape)
    except msgspec.ValidationError as error:
        words = _mismatch(_with_literals(raw, fitted, shape), shapes.type_info(shape), "", ()) or str(error)
        raise InvalidParameter(f"invalid JSON: {words}") from None


# --- keys and nulls ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Fitting:
    """What is to be done to a value of one type before it is converted."""

    accepts_null: bool = False
    zero: Any = None  # what null is in a map or list
    fields: "dict[str, tuple[str, Fitting]] | None" = None  # of a struct: by name as it is on the wire
    folded: "dict[str, tuple[str, Fitting]]" = field(default_factory=dict)  # the same, by name without case
    values: "Fitting | None" = None  # of a map
    items: "Fitting | None" = None  # of a list
    wraps_text: bool = False  # a list that may come as one text

    @property
    def is_leaf(self) -> bool:
        return self.fields is None and self.values is None and self.items is None


@functools.cache
def fitting_of(shape: Any) -> Fitting:
    """Make the fitting of a shape, once."""
    return _fitting(shapes.type_info(shape))


def _fitting(kind: shapes.Type) -> Fitting:
    match kind:
        case shapes.UnionType(types=types):
            fitting = Fitting(accepts_null=kind.includes_none)
            for one in map(_fitting, types):
                fitting.fields, fitting.folded = fitting.fields or one.fields, fitting.folded or one.folded
                fitting.values, fitting.items = fitting.values or one.values, fitting.items or one.items
                fitting.wraps_text = fitting.wraps_text or one.wraps_text
            return fitting
        case shapes.Metadata(type=inner):
            fitting = _fitting(inner)
            fitting.wraps_text = kind.extra == OR_ONE_TEXT
            return fitting
        case shapes.StructType(fields=fields):
            known = {one.encode_name: (one.encode_name, _fitting(one.type)) for one in fields}
            return Fitting(zero={}, fields=known, folded={fold(name): entry for name, entry in known.items()})
        case shapes.DictType(value_type=value_type):
            return Fitting(zero={}, values=_fitting(value_type))
        case shapes.ListType(item_type=item_type):
            return Fitting(zero=[], items=_fitting(item_type))
        case shapes.StrType():
            return Fitting(zero="")
        case shapes.IntType() | shapes.FloatType():
            return Fitting(zero=0)
        case shapes.BoolType():
            return Fitting(zero=False)
    return Fitting(accepts_null=isinstance(kind, shapes.AnyType | shapes.NoneType))


def fold(key: str) -> str:
    """Answer the key without case: two that Go takes for one have one answer (Unicode's simple folding)."""
    if key.isascii():
        return key.lower()
    return "".join(folded if len(folded := one.casefold()) == 1 else one for one in key)


def fit(value: Any, fitting: Fitting) -> Any:
    """Answer the value with its keys as the shape writes them and without nulls that its types cannot hold."""
    if isinstance(value, dict):
        if fitting.fields is not None:
            return _fit_struct(value, fitting.fields, fitting.folded)
        if fitting.values is not None:
            return _fit_map(value, fitting.values)
    elif isinstance(value, list) and fitting.items is not None:
        return _fit_list(value, fitting.items)
    elif isinstance(value, str) and fitting.wraps_text:
        return [value]
    return value


def _fit_struct(
    value: dict[str, Any], fields: dict[str, tuple[str, Fitting]], folded: dict[str, tuple[str, Fitting]]
) -> dict[str, Any]:
    fitted: dict[str, Any] = {}
    for key, entry in value.items():
        known = fields.get(key) or folded.get(fold(key))
        if known is None:
            continue
        name, fitting = known
        if entry is None and not fitting.accepts_null:
            continue
        inner = fit(entry, fitting)
        if isinstance(inner, dict) and isinstance(fitted.get(name), dict):
            inner = fitted[name] | inner  # one key in two cases: Go decodes the second into what the first has made
        fitted[name] = inner
    return fitted


def _fit_map(value: dict[str, Any], fitting: Fitting) -> dict[str, Any]:
    if fitting.is_leaf and (fitting.accepts_null or None not in value.values()):
        return value
    return {key: _fit_entry(entry, fitting) for key, entry in value.items()}


def _fit_list(value: list[Any], fitting: Fitting) -> list[Any]:
    if fitting.is_leaf and (fitting.accepts_null or None not in value):
        return value
    return [_fit_entry(entry, fitting) for entry in value]


def _fit_entry(entry: Any, fitting: Fitting) -> Any:
    return fitting.zero if entry is None and not fitting.accepts_null else fit(entry, fitting)


# --- what does not fit, in Go's words ---------------------------------------------------------------------------


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict):
        for entry in value.values():
            _check_numbers(entry)
    elif isinstance(value, list):
        for entry in value:
            _check_numbers(entry)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidParameter(
            f"invalid JSON: json: cannot unmarshal number {_digits(value)} into Go value of type int64"
        )


def _digits(number: int) -> str:
    return str(number) if abs(number) < 10**100 else "1e100"


def _with_literals(raw: bytes, fitted: Any, shape: Any) -> Any:
    """Answer the tree with numbers that know how they were written; it has been decoded before, so it can be again."""
    try:
        tree = json.loads(repair(raw), parse_int=_whole_number, parse_float=_number)
    except (ValueError, RecursionError):
        return fitted
    return fit(tree, fitting_of(shape))


def _number(digits: str) -> Number:
    number = Number(digits)
    number.literal = digits
    return number


def _mismatch(value: Any, kind: shapes.Type, struct: str, path: tuple[str, ...]) -> str:
    """Name the first value that is not of its type, as `json.UnmarshalTypeError` does; "" when there is none."""
    if value is None or isinstance(kind, shapes.AnyType):
        return ""
    if isinstance(kind, shapes.Metadata):
        return _mismatch(value, kind.type, struct, path)
    if isinstance(kind, shapes.UnionType):
        kinds = [
            one.type if isinstance(one, shapes.Metadata) else one
            for one in kind.types
            if not isinstance(one, shapes.NoneType)
        ]
        chosen = next((one for one in kinds if _is_of(value, one)), kinds[0])
        return _mismatch(value, chosen, struct, path)
    if not _is_of(value, kind):
        place = f"struct field {struct}.{'.'.join(path)}" if path else "value"
        return f"json: cannot unmarshal {_described(value, kind)} into Go {place} of type {go_type(kind)}"
    match kind:
        case shapes.StructType(cls=cls, fields=fields):
            inner = {one.encode_name: one.type for one in fields}
            found = (_mismatch(value[name], inner[name], cls.__name__, (*path, name)) for name in value)
        case shapes.DictType(value_type=value_type):
            found = (_mismatch(entry, value_type, struct, path) for entry in value.values())
        case shapes.ListType(item_type=item_type):
            found = (_mismatch(entry, item_type, struct, path) for entry in value)
        case _:
            return ""
    return next(filter(None, found), "")


def _is_of(value: Any, kind: shapes.Type) -> bool:
    match kind:
        case shapes.StructType() | shapes.DictType():
            return isinstance(value, dict)
        case shapes.ListType():
            return isinstance(value, list)
        case shapes.StrType():
            return isinstance(value, str)
        case shapes.BoolType():
            return isinstance(value, bool)
        case shapes.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case shapes.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
    return True


def _described(value: Any, kind: shapes.Type) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
        case Number() if isinstance(kind, shapes.IntType):
            return f"number {value.literal}"
    return "number"


def go_type(kind: shapes.Type) -> str:
    """Name a type as Go would."""
    match kind:
        case shapes.UnionType(types=types):
            return go_type(next(one for one in types if not isinstance(one, shapes.NoneType)))
        case shapes.StructType(cls=cls):
            return str(cls.__name__)
        case shapes.DictType(value_type=value_type):
            return f"map[string]{go_type(value_type)}"
        case shapes.ListType(item_type=item_type):
            return f"[]{go_type(item_type)}"
    return GO_TYPES.get(type(kind), "interface {}")
