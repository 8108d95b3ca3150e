"""The patterns of `docker images --filter reference=…`."""

import re

import pytest

from bennu.api.shapes.image_list import compile_pattern
from bennu.errors import InvalidParameter


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("busybox", "busybox", True),
        ("busy*", "busybox", True),
        ("*", "user/app", False),
        ("*/*", "user/app", True),
        ("b?sybox:1.[0-9]", "busybox:1.3", True),
        ("b?sybox:1.[^0-9]", "busybox:1.3", False),
        ("a\\*", "a*", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns_are_those_of_gos_path_match(pattern: str, name: str, matches: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(name)) is matches


@pytest.mark.parametrize("pattern", ["[", "a\\", "[z-a]"])
def test_a_broken_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match=re.escape("syntax error in pattern")):
        compile_pattern(pattern)


@pytest.mark.timeout(10)
def test_a_pattern_of_many_stars_is_answered_in_no_time() -> None:
    assert compile_pattern("*a" * 100 + "*b").fullmatch("a" * 255) is None
    assert compile_pattern("*a" * 100 + "*/b*").fullmatch("a" * 255 + "/bc") is not None
