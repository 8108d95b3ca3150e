"""Platforms, in the words of containerd's `platforms` package."""

import pytest

from bennu.go.platform import ImagePlatform, parse_platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux", ImagePlatform("linux", "amd64")),
        ("LINUX", ImagePlatform("linux", "amd64")),
        ("macos", ImagePlatform("darwin", "amd64")),
        ("s390x", ImagePlatform("linux", "s390x")),
        ("armhf", ImagePlatform("linux", "arm")),
        ("linux/sparc64", ImagePlatform("linux", "sparc64")),
        ("linux/x86_64", ImagePlatform("linux", "amd64")),
        ("linux/i386", ImagePlatform("linux", "386")),
        ("linux/aarch64", ImagePlatform("linux", "arm64")),
        ("linux/arm64/v8", ImagePlatform("linux", "arm64", "v8")),
        ("linux/arm64/v9", ImagePlatform("linux", "arm64", "v9")),
        ("linux/arm/v7", ImagePlatform("linux", "arm")),
        ("linux/arm/6", ImagePlatform("linux", "arm", "v6")),
        ("linux/amd64/v1", ImagePlatform("linux", "amd64")),
        ("linux/amd64/v3", ImagePlatform("linux", "amd64", "v3")),
        ("windows(10.0.17763)/amd64", ImagePlatform("windows", "amd64")),
        ("macos/arm64", ImagePlatform("darwin", "arm64")),
        ("linux/unheard_of", ImagePlatform("linux", "unheard_of")),
    ],
)
def test_platforms(text: str, expected: ImagePlatform) -> None:
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
