"""References are read as Docker reads them."""

import pytest

from bennu.errors import InvalidParameter
from bennu.images.reference import parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox:latest"),
        ("user/app:v1", "docker.io/user/app", "user/app:v1"),
        ("localhost/app", "localhost/app", "localhost/app:latest"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/app:2", "[::1]:5000/app", "[::1]:5000/app:2"),
        ("Registry/app", "Registry/app", "Registry/app:latest"),
        ("u__x/a__b-c.d--e", "docker.io/u__x/a__b-c.d--e", "u__x/a__b-c.d--e:latest"),
        (f"busybox@{DIGEST}", "docker.io/library/busybox", f"busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", "docker.io/library/busybox", f"busybox:1@{DIGEST}"),
    ],
)
def test_a_name_has_one_full_and_one_familiar_form(text: str, full: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert reference.full_name == full
    assert str(reference.tagged()) == familiar


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("user/Foo:x", "invalid reference format: repository name (user/Foo) must be lowercase"),
        ("foo:", "invalid reference format"),
        ("foo:.x", "invalid reference format"),
        ("foo:" + "t" * 129, "invalid reference format"),
        ("-foo", "invalid reference format"),
        ("foo//bar", "invalid reference format"),
        ("foo/../bar", "invalid reference format"),
        ("foo bar", "invalid reference format"),
        ("foo\n", "invalid reference format"),
        ("foo@sha256:abc", "invalid reference format"),
        ("../etc", "invalid reference format"),
        ("user/" + "x" * 256, "repository name must not be more than 255 characters"),
        ("a" * 64, f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings"),
    ],
)
def test_what_is_no_reference_is_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_reference(text)
    assert str(caught.value) == message
