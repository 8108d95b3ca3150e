"""User-defined networks with real packets: names, isolation, connect and disconnect, IPv6, restarts of the daemon."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import dns.rcode
import msgspec
import pytest
from network_helpers import (
    Host,
    ask,
    cid,
    echo_server,
    exchange,
    inside,
    make,
    needs_network,
    on,
    open_host,
    run_quietly,
    start,
    values,
)

from bennu.errors import BennuError, Conflict, Forbidden, InvalidParameter, NotFound
from bennu.network import Network, NetworkRequest, PortRequest, Sandbox
from bennu.network.creation import IpamConfig
from bennu.network.namespaces import netns

BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
pytestmark = needs_network


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as opened:
        yield opened


async def test_two_networks_do_not_reach_each_other_not_even_by_name(host: Host) -> None:
    await make(host, "net1")
    await make(host, "net2")
    a = await start(host, "a", on("net1", "a"))
    b = await start(host, "b", on("net2", "b"))
    c = await start(host, "c", on("bridge", "c"))
    with echo_server(b.netns, "0.0.0.0", 7):
        for asker in (a, c):
            with pytest.raises(OSError):
                exchange(asker.netns, b.endpoints[0].ip_address, 7)
        assert exchange("", b.endpoints[0].ip_address, 7), "the host reaches it"
    assert (await ask(a, "b")).rcode() == dns.rcode.NXDOMAIN


async def test_an_internal_network_has_no_way_out(host: Host) -> None:
    await make(host, "inner", internal=True)
    a = await start(host, "a", on("inner", "a"), ports=(PortRequest(container_port=7),))
    b = await start(host, "b", on("inner", "b"))
    assert a.endpoints[0].gateway == "" and a.ports == []
    with echo_server(a.netns, "0.0.0.0", 7):
        assert exchange(b.netns, a.endpoints[0].ip_address, 7)
    with host.neighbour() as neighbour, echo_server(neighbour, "0.0.0.0", 7), pytest.raises(OSError):
        exchange(a.netns, host.neighbour_address, 7)
    assert (await ask(a, "www.example.test")).rcode() == dns.rcode.SERVFAIL


@pytest.fixture(params=["1", "0"], ids=["rules-see-bridged", "rules-do-not"])
def bridge_filter(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether the rules are asked about what a bridge passes from port to port."""
    if not BRIDGE_FILTER.exists():
        if request.param == "1":
            pytest.skip("this kernel has no br_netfilter")
        yield
        return
    before = BRIDGE_FILTER.read_text()
    BRIDGE_FILTER.write_text(request.param)
    yield
    BRIDGE_FILTER.write_text(before)


@pytest.mark.usefixtures("bridge_filter")
async def test_without_icc_containers_meet_only_by_published_ports(host: Host) -> None:
    await make(host, "quiet", options={"com.docker.network.bridge.enable_icc": "false"})
    port = host.free_port()
    request = PortRequest(container_port=7, host_port_first=port, host_port_last=port)
    a = await start(host, "a", on("quiet", "a"), ports=(request,))
    b = await start(host, "b", on("quiet", "b"))
    with echo_server(a.netns, "0.0.0.0", 7):
        with pytest.raises(OSError):
            exchange(b.netns, a.endpoints[0].ip_address, 7)
        assert exchange(b.netns, host.own_address(), port)


async def test_options_name_the_bridge_and_its_mtu(host: Host) -> None:
    options = {"com.docker.network.bridge.name": "bntest7", "com.docker.network.driver.mtu": "1400"}
    await make(host, "named", options=options)
    a = await start(host, "a", on("named", "a"))
    shown = inside(
        a.netns, lambda: subprocess.run(["ip", "link", "show", "eth0"], capture_output=True, text=True).stdout
    )
    assert "mtu 1400" in shown
    assert Path("/sys/class/net/bntest7/mtu").read_text().strip() == "1400"


async def test_connect_and_disconnect_while_running(host: Host) -> None:
    await make(host, "net1")
    await make(host, "net2")
    a = await start(host, "a", on("net1", "a"))
    b = await start(host, "b", on("net2", "b"))
    endpoint = await host.networks.connect_sandbox(cid("a"), on("net2", "a", aliases=["front"]))
    assert endpoint.interface == "eth1"
    assert host.networks.sandbox(cid("a")) is a and len(a.endpoints) == 2
    with echo_server(b.netns, "0.0.0.0", 7):
        assert exchange(a.netns, b.endpoints[0].ip_address, 7).endswith(endpoint.ip_address)
        assert values(await ask(b, "front")) == {endpoint.ip_address}
        assert values(await ask(a, "b")) == {b.endpoints[0].ip_address}
        await host.networks.disconnect_sandbox(cid("a"), "net2")
        with pytest.raises(OSError):
            exchange(a.netns, b.endpoints[0].ip_address, 7)
    assert (await ask(b, "front")).rcode() == dns.rcode.NXDOMAIN
    with pytest.raises(BennuError, match="is not connected to network net2"):
        await host.networks.disconnect_sandbox(cid("a"), "net2")


