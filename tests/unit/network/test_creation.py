"""What a client may ask of a new network."""

import ipaddress

import pytest

from bennu.errors import BennuError, Conflict, Forbidden, InvalidParameter, NotFound, NotImplementedHere
from bennu.network.creation import IpamConfig, IpamRequest, NetworkRequest, find_ipam_problems, plan_network
from bennu.network.model import Ipam, Network

PRESENT = [
    Network(
        id="a" * 64,
        name="bridge",
        created_ns=1,
        bridge="bennu0",
        ipam=[Ipam(subnet="172.17.0.0/16", gateway="172.17.0.1")],
    ),
    Network(
        id="b" * 64, name="old", created_ns=2, bridge="br-old", ipam=[Ipam(subnet="10.5.0.0/16", gateway="10.5.0.1")]
    ),
]


def plan(*configs: IpamConfig, **fields: object) -> Network:
    ipam = IpamRequest(config=list(configs)) if configs else None
    return plan_network(
        NetworkRequest(**{"name": "new", "ipam": ipam, **fields}),  # type: ignore[arg-type]
        network_id="c" * 64,
        created_ns=3,
        present=PRESENT,
        interfaces=["lo", "eth0"],
        routes=[ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("0.0.0.0/0")],
        global_id=b"\1\2\3\4\5",
    )


def test_a_bare_request_gets_the_next_free_subnet_and_a_bridge_named_after_the_id() -> None:
    network = plan()
    assert network.bridge == "br-cccccccccccc"
    assert network.ipam == [Ipam(subnet="172.18.0.0/16", gateway="172.18.0.1")]
    assert not network.ipam[0].asked


def test_what_is_asked_is_kept() -> None:
    network = plan(
        IpamConfig(
            subnet="10.6.0.0/16",
            gateway="10.6.255.254",
            ip_range="10.6.4.0/24",
            auxiliary_addresses={"router": "10.6.4.1"},
        ),
        labels={"a": "b"},
        internal=True,
        options={"com.docker.network.bridge.name": "mine", "com.docker.network.driver.mtu": "1400"},
    )
    assert network.ipam == [
        Ipam(
            subnet="10.6.0.0/16",
            gateway="10.6.255.254",
            ip_range="10.6.4.0/24",
            aux={"router": "10.6.4.1"},
            asked=True,
        )
    ]
    assert (network.bridge, network.mtu, network.internal, network.labels) == ("mine", 1400, True, {"a": "b"})


def test_ipv6_gets_a_subnet_of_its_own_unless_named() -> None:
    assert [pool.subnet for pool in plan(enable_ipv6=True).ipam] == ["172.18.0.0/16", "fd01:203:405::/64"]
    named = plan(IpamConfig(subnet="fd00:7::/64"), enable_ipv6=True)
    assert [(pool.subnet, pool.gateway) for pool in named.ipam] == [
        ("172.18.0.0/16", "172.18.0.1"),
        ("fd00:7::/64", "fd00:7::1"),
    ]


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"name": ""}, InvalidParameter, "invalid network name: name is empty"),
        ({"name": "bridge"}, Forbidden, "operation is not permitted on predefined bridge network"),
        ({"name": "none"}, Forbidden, "operation is not permitted on predefined none network"),
        ({"name": "old"}, Conflict, "network with name old already exists"),
        ({"driver": "nosuch"}, NotFound, 'plugin "nosuch" not found'),
        ({"driver": "host"}, Forbidden, 'only one instance of "host" network is allowed'),
        ({"driver": "overlay"}, Forbidden, "This node is not a swarm manager"),
        ({"driver": "macvlan"}, NotImplementedHere, "network driver macvlan is not implemented"),
        ({"config_only": True}, NotImplementedHere, "configuration-only networks"),
        ({"options": {"com.docker.network.bridge.name": "br-old"}}, Forbidden, "networks have same bridge name"),
        ({"options": {"com.docker.network.bridge.name": "eth0"}}, Forbidden, "an interface named eth0 already exists"),
        ({"options": {"com.docker.network.bridge.name": "a/b"}}, InvalidParameter, "invalid name of a bridge"),
        ({"options": {"com.docker.network.bridge.name": "x" * 16}}, InvalidParameter, "invalid name of a bridge"),
        ({"options": {"com.docker.network.driver.mtu": "many"}}, InvalidParameter, "invalid MTU: many"),
        ({"options": {"com.docker.network.driver.mtu": "9" * 5000}}, InvalidParameter, "invalid MTU: 999"),
        ({"options": {"com.docker.network.bridge.enable_icc": "maybe"}}, InvalidParameter, "enable_icc value"),
        (
            {"options": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}},
            NotImplementedHere,
            "gateway_mode_ipv4",
        ),
        ({"ipam": IpamRequest(driver="dhcp")}, NotImplementedHere, "IPAM driver dhcp"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], kind: type[BennuError], text: str) -> None:
    with pytest.raises(kind) as refused:
        plan(**fields)
    assert type(refused.value) is kind and text in str(refused.value)


def test_overlaps_are_refused_with_the_reason() -> None:
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        plan(IpamConfig(subnet="10.5.7.0/24"))
    with pytest.raises(Forbidden, match=r"subnet 192.0.0.0/16 overlaps with a route of this host to 192.0.2.0/24"):
        plan(IpamConfig(subnet="192.0.0.0/16"))
    with pytest.raises(Forbidden, match="Pool overlaps"):
        plan(IpamConfig(subnet="10.7.0.0/24"), IpamConfig(subnet="10.7.0.0/25"))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (IpamConfig(subnet="10.0.0.0"), "invalid subnet 10.0.0.0: invalid CIDR block notation"),
        (IpamConfig(subnet="10.0.0.1/24"), "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        (IpamConfig(subnet="x/24"), "invalid subnet x/24: invalid CIDR block notation"),
        (IpamConfig(subnet="fd00::/64"), "invalid subnet fd00::/64: IPv6 has not been enabled"),
        (
            IpamConfig(subnet="10.0.0.0/24", ip_range="10.0.0.0/16"),
            "invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24",
        ),
        (
            IpamConfig(subnet="10.0.0.0/24", ip_range="10.1.0.0/25"),
            "invalid ip-range 10.1.0.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range",
        ),
        (IpamConfig(subnet="10.0.0.0/24", gateway="x"), "invalid gateway x: invalid address"),
        (
            IpamConfig(subnet="10.0.0.0/24", gateway="10.0.1.1"),
            "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address",
        ),
        (
            IpamConfig(subnet="10.0.0.0/24", auxiliary_addresses={"r": "10.0.1.1"}),
            "invalid auxiliary address 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address",
        ),
    ],
)
def test_each_problem_of_a_subnet_is_named(config: IpamConfig, problem: str) -> None:
    assert find_ipam_problems(config, enable_ipv6=False) == [problem]
    with pytest.raises(InvalidParameter) as refused:
        plan(config)
    assert str(refused.value) == f"invalid network config:\n{problem}"
