"""The subnet of the default bridge, by flags and by the addresses that the bridge has already: dockerd's rules."""

import pytest

from bennu.errors import InvalidParameter
from bennu.network.ipam.default_subnet import plan_default_subnet
from bennu.network.ipam.planning import IpamConfig
from bennu.network.model import FamilyFlags

KERNELS = "fe80::42:acff:fe11:1/64"  # the address that the kernel gives each bridge with IPv6
FOUR, SIX = "192.168.176", "fdd1:8161:2d2c"
OURS = {
    "no config": ([], {}, {}, ("", "", ""), ("", "", "")),
    "fixed-cidr only": (
        [],
        {"fixed_cidr": f"{FOUR}.0/24"},
        {"fixed_cidr": f"{SIX}::/64"},
        (f"{FOUR}.0/24", f"{FOUR}.0/24", ""),
        (f"{SIX}::/64", f"{SIX}::/64", ""),
    ),
    "bip only": (
        [],
        {"bip": f"{FOUR}.88/24"},
        {"bip": f"{SIX}::8888/64"},
        (f"{FOUR}.0/24", "", f"{FOUR}.88"),
        (f"{SIX}::/64", "", f"{SIX}::8888"),
    ),
    "existing addresses only": (
        [f"{FOUR}.88/24", f"{SIX}::8888/64"],
        {},
        {},
        (f"{FOUR}.0/24", "", f"{FOUR}.88"),
        (f"{SIX}::/64", "", f"{SIX}::8888"),
    ),
    "fixed-cidr within the old subnet": (
        [f"{FOUR}.88/20", f"{SIX}::8888/56"],
        {"fixed_cidr": f"{FOUR}.0/24"},
        {"fixed_cidr": f"{SIX}::/64"},
        (f"{FOUR}.0/20", f"{FOUR}.0/24", f"{FOUR}.88"),
        (f"{SIX}::/56", f"{SIX}::/64", f"{SIX}::8888"),
    ),
    "link-local fixed-cidr-v6": (
        [],
        {"fixed_cidr": f"{FOUR}.0/24"},
        {"fixed_cidr": "fe80::/64"},
        (f"{FOUR}.0/24", f"{FOUR}.0/24", ""),
        ("fe80::/64", "fe80::/64", KERNELS.partition("/")[0]),
    ),
    "uncommon link-local fixed-cidr-v6": (
        [f"{FOUR}.88/20", "fe80:1234::88/56"],
        {"fixed_cidr": f"{FOUR}.0/24"},
        {"fixed_cidr": "fe80:1234::/64"},
        (f"{FOUR}.0/20", f"{FOUR}.0/24", f"{FOUR}.88"),
        ("fe80:1234::/56", "fe80:1234::/64", "fe80:1234::88"),
    ),
    "fixed-cidr within the old subnet and a new bip": (
        [f"{FOUR}.88/20", f"{SIX}::/56"],
        {"fixed_cidr": f"{FOUR}.0/24", "bip": f"{FOUR}.99/24"},
        {"fixed_cidr": f"{SIX}::/64", "bip": f"{SIX}::9999/64"},
        (f"{FOUR}.0/24", f"{FOUR}.0/24", f"{FOUR}.99"),
        (f"{SIX}::/64", f"{SIX}::/64", f"{SIX}::9999"),
    ),
    "old subnet within fixed-cidr": (
        [f"{FOUR}.88/24", f"{SIX}::8888/64"],
        {"fixed_cidr": f"{FOUR}.0/20"},
        {"fixed_cidr": f"{SIX}::/56"},
        (f"{FOUR}.0/20", f"{FOUR}.0/20", f"{FOUR}.88"),
        (f"{SIX}::/56", f"{SIX}::/56", f"{SIX}::8888"),
    ),
    "old subnet outside fixed-cidr": (
        [f"{FOUR}.88/24", f"{SIX}::8888/64"],
        {"fixed_cidr": "192.168.177.0/24"},
        {"fixed_cidr": f"{SIX}:1::/64"},
        ("192.168.177.0/24", "192.168.177.0/24", ""),
        (f"{SIX}:1::/64", f"{SIX}:1::/64", ""),
    ),
    "old subnet outside fixed-cidr and a bip": (
        [f"{FOUR}.88/24", f"{SIX}::8888/64"],
        {"fixed_cidr": "192.168.177.0/24", "bip": "192.168.177.99/24"},
        {"fixed_cidr": f"{SIX}:1::/64", "bip": f"{SIX}:1::9999/64"},
        ("192.168.177.0/24", "192.168.177.0/24", "192.168.177.99"),
        (f"{SIX}:1::/64", f"{SIX}:1::/64", f"{SIX}:1::9999"),
    ),
}
THREE = [
    *("192.168.160.88/20", f"{FOUR}.88/20", "192.168.192.88/20"),
    *(f"{SIX}::8888/60", f"{SIX}:10::8888/60", f"{SIX}:20::8888/60"),
]
THEIRS = {
    "bridge only": (
        [f"{FOUR}.88/20", f"{SIX}::8888/64"],
        {},
        {},
        (f"{FOUR}.0/20", "", f"{FOUR}.88"),
        (f"{SIX}::/64", "", f"{SIX}::8888"),
    ),
    "fixed-cidr only": OURS["fixed-cidr only"],
    "an address within fixed-cidr": (
        THREE,
        {"fixed_cidr": f"{FOUR}.0/24"},
        {"fixed_cidr": f"{SIX}:10::/64"},
        (f"{FOUR}.0/20", f"{FOUR}.0/24", f"{FOUR}.88"),
        (f"{SIX}:10::/60", f"{SIX}:10::/64", f"{SIX}:10::8888"),
    ),
    "a subnet around fixed-cidr": (
        THREE,
        {"fixed_cidr": "192.168.177.0/24"},
        {"fixed_cidr": f"{SIX}:11::8888/64"},
        (f"{FOUR}.0/20", "192.168.177.0/24", f"{FOUR}.88"),
        (f"{SIX}:10::/60", f"{SIX}:11::/64", f"{SIX}:10::8888"),
    ),
    "link-local fixed-cidr-v6": (
        [f"{FOUR}.88/20"],
        {"fixed_cidr": f"{FOUR}.0/24"},
        {"fixed_cidr": "fe80::/64"},
        (f"{FOUR}.0/20", f"{FOUR}.0/24", f"{FOUR}.88"),
        ("fe80::/64", "fe80::/64", KERNELS.partition("/")[0]),
    ),
    "uncommon link-local fixed-cidr-v6": OURS["uncommon link-local fixed-cidr-v6"],
}
Parts = tuple[str, str, str]


