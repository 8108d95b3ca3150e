"""What a client may ask of a new network."""

import ipaddress
from collections.abc import Sequence

import msgspec
import pytest

from bennu.errors import BennuError, Conflict, Forbidden, InvalidParameter, NotFound, NotImplementedHere
from bennu.network.creation import ConfigSource, IpamRequest, NetworkRequest, Surroundings, plan_network
from bennu.network.ipam.planning import IpamConfig, find_ipam_problems
from bennu.network.model import GatewayMode, Ipam, Network

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


def plan(*configs: IpamConfig, present: Sequence[Network] = (), **fields: object) -> Network:
    ipam = IpamRequest(config=list(configs)) if configs else None
    around = Surroundings(
        present=[*PRESENT, *present],
        interfaces=["lo", "eth0"],
        routes=[ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("0.0.0.0/0")],
        needed=[ipaddress.ip_address("192.0.2.1")],
        global_id=b"\1\2\3\4\5",
        default_options={"bridge": {"com.docker.network.driver.mtu": "1300"}},
    )
    request = NetworkRequest(**{"name": "new", "ipam": ipam, **fields})  # type: ignore[arg-type]
    return plan_network(request, around, network_id="c" * 64, created_ns=3)


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
            gateway_is_implied=False,
        )
    ]
    assert (network.bridge, network.mtu, network.internal, network.labels) == ("mine", 1400, True, {"a": "b"})


def test_ipv6_gets_a_subnet_of_its_own_unless_named() -> None:
    assert [pool.subnet for pool in plan(enable_ipv6=True).ipam] == ["172.18.0.0/16", "fd01:203:405::/64"]
    named = plan(IpamConfig(subnet="fd00:7::/64"), enable_ipv6=True)
    assert [(pool.subnet, pool.gateway) for pool in named.ipam] == [
        ("fd00:7::/64", "fd00:7::1"),
        ("172.18.0.0/16", "172.18.0.1"),
    ]


def test_an_implied_gateway_is_the_lowest_free_address_of_the_range_and_is_marked_as_implied() -> None:
    """So dockerd chooses it, and shows it only if it was asked for."""
    ranged = plan(IpamConfig(subnet="10.6.0.0/24", ip_range="10.6.0.128/25")).ipam[0]
    assert (ranged.gateway, ranged.gateway_is_implied) == ("10.6.0.128", True)
    assert plan(IpamConfig(subnet="10.6.0.0/31")).ipam[0].gateway == "10.6.0.0"
    assert plan(IpamConfig(subnet="10.6.0.0/24", auxiliary_addresses={"r": "10.6.0.1"})).ipam[0].gateway == "10.6.0.2"


def test_a_network_may_have_ipv6_alone_and_keeps_what_was_said_of_ipv4_for_show() -> None:
    network = plan(IpamConfig(subnet="10.6.0.0/24"), enable_ipv4=False, enable_ipv6=True)
    assert [pool.subnet for pool in network.ipam] == ["fd01:203:405::/64"]
    assert [pool.subnet for pool in network.unused_ipam] == ["10.6.0.0/24"]
    ignored = plan(IpamConfig(subnet="fd00:7::/64"))
    assert [pool.subnet for pool in ignored.ipam] == ["172.18.0.0/16"]
    assert [pool.subnet for pool in ignored.unused_ipam] == ["fd00:7::/64"]


