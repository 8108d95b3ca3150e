"""The syntax of JSON in Go's words: where a value ends, what is wrong, and what is mended."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.go.json import MAX_DEPTH, repair, value_end

WRONG = {
    "{invalid": "invalid character 'i' looking for beginning of object key string",
    "{'a':1}": "invalid character '\\'' looking for beginning of object key string",
    '{"a":1,}': "invalid character '}' looking for beginning of object key string",
    '{"a" 1}': "invalid character '1' after object key",
    '{"a":1 "b":2}': "invalid character '\"' after object key:value pair",
    "[1,]": "invalid character ']' looking for beginning of value",
    "[1 2]": "invalid character '2' after array element",
    "}": "invalid character '}' looking for beginning of value",
    '{"a":\x01}': "invalid character '\\x01' looking for beginning of value",
    "\ufeff{}": "invalid character 'ï' looking for beginning of value",
    "NaN": "invalid character 'N' looking for beginning of value",
    "trux": "invalid character 'x' in literal true (expecting 'e')",
    "nulx": "invalid character 'x' in literal null (expecting 'l')",
    "-x": "invalid character 'x' in numeric literal",
    "1.x": "invalid character 'x' after decimal point in numeric literal",
    "1e+x": "invalid character 'x' in exponent of numeric literal",
    '"a\nb"': "invalid character '\\n' in string literal",
    '"\\x"': "invalid character 'x' in string escape code",
    '"\\u12"': "invalid character '\"' in \\u hexadecimal character escape",
    **dict.fromkeys(
        ("{", '{"a"', '{"a":', '{"a":1', '{"a":1,', "[", "[1,", "tru", "-", "1.", "1e", '"abc', '"\\', '"\\u1', ""),
        "unexpected EOF",
    ),
    "[" * (MAX_DEPTH + 1): "exceeded max depth",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=lambda text: text[:12])
def test_what_is_wrong_is_told_as_go_tells_it(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^(?:invalid|unexpected|exceeded)") as refused:
        value_end(text.encode())
    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("text", "end"),
    [("01", 1), ("12x", 2), ("nullx", 4), ('{"a":1}{', 7), ("  [ ] x", 5), ('"a"b', 3), ("-0.5e-3,", 7)],
)
def test_a_value_ends_where_nothing_more_can_belong_to_it(text: str, end: int) -> None:
    assert value_end(text.encode()) == end


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(TREES, st.booleans(), st.sampled_from([None, 1]))
def test_what_python_writes_ends_at_its_end(tree: object, escaped: bool, indent: int | None) -> None:
    raw = json.dumps(tree, ensure_ascii=escaped, indent=indent).encode(errors="surrogatepass")
    assert value_end(raw) == len(raw)


@given(TREES.filter(lambda tree: isinstance(tree, dict | list | str)), st.data())
def test_no_beginning_of_a_document_is_one(tree: object, data: st.DataObject) -> None:
    raw = json.dumps(tree).encode()
    with pytest.raises(ValueError, match=r"^unexpected EOF$"):
        value_end(raw[: data.draw(st.integers(0, len(raw) - 1))])


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'"\xff\xfe"', '"\ufffd\ufffd"'),
        (b'"\xe2\x82x"', '"\ufffd\ufffdx"'),
        (b'"\\ud800b"', '"\ufffdb"'),
        (b'"\\udc00\\ud800"', '"\ufffd\ufffd"'),
        (b'"\\ud83d\\ude00"', '"\\ud83d\\ude00"'),
        (b'"\\\\ud800"', '"\\\\ud800"'),
    ],
)
def test_what_is_no_unicode_becomes_the_replacement_character(raw: bytes, text: str) -> None:
    assert repair(raw) == text
