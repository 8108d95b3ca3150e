"""Which of the files that a client sends all the same are to be left out of a build's context."""

import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.images.dockerignore import is_ignored


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("*", True),
        ("*\n!sub", False),
        ("*\n!sub\nsub/Dockerfile", True),
        ("!sub\n*", True),
        ("sub", True),
        ("/sub/", True),
        ("./sub/../sub", True),
        ("Dockerfile", False),
        ("**/Dockerfile", True),
        ("**", True),
        ("sub/**", True),
        ("*/Docker?ile", True),
        ("sub*file", False),
        ("sub/[C-E]ockerfile", True),
        ("sub/[^D]ockerfile", False),
        ("sub/[", False),
        ("# sub", False),
        ("  sub  \r", True),
        ("\ufeffsub", True),
        (r"s\ub", True),
        ("**/*file", True),
        ("***/Dockerfile", True),
        ("**/sub/**/Dockerfile", True),
        ("sub/**/*/Dockerfile", False),
        ("**bDockerfile", False),
        ("*****", True),
    ],
)
def test_the_last_pattern_that_fits_a_path_or_a_folder_above_it_decides(text: str, expected: bool) -> None:
    assert is_ignored(text, "sub/Dockerfile") == expected


def test_a_pattern_that_regular_expressions_choke_on_takes_one_pass() -> None:
    assert not is_ignored("*a" * 50 + "b\n" + "**a" * 50 + "b\n", "a" * 4000)
    assert is_ignored("**/" * 50 + "a" * 20, "x/" * 1000 + "a" * 20)


@given(st.text(alphabet="ab/*?", max_size=8), st.text(alphabet="ab/", min_size=1, max_size=8))
def test_patterns_fit_what_regular_expressions_fit(pattern: str, path: str) -> None:
    word = posixpath.normpath(pattern.strip() or ".").lstrip("/")
    expression = re.sub(r"\*\*/?$|\*\*/?|.", translate, word)
    parts = posixpath.normpath(path).lstrip("/").split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    assert is_ignored(pattern or ".", path) == any(re.fullmatch(expression, one) for one in above)


def translate(found: re.Match[str]) -> str:
    match found[0]:
        case "**" | "**/":
            return ".*" if found.end() == len(found.string) else "(?:.*/)?"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
        case letter:
            return re.escape(letter)
