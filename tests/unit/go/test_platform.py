"""Platforms, in the words of containerd's `platforms` package."""

import pytest

from bennu.go.platform import Platform, parse_platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux", Platform("linux", "amd64")),
        ("LINUX", Platform("linux", "amd64")),
        ("macos", Platform("darwin", "amd64")),
        ("s390x", Platform("linux", "s390x")),
        ("armhf", Platform("linux", "arm")),
        ("linux/sparc64", Platform("linux", "sparc64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/i386", Platform("linux", "386")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/arm64/v9", Platform("linux", "arm64", "v9")),
        ("linux/arm/v7", Platform("linux", "arm")),
        ("linux/arm/6", Platform("linux", "arm", "v6")),
        ("linux/amd64/v1", Platform("linux", "amd64")),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3")),
        ("windows(10.0.17763)/amd64", Platform("windows", "amd64")),
        ("macos/arm64", Platform("darwin", "arm64")),
        ("linux/unheard_of", Platform("linux", "unheard_of")),
    ],
)
def test_platforms(text: str, expected: Platform) -> None:
    assert parse_platform(text, "amd64") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*", '"*": wildcards not yet supported: invalid argument'),
        ("/", '"" is an invalid OS component of "/": OSAndVersion specifier component must match'),
        ("   ", '"   " is an invalid OS component of "   "'),
        ("linux/", '"" is an invalid component of "linux/": platform specifier component must match'),
        ("nintendo64", '"nintendo64": unknown operating system or architecture: invalid argument'),
        ("a/b/c/d", '"a/b/c/d": cannot parse platform specifier: invalid argument'),
        ("linux/amd64\n", '"amd64\n" is an invalid component of "linux/amd64\n"'),
    ],
)
def test_what_is_no_platform(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"invalid argument$") as caught:
        parse_platform(text, "amd64")
    assert str(caught.value).startswith(words)