def shown(config: IpamConfig) -> Parts:
    return config.subnet, config.ip_range, config.gateway


@pytest.mark.parametrize(
    ("is_foreign", "case"),
    [
        *(pytest.param(False, case, id=f"ours: {name}") for name, case in OURS.items()),
        *(pytest.param(True, case, id=f"theirs: {name}") for name, case in THEIRS.items()),
    ],
)
def test_the_default_subnet_is_dockerds(
    is_foreign: bool, case: tuple[list[str], dict[str, str], dict[str, str], Parts, Parts]
) -> None:
    addresses, four, six, expected_four, expected_six = case
    for version, flags, expected in ((4, four, expected_four), (6, six, expected_six)):
        found = plan_default_subnet(FamilyFlags(version, **flags), [KERNELS, *addresses], is_foreign=is_foreign)
        assert (shown(found.config), found.warning) == (expected, "")


@pytest.mark.parametrize(
    ("address", "fixed_cidr", "subnet"),
    [
        (f"{FOUR}.88/24", f"{FOUR}.0/20", f"{FOUR}.0/24"),
        ("192.168.160.88/20", f"{FOUR}.0/24", "192.168.160.0/20"),
        ("192.168.177.1/24", f"{FOUR}.0/20", "192.168.177.0/24"),
    ],
    ids=["bigger", "outside", "around"],
)
def test_a_fixed_cidr_that_does_not_fit_an_administrators_bridge_is_passed_over_with_a_warning(
    address: str, fixed_cidr: str, subnet: str
) -> None:
    found = plan_default_subnet(FamilyFlags(4, fixed_cidr=fixed_cidr), [address], is_foreign=True)
    assert shown(found.config) == (subnet, "", address.partition("/")[0])
    assert fixed_cidr in found.warning


@pytest.mark.parametrize(
    ("address", "fixed_cidr"),
    [
        (f"{SIX}::8888/64", f"{SIX}::/60"),
        (f"{SIX}::8888/60", f"{SIX}:10::/64"),
        (f"{SIX}:10::1/64", f"{SIX}:10::/60"),
    ],
    ids=["bigger", "outside", "around"],
)
def test_a_fixed_cidr_v6_that_does_not_fit_an_administrators_bridge_is_refused(address: str, fixed_cidr: str) -> None:
    with pytest.raises(InvalidParameter, match="is outside of every subnet"):
        plan_default_subnet(FamilyFlags(6, fixed_cidr=fixed_cidr), [address], is_foreign=True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (FamilyFlags(4, bip="10.0.0.1"), "parse --bip failed: invalid CIDR address: 10.0.0.1"),
        (FamilyFlags(6, bip="10.0.0.1/24"), "parse --bip6 failed: invalid CIDR address: 10.0.0.1/24"),
        (FamilyFlags(4, fixed_cidr="x"), "parse --fixed-cidr failed: invalid CIDR address: x"),
        (FamilyFlags(6, fixed_cidr="10.0.0.0/24"), "parse --fixed-cidr-v6 failed: invalid CIDR address: 10.0.0.0/24"),
    ],
)
def test_what_cannot_be_read_names_the_flag(flags: FamilyFlags, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        plan_default_subnet(flags, [], is_foreign=False)


def test_a_default_gateway_is_kept_from_containers_under_dockers_name() -> None:
    found = plan_default_subnet(FamilyFlags(4, bip="10.0.0.1/24", default_gateway="10.0.0.254"), [], is_foreign=False)
    assert found.config.auxiliary_addresses == {"DefaultGatewayIPv4": "10.0.0.254"}
