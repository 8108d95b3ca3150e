"""Virtual addresses of services: allocated once, kept, found again by the next daemon. No rules are written here."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bennu.errors import Unavailable
from bennu.network.frontends import Frontend, ServiceBackend
from bennu.network.ipam.addresses import NoFreeAddress
from bennu.network.ipam.catalogue import Catalogue
from bennu.network.lb.balancer import PREFIX, Balancer
from bennu.network.model import EndpointRequest, Ipam, Network
from bennu.network.nat.nft import Firewall
from bennu.network.nat.port_allocator import PortAllocator
from bennu.network.nat.rules import Ruleset
from bennu.network.socket_lb.socket_lb_bpf import BpfSocketLb
from bennu.store import Store, Transaction, open_sqlite


def network(name: str, subnet: str, gateway: str) -> Network:
    ipam = [Ipam(subnet=subnet, gateway=gateway)]
    return Network(id=name * 25, name=name, created_ns=1, bridge=f"br-{name}", scope="swarm", ipam=ipam)


A, B = network("a", "10.0.1.0/29", "10.0.1.1"), network("b", "10.0.2.0/24", "10.0.2.1")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite(tmp_path / "db") as opened:
        yield opened


async def open_balancer(store: Store) -> tuple[Balancer, Catalogue]:
    """As a daemon does that starts."""
    catalogue = Catalogue(store)
    await catalogue.load()
    for one in (A, B):
        if catalogue.get(one.id) is None:
            await catalogue.add(one)
    frontends: dict[str, Frontend] = {}
    firewall = Firewall("none", BpfSocketLb("none", Path()), Ruleset, frontends)
    balancer = Balancer(store, catalogue, firewall, PortAllocator(ipv6=False), frontends)
    await balancer.load()
    return balancer, catalogue


async def test_addresses_are_kept_and_no_two_services_or_containers_have_one(store: Store) -> None:
    balancer, catalogue = await open_balancer(store)
    first = await balancer.reserve("s", [A.id, B.id])
    assert first == {A.id: "10.0.1.2", B.id: "10.0.2.2"}
    assert await balancer.reserve("s", [B.id, A.id]) == first
    assert await balancer.reserve("t", [A.id]) == {A.id: "10.0.1.3"}
    allocated = catalogue.allocate(A, EndpointRequest(network="a"))
    assert allocated[4][1] == "10.0.1.4"


async def test_the_next_daemon_lends_no_address_that_a_service_has(store: Store) -> None:
    balancer, _ = await open_balancer(store)
    await balancer.reserve("s", [A.id])
    after, catalogue = await open_balancer(store)
    assert after.get("s").vip_on(A.id) == "10.0.1.2"
    assert catalogue.allocate(A, EndpointRequest(network="a"))[4][1] == "10.0.1.3"
    assert await after.reserve("s", [A.id]) == {A.id: "10.0.1.2"}


async def test_what_an_earlier_daemon_has_on_disk_is_read_and_written_under_the_names_it_had(store: Store) -> None:
    balancer, _ = await open_balancer(store)
    await balancer.reserve("s", [A.id])
    (found,) = await store.read_prefix(PREFIX)
    assert msgspec.json.decode(found.value)["places"] == [
        {"network_id": A.id, "bridge": A.bridge, "vip": "10.0.1.2", "names": []}
    ]


async def test_on_a_network_whose_subnet_had_to_move_a_service_gets_another_address(store: Store) -> None:
    balancer, catalogue = await open_balancer(store)
    await balancer.reserve("s", [B.id])
    await catalogue.add(network("b", "10.0.3.0/24", "10.0.3.1"))
    after, _ = await open_balancer(store)
    assert after.get("s").addresses == ()
    assert await after.reserve("s", [B.id]) == {B.id: "10.0.3.2"}


async def test_of_addresses_that_cannot_all_be_had_none_is_lent(store: Store) -> None:
    balancer, _ = await open_balancer(store)
    for number in range(5):
        await balancer.reserve(f"s{number}", [A.id])
    with pytest.raises(NoFreeAddress, match="no available IPv4 addresses"):
        await balancer.reserve("t", [B.id, A.id])
    assert balancer.get("t").addresses == ()
    assert await balancer.reserve("u", [B.id]) == {B.id: "10.0.2.2"}


async def test_what_cannot_be_written_is_not_given(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    balancer, _ = await open_balancer(store)

    async def refuse(transaction: Transaction) -> int:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(store, "commit", refuse)
    with pytest.raises(Unavailable):
        await balancer.reserve("s", [A.id])
    assert balancer.get("s").vip_on(A.id) == ""
    monkeypatch.undo()
    assert await balancer.reserve("t", [A.id]) != {A.id: "10.0.1.2"}, "until the kernel is told it stays allocated"


async def test_a_task_belongs_to_the_service_it_serves_until_it_leaves(store: Store) -> None:
    balancer, _ = await open_balancer(store)
    task = ServiceBackend(owner="t1", ip="10.0.1.5")
    assert balancer.put(Frontend(service_id="s", backends=(task,)))
    assert balancer.service_of("t1") == "s"
    assert not balancer.put(Frontend(service_id="s", backends=(task,))), "nothing new"
    assert balancer.put(replace(balancer.get("s"), backends=()))
    assert balancer.service_of("t1") == ""
    assert balancer.drop("s")
    assert not balancer.drop("s")