async def test_the_way_out_follows_the_networks(host: Host) -> None:
    """The first by name, unless a priority says otherwise; published ports go with it."""
    await make(host, "m")
    await make(host, "b")
    await make(host, "z")
    port = host.free_port()
    request = PortRequest(container_port=7, host_port_first=port, host_port_last=port)
    a = await start(host, "a", on("m", "a"), ports=(request,))

    def way_out() -> str:
        show = ["ip", "route", "show", "default"]
        return inside(a.netns, lambda: subprocess.run(show, capture_output=True, text=True).stdout)

    gateway = {name: host.networks.find(name).ipam[0].gateway for name in "mbz"}
    with echo_server(a.netns, "0.0.0.0", 7):
        assert f"via {gateway['m']} " in way_out()
        await host.networks.connect_sandbox(cid("a"), on("b", "a"))
        assert f"via {gateway['b']} " in way_out() and exchange("", "127.0.0.1", port)
        await host.networks.connect_sandbox(cid("a"), on("z", "a", gw_priority=5))
        assert f"via {gateway['z']} " in way_out() and exchange("", "127.0.0.1", port)
        await host.networks.disconnect_sandbox(cid("a"), "z")
        assert f"via {gateway['b']} " in way_out() and exchange("", "127.0.0.1", port)
        await host.networks.disconnect_sandbox(cid("a"), "b")
        assert f"via {gateway['m']} " in way_out() and exchange("", host.own_address(), port)
        await host.networks.disconnect_sandbox(cid("a"), "m")
        assert way_out() == "" and a.ports == []
        with pytest.raises(OSError):
            exchange("", "127.0.0.1", port)
        await host.networks.connect_sandbox(cid("a"), on("m", "a"))
        assert exchange("", "127.0.0.1", port), "published again"


async def test_each_family_has_its_own_way_out(host: Host) -> None:
    """A network without IPv6 that comes first by name takes the IPv4 route alone; ports lead in by both families."""
    await make(host, "a-four")
    await make(host, "b-six", enable_ipv6=True)
    await make(host, "c-six", enable_ipv6=True)
    port = host.free_port()
    request = PortRequest(container_port=7, host_port_first=port, host_port_last=port)
    web = await start(host, "web", on("a-four", "web"), on("c-six", "web"), ports=(request,))

    def gateways() -> list[str]:
        show = [["ip", family, "route", "show", "default"] for family in ("-4", "-6")]
        return inside(web.netns, lambda: [subprocess.run(s, capture_output=True, text=True).stdout for s in show])

    def expect(four: str, six: str) -> None:
        ipv4, ipv6 = gateways()
        assert f"via {host.networks.find(four).ipam[0].gateway} " in ipv4
        assert f"via {host.networks.find(six).ipam[1].gateway} " in ipv6 and ipv6.count("via") == 1

    expect("a-four", "c-six")
    with echo_server(web.netns, "0.0.0.0", 7):
        assert exchange("", "127.0.0.1", port).startswith(web.endpoints[0].ip_address)
    with echo_server(web.netns, "::", 7):
        assert exchange("", web.endpoints[1].ipv6_gateway, port).startswith(web.endpoints[1].ipv6_address)
    await host.networks.connect_sandbox(cid("web"), on("b-six", "web"))
    expect("a-four", "b-six")
    await host.networks.disconnect_sandbox(cid("web"), "b-six")
    expect("a-four", "c-six")
    await host.networks.disconnect_sandbox(cid("web"), "a-four")
    expect("c-six", "c-six")


async def test_a_start_on_several_networks(host: Host) -> None:
    await make(host, "net1")
    await make(host, "net2")
    a = await start(host, "a", on("net2", "a"), on("net1", "a"), on("bridge", "a"))
    assert [(e.network_name, e.interface) for e in a.endpoints] == [
        ("net2", "eth0"),
        ("net1", "eth1"),
        ("bridge", "eth2"),
    ]
    assert a.gateway_endpoint().network_name == "bridge"
    peers = [await start(host, f"p{n}", on(n, f"p{n}")) for n in ("net1", "net2", "bridge")]
    for peer in peers:
        with echo_server(peer.netns, "0.0.0.0", 7):
            assert exchange(a.netns, peer.endpoints[0].ip_address, 7)