INTERNAL_OPTIONS = [
    {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"},
    {"com.docker.network.bridge.inhibit_ipv4": "true"},
]


@pytest.mark.parametrize("options", INTERNAL_OPTIONS, ids=["isolated", "inhibit"])
def test_without_a_way_out_no_address_is_kept_for_a_gateway(options: dict[str, str]) -> None:
    network = plan(IpamConfig(subnet="10.6.0.0/31"), internal=True, options=options)
    assert network.ipam[0].gateway == ""
    assert plan(internal=True, options=options).ipam[0].gateway == ""


def test_default_options_hold_unless_the_request_says_otherwise() -> None:
    assert plan().mtu == 1300
    assert plan(options={"com.docker.network.driver.mtu": "1400"}).mtu == 1400
    by_option = plan(options={"com.docker.network.enable_ipv6": "true"})
    assert by_option.enable_ipv6 and "com.docker.network.enable_ipv6" in by_option.options
    overridden = plan(options={"com.docker.network.enable_ipv6": "true"}, enable_ipv6=False)
    assert not overridden.enable_ipv6 and overridden.options == {"com.docker.network.driver.mtu": "1300"}


def test_a_network_takes_all_from_its_configuration_network() -> None:
    config = plan(
        IpamConfig(subnet="10.8.0.0/24", ip_range="10.8.0.64/26"),
        name="cfg",
        config_only=True,
        labels={"a": "b"},
        options={"com.docker.network.driver.mtu": "1400"},
    )
    assert (config.driver, config.bridge, config.ipam[0].gateway) == ("null", "", "")
    network = plan(present=[config], config_from=ConfigSource(network="cfg"), internal=True)
    assert (network.mtu, network.labels, network.internal, network.config_from) == (1400, {"a": "b"}, True, "cfg")
    assert (network.ipam[0].subnet, network.ipam[0].gateway) == ("10.8.0.0/24", "10.8.0.64")
    plan(IpamConfig(subnet="10.8.0.0/24"), present=[config])  # a configuration takes no subnet from anybody


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"name": ""}, InvalidParameter, "invalid name: name is empty"),
        ({"name": "bridge"}, Forbidden, "operation is not permitted on predefined bridge network"),
        ({"name": "none"}, Forbidden, "operation is not permitted on predefined none network"),
        ({"name": "old"}, Conflict, "network with name old already exists"),
        ({"driver": "nosuch"}, NotFound, 'plugin "nosuch" not found'),
        ({"driver": "host"}, Forbidden, 'only one instance of "host" network is allowed'),
        ({"driver": "overlay"}, Forbidden, "This node is not a swarm manager"),
        ({"driver": "macvlan"}, NotImplementedHere, "network driver macvlan is not implemented"),
        ({"scope": "swarm"}, Forbidden, "cannot create a swarm scoped network when swarm is not active"),
        ({"ipam": IpamRequest(driver="dhcp")}, NotFound, 'plugin "dhcp" not found'),
        ({"enable_ipv4": False}, InvalidParameter, "IPv4 or IPv6 must be enabled"),
        ({"config_only": True, "internal": True}, Forbidden, "Network operator fields like"),
        (
            {"config_only": True, "config_from": ConfigSource(network="x")},
            Forbidden,
            "a configuration network cannot depend on another",
        ),
        ({"config_from": ConfigSource(network="x")}, NotFound, 'configuration network "x" does not exist'),
        ({"config_from": ConfigSource(network="old")}, NotFound, 'configuration network "old" does not exist'),
        ({"config_from": ConfigSource(network="x"), "labels": {"a": "b"}}, Forbidden, "user specified configurations"),
        ({"config_from": ConfigSource(network="x"), "options": {"a": "b"}}, Forbidden, "network driver options are"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], kind: type[BennuError], text: str) -> None:
    with pytest.raises(kind) as refused:
        plan(**fields)  # type: ignore[arg-type]
    assert type(refused.value) is kind and text in str(refused.value)


BRIDGE = "com.docker.network.bridge."


