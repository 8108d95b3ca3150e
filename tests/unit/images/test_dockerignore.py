"""Which of the files that a client sends all the same are to be left out of a build's context."""

import pytest

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
    ],
)
def test_the_last_pattern_that_fits_a_path_or_a_folder_above_it_decides(text: str, expected: bool) -> None:
    assert is_ignored(text, "sub/Dockerfile") == expected