async def test_a_container_may_name_its_address(host: Host) -> None:
    await make(host, "fixed", IpamConfig(subnet="10.213.7.0/24", gateway="10.213.7.254", ip_range="10.213.7.64/26"))
    a = await start(host, "a", on("fixed", "a", ipv4_address="10.213.7.9"))
    assert a.endpoints[0].ip_address == "10.213.7.9" and a.endpoints[0].gateway == "10.213.7.254"
    b = await start(host, "b", on("fixed", "b"))
    assert b.endpoints[0].ip_address == "10.213.7.64"
    for wanted, kind, text in (
        ("10.213.7.9", Forbidden, "Address already in use"),
        ("10.213.7.254", Forbidden, "Address already in use"),
        ("10.9.9.9", InvalidParameter, "no configured subnet or ip-range contain the IP address 10.9.9.9"),
        ("bogus", InvalidParameter, "invalid IPv4 address: bogus"),
        ("0.0.0.0", InvalidParameter, "invalid IPv4 address: 0.0.0.0"),
        ("fd00::1", InvalidParameter, "invalid IPv4 address: fd00::1"),
    ):
        with pytest.raises(kind, match=text):
            await start(host, "c", on("fixed", "c", ipv4_address=wanted))
    await make(host, "free")
    with pytest.raises(InvalidParameter, match="only when connecting to networks with user configured subnets"):
        await start(host, "c", on("free", "c", ipv4_address="172.18.0.9"))
    with pytest.raises(InvalidParameter, match="user specified IP address is supported on user defined networks only"):
        await start(host, "c", on("bridge", "c", ipv4_address="172.17.0.9"))


async def test_a_full_network_says_so(host: Host) -> None:
    await make(host, "tiny", IpamConfig(subnet="10.213.8.0/30"))
    await start(host, "a", on("tiny", "a"))
    with pytest.raises(BennuError, match="no available IPv4 addresses on this network's address pools: tiny"):
        await start(host, "b", on("tiny", "b"))


async def test_ipv6_between_containers_and_published(host: Host) -> None:
    await make(host, "six", IpamConfig(subnet="fd00:bee::/64"), enable_ipv6=True)
    port = host.free_port()
    request = PortRequest(container_port=7, host_port_first=port, host_port_last=port)
    a = await start(host, "a", on("six", "a"), ports=(request,))
    b = await start(host, "b", on("six", "b", ipv6_address="fd00:bee::77"))
    six = a.endpoints[0].ipv6_address
    assert b.endpoints[0].ipv6_address == "fd00:bee::77"
    assert values(await ask(b, "a", "AAAA")) == {six}
    with echo_server(a.netns, "::", 7):
        assert exchange(b.netns, six, 7) == f"{six} heard fd00:bee::77"
        assert exchange("", a.endpoints[0].ipv6_gateway, port).startswith(six)
        assert (await asyncio.to_thread(exchange, "", "::1", port)).startswith(six), "from localhost"
        assert exchange("", host.own_address(6), port).startswith(six), "from the host's own address"
        assert exchange(b.netns, a.endpoints[0].ipv6_gateway, port).startswith(six), "from a neighbour"
        assert exchange(a.netns, a.endpoints[0].ipv6_gateway, port).startswith(six), "from itself"


async def test_unwanted_networks_are_refused_in_clear_words(host: Host) -> None:
    await make(host, "net1", IpamConfig(subnet="10.213.9.0/24"))
    own = host.own_address().rpartition(".")[0]
    for request, kind, text in (
        (NetworkRequest(name="net1"), Conflict, "network with name net1 already exists"),
        (NetworkRequest(name="bridge"), Forbidden, "operation is not permitted on predefined bridge network"),
        (NetworkRequest(name="x", driver="nosuch"), NotFound, 'plugin "nosuch" not found'),
        (NetworkRequest(name="x", options={"com.docker.network.bridge.name": "lo"}), Forbidden, "already exists on"),
    ):
        with pytest.raises(kind, match=text):
            await host.networks.create(request)
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        await make(host, "x", IpamConfig(subnet="10.213.9.128/25"))
    with pytest.raises(Forbidden, match=f"subnet {own}.0/24 covers {own}.1, which this host depends on"):
        await make(host, "x", IpamConfig(subnet=f"{own}.0/24"))


