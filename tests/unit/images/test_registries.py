"""Which registries may be spoken to without TLS, and who stands in for Docker Hub."""

import asyncio

import pytest

from bennu.images.registries import parse_registries
from bennu.images.registry.endpoints import RegistryEndpoint, endpoints_of
from bennu.images.registry.refusals import RegistryError
from bennu.images.registry.repository import Fallbacks


@pytest.mark.parametrize(
    ("domain", "insecure"),
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("docker.io", False),
        ("10.0.0.1:5000", True),
        ("192.168.0.1:5000", False),
        ("named.invalid:5000", True),
        ("named.invalid", False),
        ("127.0.0.1.evil.invalid", False),
    ],
)
def test_only_this_machine_and_who_is_named_may_speak_plain_http(domain: str, insecure: bool) -> None:
    registries = parse_registries([], ["10.0.0.0/8", "named.invalid:5000"])
    assert asyncio.run(registries.is_insecure(domain)) is insecure


def test_mirrors_stand_in_for_docker_hub_alone() -> None:
    registries = parse_registries(["http://127.0.0.1:5000", "https://192.0.2.1/hub/", "https://192.0.2.1/hub"], [])
    assert registries.mirrors == ("http://127.0.0.1:5000/", "https://192.0.2.1/hub/")
    asked = asyncio.run(endpoints_of(registries, "docker.io", mirrors=True))
    assert asked == [
        RegistryEndpoint("http://127.0.0.1:5000", "127.0.0.1:5000", is_insecure=True, is_mirror=True),
        RegistryEndpoint("https://192.0.2.1/hub", "192.0.2.1", is_mirror=True),
        RegistryEndpoint("https://registry-1.docker.io", ""),
    ]
    assert asyncio.run(endpoints_of(registries, "docker.io", mirrors=False)) == asked[2:]
    assert asyncio.run(endpoints_of(registries, "192.0.2.2", mirrors=True)) == [
        RegistryEndpoint("https://192.0.2.2", "192.0.2.2")
    ]


def test_only_an_insecure_registry_is_asked_without_tls_and_not_after_it_has_spoken_tls() -> None:
    registries = parse_registries([], [])
    both = asyncio.run(endpoints_of(registries, "127.0.0.1:5000", mirrors=True))
    assert [endpoint.url for endpoint in both] == ["https://127.0.0.1:5000", "http://127.0.0.1:5000"]
    for spoken in (False, True):
        fallbacks = Fallbacks(both)
        first = fallbacks.next()
        assert first == both[0]
        fallbacks.note(first, RegistryError("", spoken=spoken))
        assert fallbacks.next() == (None if spoken else both[1])
