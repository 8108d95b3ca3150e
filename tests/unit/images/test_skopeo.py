"""Logins, and what a registry's refusal becomes."""

import base64

import msgspec
import pytest

from bennu.images.reference import parse_reference
from bennu.images.skopeo import Auth, explain, login_for, parse_auth, parse_logins


@pytest.mark.parametrize("header", ["", "!!!", "bm90IGpzb24=", "W10="])
def test_a_broken_login_is_no_login(header: str) -> None:
    assert parse_auth(header).is_empty


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "reading manifest x: manifest unknown: manifest unknown",
            "manifest for app:v1 not found: manifest unknown: manifest unknown",
        ),
        (
            "reading manifest x: errors:\ndenied: requested access to the resource is denied\nunauthorized: "
            "authentication required",
            "pull access denied for app, repository does not exist or may require 'docker login': denied: requested "
            "access to the resource is denied",
        ),
        (
            'pinging container registry h: Get "http://h/v2/": dial tcp: connection refused',
            'Get "http://h/v2/": dial tcp: connection refused',
        ),
    ],
)
def test_a_registrys_refusal_is_told_in_dockers_words(words: str, message: str) -> None:
    assert str(explain(words, parse_reference("app:v1"))) == message


def test_a_build_uses_each_login_for_its_own_registry_only() -> None:
    logins = {"https://index.docker.io/v1/": {"username": "hub"}, "h:5000": {"username": "own"}}
    header = base64.urlsafe_b64encode(msgspec.json.encode(logins)).decode()
    found = parse_logins(header)
    assert login_for(parse_reference("busybox"), found).username == "hub"
    assert login_for(parse_reference("h:5000/x"), found).username == "own"
    assert login_for(parse_reference("other:5000/x"), found) == Auth()
    assert parse_logins("{}") == {}
