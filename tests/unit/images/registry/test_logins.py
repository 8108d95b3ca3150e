"""Logins as clients send them."""

import base64

import msgspec
import pytest

from bennu.images.reference import parse_reference
from bennu.images.registry.logins import Auth, login_for, parse_auth, parse_logins


@pytest.mark.parametrize("header", ["", "!!!", "bm90IGpzb24=", "W10="])
def test_a_broken_login_is_no_login(header: str) -> None:
    assert parse_auth(header).is_empty


def test_a_build_uses_each_login_for_its_own_registry_only() -> None:
    logins = {"https://index.docker.io/v1/": {"username": "hub"}, "h:5000": {"username": "own"}}
    header = base64.urlsafe_b64encode(msgspec.json.encode(logins)).decode()
    found = parse_logins(header)
    assert login_for(parse_reference("busybox"), found).username == "hub"
    assert login_for(parse_reference("h:5000/x"), found).username == "own"
    assert login_for(parse_reference("other:5000/x"), found) == Auth()
    assert parse_logins("{}") == {}


def test_a_login_is_read_in_either_form_and_never_shown() -> None:
    joined = Auth(auth=base64.b64encode(b"me:pass:word").decode())
    assert joined.pair == ("me", "pass:word")
    assert Auth(username="me", password="secret", auth="ignored").pair == ("me", "secret")
    assert Auth(auth="\xff").pair == ("", "")
    assert "secret" not in repr(Auth(username="me", password="secret", registrytoken="secret", identitytoken="secret"))
