"""What may be connected to what, what an endpoint may ask for, and what a legacy link tells."""

import itertools

import pytest

from bennu.engine.creation import requested_endpoints
from bennu.engine.links import variables_of
from bennu.engine.sandbox import CANNOT_JOIN_HOST, NONE_CONFLICT, SHARED_CONFLICT, why_not_connect
from bennu.model import EndpointSettings, HostConfig, NetworkingConfig
from bennu.network import Network, PortLink
from bennu.network.ipam.catalogue import find_option_problems
from bennu.network.model import ENDPOINT_INTERFACE, ENDPOINT_SYSCTLS, Endpoint
from bennu.network.nat.rules import BridgeRules, Ruleset, render_table

DRIVERS = {"bridge": "bridge", "host": "host", "none": "null", "own": "bridge", "other": "bridge"}
NETWORKS = {
    name: Network(id=name, name=name, created_ns=number, driver=driver)
    for number, (name, driver) in enumerate(DRIVERS.items())
}


@pytest.mark.parametrize(
    ("mode", "present", "wanted", "refused"),
    [
        ("bridge", ["bridge"], "own", ""),
        ("bridge", ["bridge"], "bridge", ""),
        ("bridge", ["bridge"], "none", NONE_CONFLICT),
        ("bridge", ["bridge"], "host", CANNOT_JOIN_HOST),
        ("bridge", [], "none", ""),
        ("none", ["none"], "own", NONE_CONFLICT),
        ("none", [], "own", ""),
        ("none", ["own"], "other", ""),
        ("host", ["host"], "own", SHARED_CONFLICT),
        ("host", ["host"], "none", SHARED_CONFLICT),
        ("host", [], "own", SHARED_CONFLICT),
        ("host", [], "host", ""),
        ("container:x", [], "own", SHARED_CONFLICT),
        ("container:x", [], "none", SHARED_CONFLICT),
        ("container:x", [], "host", SHARED_CONFLICT),
    ],
)
def test_what_a_container_may_be_connected_to(mode: str, present: list[str], wanted: str, refused: str) -> None:
    assert why_not_connect(mode, NETWORKS[wanted], [NETWORKS[name] for name in present]) == refused


def test_nobody_is_ever_on_none_or_host_and_on_another_network() -> None:
    modes = ("bridge", "none", "host", "own")
    for mode, one, other in itertools.product(modes, NETWORKS.values(), NETWORKS.values()):
        apart = one is not other and not {one.driver, other.driver} <= {"bridge"}
        if apart:
            assert why_not_connect(mode, one, [other])


@pytest.mark.parametrize(
    ("mode", "asked", "names"),
    [
        ("", [], ["bridge"]),
        ("default", ["own"], ["own"]),
        ("none", ["own"], ["own"]),
        ("own", ["other", "own"], ["own", "other"]),
        ("own", ["other"], ["other"]),
        ("default", ["own", "default"], ["bridge", "own"]),
        ("host", [], ["host"]),
        ("container:x", ["own"], []),
    ],
)
def test_networks_that_are_listed_are_all_there_are(mode: str, asked: list[str], names: list[str]) -> None:
    networking = NetworkingConfig(endpoints_config={name: EndpointSettings() for name in asked})
    assert list(requested_endpoints(HostConfig(network_mode=mode), networking)) == names


@pytest.mark.parametrize(
    ("options", "fine"),
    [
        ({ENDPOINT_INTERFACE: "uplink0"}, True),
        ({ENDPOINT_INTERFACE: "sixteen-letters-"}, False),
        ({ENDPOINT_INTERFACE: "a/b"}, False),
        ({ENDPOINT_INTERFACE: ".."}, False),
        ({ENDPOINT_INTERFACE: "lo"}, False),
        ({ENDPOINT_INTERFACE: "a%d"}, False),  # the kernel would make a0 of it
        ({ENDPOINT_INTERFACE: "50%"}, False),
        ({ENDPOINT_INTERFACE: "fünfzehn-laute"}, True),
        ({ENDPOINT_INTERFACE: "fünfzehn-bytes-"}, False),  # one too many: it is bytes that the kernel counts
        ({ENDPOINT_INTERFACE: "déjà"}, False),  # the kernel sees a space in its last byte
        ({ENDPOINT_SYSCTLS: "net.ipv4.conf.IFNAME.forwarding=1,net.ipv6.neigh.ifname.gc_stale_time=3"}, True),
        ({ENDPOINT_SYSCTLS: "net.ipv4.conf.eth0.forwarding=1"}, False),
        ({ENDPOINT_SYSCTLS: "net.core.conf.IFNAME.forwarding=1"}, False),
        ({ENDPOINT_SYSCTLS: "net.ipv4.conf.IFNAME.forwarding"}, False),
        ({ENDPOINT_SYSCTLS: "net.ipv4.conf.IFNAME.../../../kernel/panic=1"}, False),
        ({ENDPOINT_SYSCTLS: ""}, False),
        ({"com.example": "anything"}, True),
    ],
)
def test_the_options_of_an_endpoint_are_judged(options: dict[str, str], fine: bool) -> None:
    assert (find_option_problems(options) == []) is fine


def test_sysctls_of_an_endpoint_are_those_of_its_interface() -> None:
    asked = "net.ipv4.conf.IFNAME.forwarding=0,net.ipv6.neigh.ifname.gc_stale_time=3"
    endpoint = Endpoint(
        endpoint_id="e",
        network_id="n",
        network_name="n",
        interface="up.1",
        host_interface="v",
        mac_address="",
        driver_opts={ENDPOINT_SYSCTLS: asked},
    )
    assert endpoint.sysctls == {"ipv4/conf/up.1/forwarding": "0", "ipv6/neigh/up.1/gc_stale_time": "3"}


def test_the_variables_of_a_link_begin_with_tcp_and_tell_ranges() -> None:
    exposed = ["99/udp", "8002/tcp", "8000-8001/tcp", "443/tcp"]
    told = variables_of("my-db", "web", "10.0.0.2", exposed, ["USER=me", "PATH=/bin", "HOME=/", "bare"])
    assert told[0] == "MY_DB_PORT=tcp://10.0.0.2:443"
    assert [entry for entry in told if "_START" in entry or "_END" in entry] == [
        "MY_DB_PORT_8000_TCP_START=tcp://10.0.0.2:8000",
        "MY_DB_PORT_8000_TCP_PORT_START=8000",
        "MY_DB_PORT_8000_TCP_END=tcp://10.0.0.2:8002",
        "MY_DB_PORT_8000_TCP_PORT_END=8002",
    ]
    assert "MY_DB_PORT_99_UDP_ADDR=10.0.0.2" in told
    assert told[-2:] == ["MY_DB_NAME=/web/my-db", "MY_DB_ENV_USER=me"]


def test_a_link_opens_one_port_of_one_container_to_another() -> None:
    links = frozenset({("10.0.0.3", PortLink("10.0.0.2", "tcp", 80)), ("fd00::3", PortLink("fd00::2", "udp", 53))})
    text = render_table("t", Ruleset((BridgeRules("br0", ("10.0.0.0/24",), icc=False),), links=links))
    forward = text[text.index("chain forward") :]
    assert "ip saddr 10.0.0.3 ip daddr 10.0.0.2 tcp dport 80 accept" in forward
    assert "ip6 saddr fd00::3 ip6 daddr fd00::2 udp dport 53 accept" in forward
    assert forward.index("dport 80 accept") < forward.index('oifname { "br0" } drop')