@pytest.mark.parametrize(
    ("option", "value", "kind", "text"),
    [
        (BRIDGE + "name", "br-old", Forbidden, "networks have same bridge name"),
        (BRIDGE + "name", "eth0", Forbidden, "an interface named eth0 already exists"),
        (BRIDGE + "name", "a/b", InvalidParameter, "invalid name of a bridge"),
        (BRIDGE + "name", "br*", InvalidParameter, "invalid name of a bridge"),
        (BRIDGE + "name", 'a"b', InvalidParameter, "invalid name of a bridge"),
        (BRIDGE + "name", "x" * 16, InvalidParameter, "invalid name of a bridge"),
        (BRIDGE + "enable_icc", "maybe", InvalidParameter, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        (
            BRIDGE + "inhibit_ipv4",
            "x",
            InvalidParameter,
            "failed to parse com.docker.network.bridge.inhibit_ipv4 value",
        ),
        (BRIDGE + "gateway_mode_ipv4", "", InvalidParameter, "value:  (unknown gateway mode )"),
        (BRIDGE + "gateway_mode_ipv6", "zz", InvalidParameter, "value: zz (unknown gateway mode zz)"),
        (BRIDGE + "gateway_mode_ipv4", "isolated", BennuError, "can only be used for an internal network"),
        (BRIDGE + "host_binding_ipv4", "x", InvalidParameter, "host_binding_ipv4 value: x (nil ip)"),
        (BRIDGE + "trusted_host_interfaces", "eth0:a*", InvalidParameter, "no interface can be called a*"),
        ("com.docker.network.host_ipv4", "x", InvalidParameter, "host_ipv4 value: x (nil ip)"),
        ("com.docker.network.host_ipv4", "::1", InvalidParameter, "not an IPv4 address"),
        ("com.docker.network.driver.mtu", "many", InvalidParameter, 'strconv.Atoi: parsing "many": invalid syntax'),
        ("com.docker.network.driver.mtu", "9" * 5000, InvalidParameter, "invalid syntax"),
        ("com.docker.network.driver.mtu", "-1", InvalidParameter, "invalid MTU number: -1"),
        ("com.docker.network.driver.mtu", "10", InvalidParameter, "not a number from 68 to 65535"),
        ("com.docker.network.enable_ipv6", "x", InvalidParameter, 'driver-opt "com.docker.network.enable_ipv6" is not'),
        ("com.docker.network.enable_ipv4", "false", InvalidParameter, "IPv4 or IPv6 must be enabled"),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: str, value: str, kind: type[BennuError], text: str) -> None:
    with pytest.raises(kind) as refused:
        plan(options={option: value})
    assert type(refused.value) is kind and text in str(refused.value)


def test_subnets_that_are_taken_or_that_the_host_needs_are_refused() -> None:
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        plan(IpamConfig(subnet="10.5.7.0/24"))
    with pytest.raises(Forbidden, match=r"subnet 192.0.0.0/16 covers 192.0.2.1, which this host depends on"):
        plan(IpamConfig(subnet="192.0.0.0/16"))
    with pytest.raises(Forbidden, match="Pool overlaps"):
        plan(IpamConfig(subnet="10.7.0.0/24"), IpamConfig(subnet="10.7.0.0/25"))
    with pytest.raises(Forbidden, match="bridge driver doesn't support multiple subnets"):
        plan(IpamConfig(subnet="10.7.0.0/24"), IpamConfig(subnet="10.8.0.0/24"))


def test_a_subnet_below_a_route_of_the_host_may_be_asked_for() -> None:
    assert plan(IpamConfig(subnet="192.0.2.128/25")).ipam[0].gateway == "192.0.2.129"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (IpamConfig(subnet="10.0.0.0"), "invalid subnet 10.0.0.0: invalid CIDR block notation"),
        (IpamConfig(subnet="10.0.0.1/24"), "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        (IpamConfig(subnet="x/24"), "invalid subnet x/24: invalid CIDR block notation"),
        (IpamConfig(), "invalid subnet : invalid CIDR block notation"),
        (IpamConfig(gateway="10.0.0.1"), "invalid subnet : invalid CIDR block notation"),
        (
            IpamConfig(subnet="127.0.0.0/8"),
            "invalid subnet 127.0.0.0/8: loopback and multicast addresses are of no network",
        ),
        (
            IpamConfig(subnet="10.0.0.0/24", ip_range="fd00::/65"),
            "invalid ip-range fd00::/65: parent subnet is an IPv4 block",
        ),
        (
            IpamConfig(subnet="10.0.0.0/24", gateway="fd00::1"),
            "invalid gateway fd00::1: parent subnet is an IPv4 block",
        ),
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
            "invalid auxiliary address r: parent subnet 10.0.0.0/24 doesn't contain this address",
        ),
    ],
)
def test_each_problem_of_a_subnet_is_named(config: IpamConfig, problem: str) -> None:
    assert find_ipam_problems(config, enable_ipv6=False) == [problem]
    with pytest.raises(InvalidParameter) as refused:
        plan(config)
    assert str(refused.value) == f"invalid network config:\n{problem}"


def test_a_network_of_an_earlier_version_is_read_as_what_it_was() -> None:
    stored = b"""{"id": "x", "name": "old", "created_ns": 1, "bridge": "br-old", "scope": "swarm",
        "ipam": [{"subnet": "10.0.1.0/24", "gateway": "10.0.1.1", "asked": true}]}"""
    network = msgspec.json.decode(stored, type=Network)
    assert (network.enable_ipv4, network.enable_ipv6, network.shown_driver) == (True, False, "overlay")
    assert (network.config_only, network.config_from, network.ipam[0].gateway_is_implied) == (False, "", False)
    assert (network.gateway_mode(4), network.inhibits_ipv4, network.host_ip(4)) == (GatewayMode.NAT, False, "")
