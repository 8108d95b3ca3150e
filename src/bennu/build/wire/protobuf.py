"""Protocol buffers: messages as dataclasses whose fields say their numbers. Pure.

Only what the messages of builds are made of: varints, text, bytes, messages, and lists and maps of these. Fields that a
message does not name are skipped; what cannot be read raises `Malformed`.
(https://protobuf.dev/programming-guides/encoding/)
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import cache
from typing import Any, Final, NamedTuple, Self, TypeVar, cast

from bennu.errors import InvalidParameter

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
MASK: Final = (1 << 64) - 1
SPEC: Final = "protobuf"
MAX_DEPTH: Final = 16  # of messages in messages

M = TypeVar("M", bound="Message")


class Malformed(InvalidParameter):
    """These bytes are not such a message."""


class Spec(NamedTuple):
    """What a field is: its number, what a single value is, and whether there is one, a list or a map by text."""

    number: int
    kind: str  # "int", "bool", "text", "bytes", "message"
    shape: str = "one"  # "one", "list", "map"
    message: "Callable[[], type[Message]] | None" = None


def number(of: int) -> int:
    return field(default=0, metadata={SPEC: Spec(of, "int")})


def flag(of: int) -> bool:
    return field(default=False, metadata={SPEC: Spec(of, "bool")})


def text(of: int) -> str:
    return field(default="", metadata={SPEC: Spec(of, "text")})


def raw(of: int) -> bytes:
    return field(default=b"", metadata={SPEC: Spec(of, "bytes")})


def one(of: int, kind: Callable[[], type[M]]) -> M | None:
    return cast("M | None", field(default=None, metadata={SPEC: Spec(of, "message", "one", kind)}))


def texts(of: int) -> list[str]:
    return cast("list[str]", field(default_factory=list, metadata={SPEC: Spec(of, "text", "list")}))


def raws(of: int) -> list[bytes]:
    return cast("list[bytes]", field(default_factory=list, metadata={SPEC: Spec(of, "bytes", "list")}))


def many(of: int, kind: Callable[[], type[M]]) -> list[M]:
    return cast("list[M]", field(default_factory=list, metadata={SPEC: Spec(of, "message", "list", kind)}))


def text_map(of: int) -> dict[str, str]:
    return cast("dict[str, str]", field(default_factory=dict, metadata={SPEC: Spec(of, "text", "map")}))


def raw_map(of: int) -> dict[str, bytes]:
    return cast("dict[str, bytes]", field(default_factory=dict, metadata={SPEC: Spec(of, "bytes", "map")}))


def map_of(of: int, kind: Callable[[], type[M]]) -> dict[str, M]:
    return cast("dict[str, M]", field(default_factory=dict, metadata={SPEC: Spec(of, "message", "map", kind)}))


@dataclasses.dataclass(slots=True)
class Message:
    """A message; its subclasses are dataclasses with the fields made above."""

    def encode(self) -> bytes:
        """Write the message; fields with their default value are left out."""
        out = bytearray()
        for name, spec in _specs(cast(Any, type(self))):
            value = getattr(self, name)
            if value:
                _put(out, spec, value)
            elif value is not None and spec.kind == "message" and spec.shape == "one":
                _put(out, spec, value)  # an empty message is one all the same
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Self:
        """Read a message. Raises: Malformed."""
        return _decode(cls, bytes(data), MAX_DEPTH)


@cache
def _specs(kind: Any) -> tuple[tuple[str, Spec], ...]:
    return tuple((f.name, f.metadata[SPEC]) for f in dataclasses.fields(kind))


@cache
def _by_number(kind: Any) -> Mapping[int, tuple[str, Spec]]:
    return {spec.number: (name, spec) for name, spec in _specs(kind)}


# --- writing ------------------------------------------------------------------------------------------------------


def put_varint(out: bytearray, value: int) -> None:
    value &= MASK  # negative numbers are written as 64 bits
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_bytes(out: bytearray, of: int, data: bytes) -> None:
    put_varint(out, of << 3 | BYTES)
    put_varint(out, len(data))
    out += data


def _put(out: bytearray, spec: Spec, value: Any) -> None:
    if spec.shape == "map":
        for key, single in value.items():
            entry = bytearray()
            _put_bytes(entry, 1, _raw_text(key))
            _put_single(entry, 2, spec.kind, single)
            _put_bytes(out, spec.number, bytes(entry))
    elif spec.shape == "list":
        for single in value:
            _put_single(out, spec.number, spec.kind, single)
    else:
        _put_single(out, spec.number, spec.kind, value)


def _put_single(out: bytearray, of: int, kind: str, value: Any) -> None:
    match kind:
        case "int" | "bool":
            put_varint(out, of << 3 | VARINT)
            put_varint(out, int(value))
        case "text":
            _put_bytes(out, of, _raw_text(value))
        case "bytes":
            _put_bytes(out, of, value)
        case _:
            _put_bytes(out, of, value.encode())


def _raw_text(value: str) -> bytes:
    """Encode a text, which has to be UTF-8 on the wire: what is none is replaced as Go does."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()


