"""Which regular expressions a filter by name takes."""

import time

import pytest

from bennu.api.http.name_patterns import is_tame, name_pattern
from bennu.errors import InvalidParameter


@pytest.mark.parametrize(
    "text",
    [
        "web",
        "^/web$",
        "web.*_[0-9]+",
        "a|b|c",
        r"x\.y",
        "[]*+]x",
        "(ab)+",
        "(?:web|db)-1",
        "(?P<n>a)b",
        "a{2}",
        "a{2,3}?",
    ],
)
def test_usual_expressions_are_taken(text: str) -> None:
    assert is_tame(text)
    assert name_pattern(text) is not None


@pytest.mark.parametrize(
    "text",
    ["(a+)+$", "((a)*)*", "(a|a)*b", "(?:a?){20}", ".*" * 9 + "x", "a?" * 40, r"(a)\1", "(?=a)a", "(?<!a)b", "a" * 300],
)
def test_expressions_that_could_take_for_ever_are_refused_at_once(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidParameter, match="too complex"):
        name_pattern(text)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("text", ["(", "[", "a**", "*", ")"])
def test_a_broken_expression_is_none(text: str) -> None:
    assert name_pattern(text) is None
