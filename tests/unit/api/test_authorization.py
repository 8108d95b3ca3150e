"""What authorization plugins are shown of requests and answers."""

import pytest

from bennu.api.http.authorization import common_name, headers_of, shows_body


@pytest.mark.parametrize(
    ("path", "content_type", "shown"),
    [
        ("/v1.47/containers/create", "application/json", True),
        ("/containers/create", "Application/JSON; charset=utf-8", True),
        ("/containers/x/archive", "application/x-tar", False),
        ("/containers/x/attach", "", False),
        ("/v1.47/auth", "application/json", False),
        ("/auth", "application/json", False),
        ("/containers/auth", "application/json", True),
    ],
)
def test_bodies_are_shown_that_are_json_and_no_password(path: str, content_type: str, shown: bool) -> None:
    assert shows_body(path, content_type) is shown


def test_headers_are_shown_but_for_passwords() -> None:
    given = {"x-registry-auth": "s", "X-Registry-Config": "s", "authorization": "s", "user-agent": "u", "host": "h"}
    assert headers_of(given, leave_out={"host"}) == {"User-Agent": "u"}


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("O=Operations, CN=alice", "alice"),
        ("CN=alice", "alice"),
        (r"O=a\, CN=root, CN=alice\, the first", "alice, the first"),
        ("O=Operations", ""),
        ("", ""),
    ],
)
def test_the_name_in_a_certificate_is_its_own_and_no_other_values(subject: str, name: str) -> None:
    assert common_name(subject) == name