async def test_a_network_in_use_stays(host: Host) -> None:
    await make(host, "net1")
    await start(host, "web", on("net1", "web"))
    words = f'error while removing network: network net1 has active endpoints \\(name:"web" id:"{cid("web")[:12]}"\\)'
    with pytest.raises(Forbidden, match=words):
        await host.networks.remove("net1")
    await host.networks.close_sandbox(cid("web"))
    removed = await host.networks.remove("net1")
    with pytest.raises(NotFound, match="network net1 not found"):
        host.networks.find("net1")
    assert not Path("/sys/class/net", removed.bridge).exists()
    with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
        await host.networks.remove("bridge")


async def test_nobody_is_put_on_a_network_that_goes(host: Host) -> None:
    """A start and a removal at the same time: one of them is refused, whoever is first."""

    async def later(delay_ms: int, work: Coroutine[Any, Any, Any]) -> Any:
        await asyncio.sleep(max(0, delay_ms) / 1000)
        return await work

    for lead_ms in range(-16, 17, 2):  # by how much the start is earlier
        await make(host, "brief")
        started, removed = await asyncio.gather(
            later(-lead_ms, start(host, "a", on("brief", "a"))),
            later(lead_ms, host.networks.remove("brief")),
            return_exceptions=True,
        )
        if isinstance(removed, Network):
            assert isinstance(started, BennuError), "it runs on a network that is gone"
        else:
            assert isinstance(removed, Forbidden) and isinstance(started, Sandbox), (started, removed)
            await host.networks.close_sandbox(cid("a"))
            await host.networks.remove("brief")


async def test_prune_removes_what_nobody_is_on(host: Host) -> None:
    for name in ("used", "idle", "kept"):
        await make(host, name)
    await start(host, "web", on("used", "web"))
    assert await host.networks.prune(lambda network: network.name != "kept") == ["idle"]
    assert {network.name for network in host.networks.all()} == {"bridge", "host", "none", "used", "kept"}


async def test_a_reopened_daemon_serves_names_on_the_same_networks(host: Host) -> None:
    network = await make(host, "net1")
    web = await start(host, "web", on("net1", "web", aliases=["www"]))
    other = await start(host, "other", on("net1", "other"))
    await host.networks.close(remove=False)
    await host.reopen({cid("web"): web, cid("other"): other})
    assert host.networks.find("net1") == network
    assert values(await ask(other, "www")) == {web.endpoints[0].ip_address}
    third = await start(host, "third", on("net1", "third"))
    assert third.endpoints[0].ip_address not in {web.endpoints[0].ip_address, other.endpoints[0].ip_address}


async def test_names_are_served_in_a_namespace_that_had_to_be_made_anew(host: Host) -> None:
    await make(host, "net1")
    web = await start(host, "web", on("net1", "web"))
    await host.networks.close(remove=False)
    netns.unpin(Path(web.netns))
    await host.reopen({cid("web"): web})
    assert values(await ask(web, "web")) == {web.endpoints[0].ip_address}


async def test_names_are_served_where_a_daemon_died_before_it_could_note_that_it_does(host: Host) -> None:
    """The rules in the namespace lead to a port that is on no record."""
    await make(host, "net1")
    web = await start(host, "web", on("bridge", "web"))
    on_record = msgspec.convert(msgspec.to_builtins(web), Sandbox)
    await host.networks.connect_sandbox(cid("web"), on("net1", "web"))
    await host.networks.close(remove=False)
    await host.reopen({cid("web"): on_record})
    await host.networks.connect_sandbox(cid("web"), on("net1", "web"))
    assert values(await ask(on_record, "web")) == {on_record.endpoints[1].ip_address}


async def test_a_removed_bridge_comes_back_with_its_containers(host: Host) -> None:
    network = await make(host, "net1")
    web = await start(host, "web", on("net1", "web"))
    run_quietly("ip", "link", "del", network.bridge)
    async with asyncio.timeout(5):
        with echo_server(web.netns, "0.0.0.0", 7):
            while True:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(exchange, "", web.endpoints[0].ip_address, 7)
                    break
                await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_two_hundred_containers_on_one_network(host: Host) -> None:
    await make(host, "crowd")
    opened = await asyncio.gather(*(start(host, f"c{n:03}", on("crowd", f"c{n:03}")) for n in range(200)))
    assert len({sandbox.endpoints[0].ip_address for sandbox in opened}) == 200
    for number in (0, 57, 199):
        assert values(await ask(opened[100], f"c{number:03}")) == {opened[number].endpoints[0].ip_address}
    with echo_server(opened[199].netns, "0.0.0.0", 7):
        assert exchange(opened[0].netns, opened[199].endpoints[0].ip_address, 7)
