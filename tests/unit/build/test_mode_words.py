"""The words of `--chmod`; what is expected was said by the library that BuildKit reads them with."""

import pytest

from bennu.confined.mode_words import parse_mode
from bennu.confined.words import Refused

FILE, FOLDER = False, True


@pytest.mark.parametrize(
    ("words", "before", "kind", "after"),
    [
        ("755", 0o600, FILE, 0o755),
        ("4711", 0o600, FILE, 0o4711),
        ("u+x,go=", 0o640, FILE, 0o700),
        ("u+x,go=", 0o4755, FILE, 0o4700),
        ("a-w", 0o666, FILE, 0o444),
        ("=rw", 0o6755, FILE, 0o666),
        ("+X", 0o644, FILE, 0o644),
        ("+X", 0o644, FOLDER, 0o755),
        ("+X", 0o744, FILE, 0o755),
        ("-X", 0o755, FILE, 0o644),
        ("g=u", 0o750, FILE, 0o770),
        ("o-g", 0o657, FILE, 0o652),
        ("u=gxX", 0o640, FILE, 0o140),
        ("ug+s,+t", 0o755, FILE, 0o7755),
        ("o+s", 0o755, FILE, 0o755),
        ("u+r-w", 0o200, FILE, 0o400),
    ],
)
def test_words_change_a_mode_as_bsd_reads_them(words: str, before: int, kind: bool, after: int) -> None:
    assert oct(parse_mode(words)(before, kind)) == oct(after)


@pytest.mark.parametrize("words", ["9", "10000", "u", "u+q", "x", "u+x,", "", "78z"])
def test_what_is_no_mode_is_refused(words: str) -> None:
    with pytest.raises(Refused):
        parse_mode(words)
