"""Which subnet, which address: the arithmetic."""

import ipaddress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bennu.network.ipam.addresses import (
    AddressPool,
    AddressTaken,
    NoFreeAddress,
    NoFreeSubnet,
    choose_subnet,
    local_ipv6_pool,
    mac_of,
    overlapping,
)


def nets(*texts: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text) for text in texts]


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        pytest.param([], "172.17.0.0/16", id="first"),
        pytest.param(["172.17.0.0/16"], "172.18.0.0/16", id="second"),
        pytest.param(["172.17.200.0/24", "172.18.0.0/15"], "172.20.0.0/16", id="any-overlap-counts"),
        pytest.param(["172.16.0.0/12"], "192.168.0.0/20", id="last-pool"),
        pytest.param(["0.0.0.0/0", "fd00::/8"], "172.17.0.0/16", id="default-route-and-ipv6-do-not-count"),
    ],
)
def test_the_first_pool_that_overlaps_nothing_is_chosen(used: list[str], expected: str) -> None:
    assert str(choose_subnet(nets(*used))) == expected


def test_the_default_pools_are_dockers_thirty_one() -> None:
    used: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    with pytest.raises(NoFreeSubnet, match="all predefined address pools have been fully subnetted"):
        while True:
            used.append(choose_subnet(used))
    assert len(used) == 15 + 16
    assert str(used[14]) == "172.31.0.0/16" and str(used[-1]) == "192.168.240.0/20"


def test_ipv6_subnets_are_unique_local_and_differ() -> None:
    pools = [local_ipv6_pool(b"\1\2\3\4\5")]
    first = choose_subnet([], pools)
    assert str(first) == "fd01:203:405::/64"
    assert str(choose_subnet([first], pools)) == "fd01:203:405:1::/64"


def test_overlap_is_found_across_sizes_and_never_across_families() -> None:
    assert overlapping(ipaddress.ip_network("10.1.0.0/16"), nets("::/0", "10.1.2.0/24")) == nets("10.1.2.0/24")[0]
    assert overlapping(ipaddress.ip_network("10.1.0.0/16"), nets("10.2.0.0/16", "0.0.0.0/0")) is None


def test_the_mac_address_is_dockers() -> None:
    assert mac_of("172.17.0.2") == "02:42:ac:11:00:02"


def test_free_addresses_come_lowest_first_and_pass_over_what_is_reserved() -> None:
    pool = AddressPool.of("10.0.0.0/29", "10.0.0.1", aux=["10.0.0.3"])
    assert [pool.allocate() for _ in range(4)] == ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    with pytest.raises(NoFreeAddress):
        pool.allocate()
    pool.release("10.0.0.5")
    assert pool.allocate() == "10.0.0.5"


def test_a_range_bounds_the_free_addresses_but_not_the_named_ones() -> None:
    pool = AddressPool.of("10.0.0.0/24", "10.0.0.1", ip_range="10.0.0.64/30")
    assert [pool.allocate() for _ in range(4)] == [f"10.0.0.{n}" for n in (64, 65, 66, 67)]
    assert pool.allocate_exactly("10.0.0.200") == "10.0.0.200"


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("10.0.0.1", id="gateway"),
        pytest.param("10.0.0.0", id="network"),
        pytest.param("10.0.0.255", id="broadcast"),
    ],
)
def test_an_address_that_is_set_aside_is_refused(wanted: str) -> None:
    with pytest.raises(AddressTaken):
        AddressPool.of("10.0.0.0/24", "10.0.0.1").allocate_exactly(wanted)


class LeaseBooks(RuleBasedStateMachine):
    """Whatever is allocated, named, given back and adopted, nobody ever shares an address."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = AddressPool.of("10.0.0.0/27", "10.0.0.1")
        self.holders: dict[str, int] = {}

    def hold(self, address: str) -> None:
        assert address not in self.holders
        self.holders[address] = 1

    @rule()
    def allocate(self) -> None:
        try:
            self.hold(self.pool.allocate())
        except NoFreeAddress:
            assert len(self.holders) == 29

    @rule(number=st.integers(0, 31))
    def allocate_exactly(self, number: int) -> None:
        wanted = f"10.0.0.{number}"
        try:
            self.hold(self.pool.allocate_exactly(wanted))
        except AddressTaken:
            assert wanted in self.holders or number in (0, 1, 31)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.holders)))
        del self.holders[address]
        self.pool.release(address)

    @rule()
    def crash(self) -> None:
        """The pool is filled again from what lives."""
        self.pool = AddressPool.of("10.0.0.0/27", "10.0.0.1")
        for address in self.holders:
            self.pool.adopt(address)

    @invariant()
    def never_the_gateway(self) -> None:
        assert "10.0.0.1" not in self.holders


TestLeaseBooks = LeaseBooks.TestCase
TestLeaseBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