# --- reading ------------------------------------------------------------------------------------------------------


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an unsigned varint of up to 64 bits; answer it and the place behind it. Raises: Malformed."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a message has a number without an end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & MASK, at
        shift += 7


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """Read a length and as many bytes; answer them and the place behind them. Raises: Malformed."""
    length, at = read_varint(data, at)
    end = at + length
    if end > len(data):
        raise Malformed("a message ends before its time")
    return data[at:end], end


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def skip(data: bytes, at: int, kind: int) -> int:
    """Answer the place behind a value. Raises: Malformed."""
    match kind:
        case 0:
            return read_varint(data, at)[1]
        case 1:
            at += 8
        case 2:
            return read_bytes(data, at)[1]
        case 5:
            at += 4
        case _:
            raise Malformed(f"a message has a value of the unknown kind {kind}")
    if at > len(data):
        raise Malformed("a message ends before its time")
    return at


def _decode(kind: type[M], data: bytes, depth: int) -> M:
    if depth == 0:
        raise Malformed("a message has too many messages in each other")
    fields = _by_number(cast(Any, kind))
    message = kind()
    at, end = 0, len(data)
    while at < end:
        tag, at = read_varint(data, at)
        found = fields.get(tag >> 3)
        if found is None:
            at = skip(data, at, tag & 7)
            continue
        name, spec = found
        value, at = _read_single(data, at, spec, tag & 7, depth)
        if spec.shape == "one":
            setattr(message, name, value)
        elif spec.shape == "list":
            getattr(message, name).append(value)
        else:
            key, single = value
            getattr(message, name)[key] = single
    return message


def _read_single(data: bytes, at: int, spec: Spec, wire: int, depth: int) -> tuple[Any, int]:
    if spec.shape != "map" and spec.kind in ("int", "bool"):
        if wire != VARINT:
            raise Malformed(f"field {spec.number} of a message is no number")
        value, at = read_varint(data, at)
        return (bool(value) if spec.kind == "bool" else _signed(value)), at
    if wire != BYTES:
        raise Malformed(f"field {spec.number} of a message has no length")
    content, at = read_bytes(data, at)
    if spec.shape == "map":
        return _read_entry(content, spec, depth), at
    return _value(content, spec, depth), at


def _value(content: bytes, spec: Spec, depth: int) -> Any:
    if spec.kind == "bytes":
        return content
    if spec.kind == "text":
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise Malformed(f"field {spec.number} of a message is no text") from None
    assert spec.message is not None
    return _decode(spec.message(), content, depth - 1)


def _read_entry(content: bytes, spec: Spec, depth: int) -> tuple[str, Any]:
    key = ""
    value: Any = _value(b"", spec, depth)
    at = 0
    while at < len(content):
        tag, at = read_varint(content, at)
        if tag & 7 != BYTES or tag >> 3 not in (1, 2):
            at = skip(content, at, tag & 7)
            continue
        part, at = read_bytes(content, at)
        if tag >> 3 == 1:
            key = _value(part, Spec(1, "text"), depth)
        else:
            value = _value(part, spec, depth)
    return key, value
