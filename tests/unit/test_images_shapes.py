"""Small pure parts of images over HTTP."""

import base64
import hashlib
import re

import msgspec
import pytest

from bennu.api.http.progress import draw_bar, human_size
from bennu.api.shapes.image_list import compile_pattern
from bennu.errors import InvalidParameter
from bennu.images.image import ZERO_TIME_NS, format_time, image_config, parse_config, parse_time
from bennu.images.reference import parse_reference
from bennu.images.removal import chain_ids
from bennu.images.skopeo import Auth, explain, is_local, login_for, parse_auth, parse_logins


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("busybox", "busybox", True),
        ("busy*", "busybox", True),
        ("*", "user/app", False),
        ("*/*", "user/app", True),
        ("b?sybox:1.[0-9]", "busybox:1.3", True),
        ("b?sybox:1.[^0-9]", "busybox:1.3", False),
        ("a\\*", "a*", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns_are_those_of_gos_path_match(pattern: str, name: str, matches: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(name)) is matches


@pytest.mark.parametrize("pattern", ["[", "a\\", "[z-a]"])
def test_a_broken_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match=re.escape("syntax error in pattern")):
        compile_pattern(pattern)


def test_the_bar_is_dockers() -> None:
    assert draw_bar(512, 1024) == "[=========================>                         ]     512B/1.024kB"
    assert draw_bar(20, 0) == "     20B"
    assert human_size(1982256) == "1.982MB"


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:00.5Z", 5 * 10**8),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("0001-01-01T00:00:00Z", ZERO_TIME_NS),
        ("soon", ZERO_TIME_NS),
        (None, ZERO_TIME_NS),
    ],
)
def test_times_of_configurations_are_read_exactly(text: object, ns: int) -> None:
    assert parse_time(text) == ns


@pytest.mark.parametrize("text", ["2024-02-29T23:59:59.123456789Z", "1969-12-31T23:59:59.5Z", "0001-01-01T00:00:00Z"])
def test_times_survive_a_round_trip(text: str) -> None:
    assert format_time(parse_time(text)) == text


def test_a_chain_id_names_a_layer_in_its_place() -> None:
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    chains = chain_ids([first, second])
    assert chains[0] == first
    joined = f"{first} {second}".encode()
    assert chains[1] == "sha256:" + hashlib.sha256(joined).hexdigest()
    assert chain_ids([first]) == [first] and chain_ids([]) == []
    assert chains[1] != chain_ids([second, first])[1]


@pytest.mark.parametrize(
    "blob",
    [b"", b"[]", b"{", b'{"rootfs": {"diff_ids": "x"}}', b'{"rootfs": {"diff_ids": ["../../etc"]}}', b'{"rootfs": 3}'],
)
def test_a_configuration_that_cannot_be_relied_on_is_refused(blob: bytes) -> None:
    with pytest.raises(InvalidParameter, match="invalid image configuration"):
        parse_config(blob)


def test_nulls_in_a_configuration_are_as_good_as_absent() -> None:
    config = image_config(
        {
            "config": {
                "Cmd": None,
                "Env": None,
                "Entrypoint": "x",
                "Volumes": {"/v": None},
                "Healthcheck": {"Test": None},
            }
        }
    )
    assert (config.cmd, config.entrypoint, config.volumes) == (None, ["x"], {"/v": {}})


@pytest.mark.parametrize(
    ("domain", "local"),
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("docker.io", False),
        ("10.0.0.1:5000", False),
        ("127.0.0.1.evil.example", False),
    ],
)
def test_only_registries_on_this_machine_may_speak_plain_http(domain: str, local: bool) -> None:
    assert is_local(domain) is local


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


@pytest.mark.timeout(10)
def test_a_pattern_of_many_stars_is_answered_in_no_time() -> None:
    assert compile_pattern("*a" * 100 + "*b").fullmatch("a" * 255) is None
    assert compile_pattern("*a" * 100 + "*/b*").fullmatch("a" * 255 + "/bc") is not None
