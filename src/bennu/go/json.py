"""The syntax of JSON in the words of Go's `encoding/json`: where a value ends, or what is wrong with it.

Slow, for it is asked only about texts that a fast decoder has refused.
"""

import re
from typing import Final

MAX_DEPTH: Final = 10_000
SPACE: Final = re.compile(rb"[ \t\r\n]*")
LITERALS: Final = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
STRING_PART: Final = re.compile(rb'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
HEX: Final = re.compile(rb"[0-9a-fA-F]{0,4}")
DIGITS: Final = re.compile(rb"[0-9]+")
ESCAPES: Final = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F]..|\\.", re.DOTALL)
LONE_SURROGATE_CHARACTERS: Final = 6  # `\ud800`
QUOTED: Final = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
EOF: Final = "unexpected EOF"


def value_end(raw: bytes) -> int:
    """Answer where the first value of `raw` ends. Raises: ValueError in Go's words."""
    at, open_brackets, expect = 0, bytearray(), "value"
    while True:
        at = _skip_space(raw, at)
        byte = _byte(raw, at)
        if expect in ("value", "first value") and not (expect == "first value" and byte == ord("]")):
            if byte in b"{[":
                open_brackets.append(byte)
                if len(open_brackets) > MAX_DEPTH:
                    raise ValueError("exceeded max depth")
                expect, at = ("first key" if byte == ord("{") else "first value"), at + 1
                continue
            at = _scalar_end(raw, at, byte)
        elif expect in ("key", "first key") and not (expect == "first key" and byte == ord("}")):
            if byte != ord('"'):
                raise _unexpected(byte, "looking for beginning of object key string")
            at = _skip_space(raw, _string_end(raw, at + 1))
            if (colon := _byte(raw, at)) != ord(":"):
                raise _unexpected(colon, "after object key")
            at, expect = at + 1, "value"
            continue
        elif expect == "more":
            in_object = open_brackets[-1] == ord("{")
            if byte == ord(","):
                at, expect = at + 1, "key" if in_object else "value"
                continue
            if byte != ord("}" if in_object else "]"):
                raise _unexpected(byte, f"after {'object key:value pair' if in_object else 'array element'}")
            at = _close(open_brackets, at)
        else:  # the bracket that closes what has just been opened
            at = _close(open_brackets, at)
        if not open_brackets:
            return at
        expect = "more"


def _close(open_brackets: bytearray, at: int) -> int:
    open_brackets.pop()
    return at + 1


def _skip_space(raw: bytes, at: int) -> int:
    found = SPACE.match(raw, at)
    return found.end() if found else at


def _byte(raw: bytes, at: int) -> int:
    if at >= len(raw):
        raise ValueError(EOF)
    return raw[at]


def _scalar_end(raw: bytes, at: int, byte: int) -> int:
    if byte == ord('"'):
        return _string_end(raw, at + 1)
    if byte == ord("-") or 0x30 <= byte <= 0x39:
        return _number_end(raw, at)
    word = LITERALS.get(byte)
    if word is None:
        raise _unexpected(byte, "looking for beginning of value")
    for place, wanted in enumerate(word):
        if (found := _byte(raw, at + place)) != wanted:
            raise _unexpected(found, f"in literal {word.decode()} (expecting {_quote(wanted)})")
    return at + len(word)


def _string_end(raw: bytes, at: int) -> int:
    found = STRING_PART.match(raw, at)
    at = found.end() if found else at
    byte = _byte(raw, at)
    if byte == ord('"'):
        return at + 1
    if byte != ord("\\"):
        raise _unexpected(byte, "in string literal")
    escaped = _byte(raw, at + 1)
    if escaped != ord("u"):
        raise _unexpected(escaped, "in string escape code")
    digits = HEX.match(raw, at + 2)
    raise _unexpected(_byte(raw, digits.end() if digits else at + 2), "in \\u hexadecimal character escape")


def _number_end(raw: bytes, at: int) -> int:
    at += raw[at] == ord("-")
    first = _byte(raw, at)
    at = at + 1 if first == ord("0") else _digits_end(raw, at, "in numeric literal")
    if raw[at : at + 1] == b".":
        at = _digits_end(raw, at + 1, "after decimal point in numeric literal")
    if raw[at : at + 1] in (b"e", b"E"):
        at += 1
        at = _digits_end(raw, at + (raw[at : at + 1] in (b"+", b"-")), "in exponent of numeric literal")
    return at


def _digits_end(raw: bytes, at: int, place: str) -> int:
    found = DIGITS.match(raw, at)
    if found is None:
        raise _unexpected(_byte(raw, at), place)
    return found.end()


def _unexpected(byte: int, place: str) -> ValueError:
    return ValueError(f"invalid character {_quote(byte)} {place}")


def _quote(byte: int) -> str:
    """Quote a byte as Go does, which takes it for the character of that number."""
    character = chr(byte)
    if character in "'\\":
        return f"'\\{character}'"
    if character in QUOTED:
        return f"'{QUOTED[character]}'"
    if character.isprintable():
        return f"'{character}'"
    return f"'\\x{byte:02x}'" if byte < 0x80 else f"'\\u{byte:04x}'"


def repair(raw: bytes) -> str:
    """Answer correct JSON with U+FFFD where its strings are no Unicode: bytes that are no UTF-8, half pairs."""
    text = raw.decode(errors="surrogateescape")  # one escape for each bad byte, as Go counts them
    text = re.sub("[\udc80-\udcff]", "\ufffd", text)
    return ESCAPES.sub(_whole, text)


def _whole(found: re.Match[str]) -> str:
    return "\ufffd" if len(found[0]) == LONE_SURROGATE_CHARACTERS else found[0]
