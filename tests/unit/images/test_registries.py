"""Which registries may be spoken to without TLS, and who stands in for Docker Hub."""

import asyncio

import pytest

from bennu.images.reference import parse_reference
from bennu.images.registries import parse_registries
from bennu.images.skopeo import mirror_source


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
    registries = parse_registries(["http://m.example:5000", "https://n.example/", "https://n.example"], [])
    assert registries.mirrors == ("http://m.example:5000/", "https://n.example/")
    assert registries.mirrors_of(parse_reference("registry.example/app")) == ()
    asked = parse_reference("busybox:1")
    sources = [mirror_source(mirror, asked) for mirror in registries.mirrors_of(asked)]
    assert [(source.location, list(source.options)) for source in sources] == [
        ("docker://m.example:5000/library/busybox:1", ["--no-creds", "--tls-verify=false"]),
        ("docker://n.example/library/busybox:1", ["--no-creds"]),
    ]
