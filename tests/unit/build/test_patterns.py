"""Patterns of COPY and of .dockerignore; what is expected was said by Go's path/filepath and moby's patternmatcher."""

import pytest

from bennu.confined.patterns import PatternList, go_match, has_wildcards, split_wildcards
from bennu.confined.words import Refused


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "d/a.txt", False),
        ("?", "é", True),
        ("?", "/", False),
        ("[^a]*", "b", True),
        ("[^a]*", "a", False),
        ("[^a]", "/", False),
        ("[a-c]", "b", True),
        ("[c-a]", "b", False),
        ("[\\]]", "]", True),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("a.c", "abc", False),
        ("", "", True),
    ],
)
def test_a_pattern_of_a_source_means_what_it_means_to_go(pattern: str, name: str, fits: bool) -> None:
    assert go_match(pattern, name) is fits


def test_a_pattern_of_many_stars_is_soon_done() -> None:
    assert not go_match("*a" * 30 + "x", "a" * 200)
    assert go_match("*a" * 30 + "*", "ba" * 100)
    for pattern in ("*a" * 30 + "x", "**/" * 30 + "x"):
        assert not PatternList([pattern]).fits("a" * 200 + "/a" * 20, [])[0]


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "[a-]", "[-a]", "a\\", "[a-"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Refused, match="syntax error in pattern"):
        go_match(pattern, "a")


def test_a_path_is_split_before_its_first_wildcard() -> None:
    assert split_wildcards("/a/b*/c") == ("/a", "b*/c")
    assert split_wildcards("/a/b") == ("/a/b", "")
    assert not has_wildcards("a\\*b")


@pytest.mark.parametrize(
    ("patterns", "path", "fits"),
    [
        (["*.txt"], "a.txt", True),
        (["*.txt"], "d/a.txt", False),
        (["**/*.txt"], "d/e/a.txt", True),
        (["**/*.txt"], "a.txt", True),
        (["d"], "d/e/f", True),
        (["d/**"], "d/e/f", True),
        (["**b"], "d/ab", True),
        (["d", "!d/e"], "d/e", False),
        (["d", "!d/e"], "d/f", True),
        (["!d/e", "d"], "d/e", True),
        ([" d/../e "], "e", True),
        (["a$b", "c|d"], "a$b", True),
        (["", "  "], "a", False),
    ],
)
def test_the_last_pattern_of_a_list_that_fits_decides(patterns: list[str], path: str, fits: bool) -> None:
    assert PatternList(patterns).fits(path, [])[0] is fits


def test_what_fits_a_folder_fits_what_is_in_it_until_it_is_taken_back() -> None:
    patterns = PatternList(["d", "!d/e"])
    _, above = patterns.fits("d", [])
    fits, above = patterns.fits("d/e", above)
    assert not fits
    assert not patterns.fits("d/e/f", above)[0]


def test_a_pattern_that_takes_back_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="illegal exclusion pattern"):
        PatternList(["!"])
