"""What `-p` and its friends ask for."""

import pytest

from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.model import PortBinding
from bennu.network.model import PortRequest
from bennu.network.nat.port_bindings import exposed_names, parse_port_bindings


def ask(port: int, proto: str = "tcp", ip: str = "", first: int = 0, last: int = 0) -> PortRequest:
    return PortRequest(container_port=port, proto=proto, host_ip=ip, host_port_first=first, host_port_last=last)


@pytest.mark.parametrize(
    ("key", "host_ip", "host_port", "expected"),
    [
        pytest.param("80/tcp", "", "8080", ask(80, first=8080, last=8080), id="plain"),
        pytest.param("80", "", "8080", ask(80, first=8080, last=8080), id="tcp-is-usual"),
        pytest.param("53/udp", "", "5353", ask(53, "udp", first=5353, last=5353), id="udp"),
        pytest.param("53/UDP", "", "5353", ask(53, "udp", first=5353, last=5353), id="case"),
        pytest.param("80/tcp", "", "", ask(80), id="any-port"),
        pytest.param("80/tcp", "", "0", ask(80), id="zero-is-any"),
        pytest.param("80/tcp", "127.0.0.1", "8080", ask(80, ip="127.0.0.1", first=8080, last=8080), id="address"),
        pytest.param("80/tcp", "[::1]", "8080", ask(80, ip="::1", first=8080, last=8080), id="ipv6"),
        pytest.param("80/tcp", "0.0.0.0", "8080", ask(80, ip="0.0.0.0", first=8080, last=8080), id="ipv4-only"),
        pytest.param("80/tcp", "", "8000-8010", ask(80, first=8000, last=8010), id="range"),
    ],
)
def test_a_binding_becomes_a_request(key: str, host_ip: str, host_port: str, expected: PortRequest) -> None:
    bindings = {key: [PortBinding(host_ip=host_ip, host_port=host_port)]}
    assert parse_port_bindings(None, bindings) == [expected]


@pytest.mark.parametrize("entries", [None, []])
def test_no_binding_at_all_means_any_port(entries: list[PortBinding] | None) -> None:
    assert parse_port_bindings(None, {"80/tcp": entries}) == [ask(80)]


def test_publish_all_adds_what_is_exposed_and_not_bound() -> None:
    bindings = {"80/tcp": [PortBinding(host_port="8080")]}
    found = parse_port_bindings(["80/tcp", "90-91/udp"], bindings, publish_all=True)
    assert found == [ask(80, first=8080, last=8080), ask(90, "udp"), ask(91, "udp")]
    assert parse_port_bindings(["90/udp"], None) == []


@pytest.mark.parametrize(
    ("key", "host_port", "shown"),
    [
        ("zz", "", "zz"),
        ("0/tcp", "", "0"),
        ("65536", "", "65536"),
        ("-1", "", "-1"),
        ("80/tcp", "x", "x"),
        ("80/tcp", "9-8", "9-8"),
        ("80/tcp", "1-", "1-"),
        ("80/tcp", "70000", "70000"),
        ("²/tcp", "", "²"),
    ],
)
def test_a_bad_port_is_named(key: str, host_port: str, shown: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_port_bindings(None, {key: [PortBinding(host_port=host_port)]})
    assert str(refused.value) == f'invalid port specification: "{shown}"'


def test_other_protocols_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="invalid proto: icmp"):
        parse_port_bindings(None, {"80/icmp": None})
    with pytest.raises(NotImplementedHere, match="SCTP"):
        parse_port_bindings(None, {"80/sctp": None})
    with pytest.raises(InvalidParameter, match="invalid IP address in port binding: nowhere"):
        parse_port_bindings(None, {"80/tcp": [PortBinding(host_ip="nowhere")]})


def test_exposed_ranges_are_listed_one_by_one() -> None:
    assert exposed_names({"80": {}, "90-92/udp": {}}) == ["80/tcp", "90/udp", "91/udp", "92/udp"]
