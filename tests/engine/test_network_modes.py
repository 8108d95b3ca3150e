"""Networks of other kinds than the usual one: how they are reached and left, with real packets."""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from network_helpers import (
    Host,
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
)

from bennu.errors import Forbidden, InvalidParameter
from bennu.network import EndpointRequest, PortRequest, Sandbox
from bennu.network.creation import ConfigSource
from bennu.network.ipam.planning import IpamConfig

pytestmark = needs_network
MODE = "com.docker.network.bridge.gateway_mode_ipv"
OPEN, SHUT = 7, 8  # ports that each container serves; the first one is published
OUT = {"left6": "fd00:77::2", "host6": "fd00:77::1"}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as opened:
        yield opened


def modes(mode: str) -> dict[str, str]:
    return {MODE + version: mode for version in "46"}


@contextlib.contextmanager
def serving(*sandboxes: Sandbox) -> Iterator[None]:
    with contextlib.ExitStack() as servers:
        for sandbox in sandboxes:
            found = [one.address_of(version) for one in sandbox.endpoints for version in (4, 6)]
            for address in filter(None, found):
                for port in (OPEN, SHUT):
                    servers.enter_context(echo_server(sandbox.netns, address, port))
        yield


@contextlib.contextmanager
def far_host(host: Host) -> Iterator[str]:
    """Another machine, with a route of either family to all of our containers."""
    with host.neighbour() as path:
        wire = subprocess.run(["ip", "-br", "addr", "show", "to", f"{host.neighbour_gateway}/32"], capture_output=True)
        name = wire.stdout.decode().partition("@")[0]
        run_quietly("ip", "addr", "add", f"{OUT['host6']}/64", "dev", name, "nodad")
        for words in (
            f"addr add {OUT['left6']}/64 dev wire nodad",
            f"-6 route add default via {OUT['host6']}",
        ):
            inside(path, lambda words=words: run_quietly("ip", *words.split()))  # type: ignore[misc]
        yield path


async def who_reaches(attempts: dict[str, tuple[str, str, int]]) -> set[str]:
    """The names of the attempts (from, address, port) that were answered; all are made at once."""

    def reaches(path: str, address: str, port: int) -> bool:
        try:
            return bool(exchange(path, address, port))
        except OSError:
            return False

    found = await asyncio.gather(*(asyncio.to_thread(reaches, *attempt) for attempt in attempts.values()))
    return {name for name, was_answered in zip(attempts, found, strict=True) if was_answered}


def to_each(start_names: dict[str, str], targets: dict[str, Sandbox]) -> dict[str, tuple[str, str, int]]:
    return {
        f"{source} → {target} {port} by IPv{version}": (path, sandbox.endpoints[0].address_of(version), port)
        for source, path in start_names.items()
        for target, sandbox in targets.items()
        if source != target
        for port in (OPEN, SHUT)
        for version in (4, 6)
    }


def both(*attempts: str) -> set[str]:
    return {f"{attempt} by IPv{version}" for attempt in attempts for version in (4, 6)}


async def test_each_gateway_mode_is_reached_by_whom_it_says(host: Host) -> None:
    """Not translated addresses are open to everybody where a port is published; unprotected ones to other hosts."""
    sandboxes = {}
    for mode in ("nat", "routed", "nat-unprotected"):
        await make(host, mode, enable_ipv6=True, options=modes(mode))
        sandboxes[mode] = await start(host, mode, on(mode, mode), ports=(PortRequest(container_port=OPEN),))
    with far_host(host) as far, serving(*sandboxes.values()):
        sources = {"far": far, "nat": sandboxes["nat"].netns, "routed": sandboxes["routed"].netns}
        answered = await who_reaches(to_each(sources, sandboxes))
    assert answered == both(
        f"far → routed {OPEN}",
        f"nat → routed {OPEN}",
        f"far → nat-unprotected {OPEN}",
        f"far → nat-unprotected {SHUT}",
    )


async def test_a_routed_family_publishes_no_port_of_the_host_and_keeps_the_containers_address(host: Host) -> None:
    await make(host, "mixed", enable_ipv6=True, options={MODE + "4": "routed"})
    a = await start(host, "a", on("mixed", "a"), ports=(PortRequest(container_port=OPEN),))
    shown = [(port.host_ip, bool(port.host_port)) for port in a.ports]
    assert shown == [("0.0.0.0", False), ("::", True)]
    with far_host(host) as far, echo_server(far, "0.0.0.0", 9), serving(a):
        assert exchange(a.netns, host.neighbour_address, 9).endswith(f"heard {a.endpoints[0].ip_address}")
        assert exchange(far, OUT["host6"], a.ports[1].host_port)
        await host.networks.shut_ports(cid("a"))
        assert await who_reaches(to_each({"far": far}, {"a": a})) == set(), "it is to refuse new connections"
        await host.networks.reopen_ports(cid("a"))
        # A daemon that died, and took its ports along from the records.
        await host.networks.close(remove=False)
        await host.reopen({cid("a"): a})
        assert exchange(far, a.endpoints[0].ip_address, OPEN)


async def test_what_leaves_has_the_address_that_the_network_names(host: Host) -> None:
    options = {"com.docker.network.host_ipv4": "198.18.77.99", "com.docker.network.host_ipv6": "fd00:77::99"}
    await make(host, "named", enable_ipv6=True, options=options)
    a = await start(host, "a", on("named", "a"))
    with far_host(host) as far, echo_server(far, "0.0.0.0", 9), echo_server(far, OUT["left6"], 9):
        name = subprocess.run(["ip", "-br", "addr", "show", "to", "198.18.77.1/32"], capture_output=True, text=True)
        wire = name.stdout.partition("@")[0]
        run_quietly("ip", "addr", "add", "198.18.77.99/24", "dev", wire)
        run_quietly("ip", "addr", "add", "fd00:77::99/64", "dev", wire, "nodad")
        assert exchange(a.netns, host.neighbour_address, 9).endswith("heard 198.18.77.99")
        assert exchange(a.netns, OUT["left6"], 9).endswith("heard fd00:77::99")


async def test_published_ports_are_reached_directly_where_the_daemon_or_the_network_allows_it(tmp_path: Path) -> None:
    trusted = {"com.docker.network.bridge.trusted_host_interfaces": f"nowhere:nb{os.getpid()}"}
    for number, (allow, options) in enumerate(((True, {}), (False, trusted), (False, {}))):
        async with open_host(tmp_path / str(number), allow_direct_routing=allow) as host:
            await make(host, "net", enable_ipv6=True, options=options)
            a = await start(host, "a", on("net", "a"), ports=(PortRequest(container_port=OPEN),))
            with far_host(host) as far, serving(a):
                answered = await who_reaches(to_each({"far": far}, {"a": a}))
            assert answered == (both(f"far → a {OPEN}") if allow or options else set())


async def test_a_network_with_ipv6_alone_gives_names_addresses_and_ports_of_ipv6_only(host: Host) -> None:
    network = await make(host, "six", enable_ipv4=False, enable_ipv6=True)
    a = await start(host, "a", on("six", "a"), ports=(PortRequest(container_port=OPEN),))
    b = await start(host, "b", on("six", "b"))
    assert [pool.version for pool in network.ipam] == [6]
    assert (a.endpoints[0].ip_address, a.endpoints[0].gateway) == ("", "")
    assert [port.host_ip for port in a.ports] == ["::"]
    assert inside(a.netns, lambda: subprocess.check_output(["ip", "-4", "addr", "show", "dev", "eth0"])) == b""
    with echo_server(a.netns, "::", OPEN):
        assert exchange(b.netns, a.endpoints[0].ipv6_address, OPEN)
        assert await asyncio.to_thread(exchange, "", "::1", a.ports[0].host_port)


async def test_a_container_on_a_network_of_each_family_publishes_both(host: Host) -> None:
    await make(host, "four")
    await make(host, "six", enable_ipv4=False, enable_ipv6=True)
    a = await start(host, "a", on("four", "a"), on("six", "a"), ports=(PortRequest(container_port=OPEN),))
    assert [port.host_ip for port in a.ports] == ["0.0.0.0", "::"]
    assert a.ports[0].host_port == a.ports[1].host_port
    with serving(a):
        assert await asyncio.to_thread(exchange, "", "127.0.0.1", a.ports[0].host_port)
        assert await asyncio.to_thread(exchange, "", "::1", a.ports[0].host_port)


@pytest.mark.parametrize("option", ["inhibit_ipv4", "gateway_mode_ipv4"])
async def test_a_subnet_of_two_addresses_has_two_containers_where_nobody_leaves(host: Host, option: str) -> None:
    value = "true" if option == "inhibit_ipv4" else "isolated"
    options = {f"com.docker.network.bridge.{option}": value}
    await make(host, "pair", IpamConfig(subnet="10.215.90.0/31"), internal=True, options=options)
    a, b = await start(host, "a", on("pair", "a")), await start(host, "b", on("pair", "b"))
    assert {a.endpoints[0].ip_address, b.endpoints[0].ip_address} == {"10.215.90.0", "10.215.90.1"}
    with echo_server(a.netns, "0.0.0.0", OPEN):
        assert exchange(b.netns, a.endpoints[0].ip_address, OPEN)


async def test_an_isolated_network_has_no_address_of_the_hosts(host: Host) -> None:
    network = await make(host, "alone", internal=True, enable_ipv6=True, options=modes("isolated"))
    a, b = await start(host, "a", on("alone", "a")), await start(host, "b", on("alone", "b"))
    with serving(a):
        for version in (4, 6):
            assert exchange(b.netns, a.endpoints[0].address_of(version), OPEN)
        await host.networks.reconcile()
        shown = subprocess.check_output(["ip", "-o", "addr", "show", "dev", network.bridge], text=True)
    assert "inet" not in shown


async def test_a_network_made_from_a_configuration_is_as_that_one_says_and_keeps_it_from_removal(host: Host) -> None:
    options = {"com.docker.network.driver.mtu": "1234"}
    await make(host, "cfg", IpamConfig(subnet="10.215.91.0/24"), config_only=True, options=options)
    await make(host, "real", config_from=ConfigSource(network="cfg"))
    a = await start(host, "a", on("real", "a"))
    assert a.endpoints[0].ip_address == "10.215.91.2"
    shown = inside(a.netns, lambda: subprocess.check_output(["ip", "link", "show", "eth0"], text=True))
    assert " mtu 1234 " in shown
    with pytest.raises(Forbidden, match='configuration network "cfg" is in use'):
        await host.networks.remove("cfg")
    with pytest.raises(Forbidden, match="cannot create endpoint on configuration-only network"):
        await start(host, "b", on("cfg", "b"))
    assert await host.networks.prune(lambda _: True) == []


# --- the default bridge ---


def shown_addresses(bridge: str) -> list[str]:
    lines = subprocess.check_output(["ip", "-br", "addr", "show", bridge], text=True).split()[2:]
    return [address for address in lines if "/" in address]


def on_bridge(name: str) -> EndpointRequest:
    return on("bridge", name)


def hear(target: str) -> bytes:
    """What the server says; the target may name an interface, as link-local addresses must."""
    with socket.create_connection((target, OPEN), timeout=2) as connection:
        return connection.recv(100)


async def test_the_default_bridge_follows_its_flags_from_start_to_start(host: Host) -> None:
    """The steps of an administrator who changes his mind; without containers each holds at once."""
    bridge, before = host.networks.bridge, host.networks.find("bridge")
    for flags, addresses in (
        ({"fixed_cidr_v6": "fd1c:f1a0:5d8d:aaaa::/64"}, ["fd1c:f1a0:5d8d:aaaa::1/64"]),
        ({"fixed_cidr_v6": "fd1c:f1a0:5d8d:bbbb::/64"}, ["fd1c:f1a0:5d8d:bbbb::1/64"]),
        ({"fixed_cidr_v6": "fd1c:f1a0:5d8d:bbbb::/80"}, ["fd1c:f1a0:5d8d:bbbb::1/64"]),
        ({"fixed_cidr_v6": "fe80:1237::/32"}, ["fe80:1237::1/32"]),
        ({"fixed_cidr_v6": "fe80:1238::/64"}, ["fe80:1238::1/64"]),
        ({"bip6": "fd1c::9/64"}, ["fd1c::9/64"]),
    ):
        await host.networks.close(remove=False)
        await host.reopen({}, ipv6=True, **flags)
        a = await start(host, "a", on_bridge("a"))
        b = await start(host, "b", on_bridge("b"))
        target = a.endpoints[0].ipv6_address + ("%eth0" if "fe80" in addresses[0] else "")
        with echo_server(a.netns, "::", OPEN):
            assert inside(b.netns, lambda target=target: hear(target))  # type: ignore[misc]
        found = [one for one in shown_addresses(bridge) if ":" in one and not one.startswith("fe80::")]
        assert found == addresses
        for name in ("a", "b"):
            await host.networks.close_sandbox(cid(name))
        await host.settled()
    await host.networks.close(remove=False)
    await host.reopen({})
    after = host.networks.find("bridge")
    assert (after.id, after.ipam, after.enable_ipv6) == (before.id, before.ipam, False)


async def test_a_default_bridge_with_containers_keeps_what_they_live_on(host: Host) -> None:
    a = await start(host, "a", on_bridge("a"), ports=(PortRequest(container_port=OPEN),))
    before = host.networks.find("bridge").ipam
    for flags in ({"bip": "10.215.92.1/24"}, {"bridge": "none"}, {"bridge": "nosuchbridge"}, {"ipv6": True}):
        await host.networks.close(remove=False)
        await host.reopen({cid("a"): a}, **flags)
        assert host.networks.find("bridge").ipam == before
        with echo_server(a.netns, "0.0.0.0", OPEN):
            assert await asyncio.to_thread(exchange, "", "127.0.0.1", a.ports[0].host_port)


async def test_without_a_default_bridge_its_containers_have_loopback_alone(tmp_path: Path) -> None:
    async with open_host(tmp_path, bridge="none") as host:
        a = await start(host, "a", on_bridge("a"), ports=(PortRequest(container_port=OPEN),))
        assert (a.endpoints, a.ports) == ([], [])
        await make(host, "own")
        b = await start(host, "b", on("own", "b"))
        assert b.endpoints[0].gateway


async def test_a_bridge_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="bridge device with non default name nosuch must be created manually"):
        async with open_host(tmp_path, bridge="nosuch"):
            pass


async def test_an_administrators_bridge_gets_what_it_lacks_and_keeps_it(tmp_path: Path) -> None:
    name = "bntheirs8"
    run_quietly("ip", "link", "add", name, "type", "bridge")
    try:
        run_quietly("ip", "addr", "add", "10.215.93.1/24", "dev", name)
        run_quietly("ip", "addr", "add", "10.215.94.1/24", "dev", name)
        flags = {"fixed_cidr": "10.215.94.128/25", "ipv6": True, "fixed_cidr_v6": "fd00:94::/64"}
        async with open_host(tmp_path, bridge=name, pristine=False, **flags) as host:
            a = await start(host, "a", on_bridge("a"))
            assert a.endpoints[0].ip_address == "10.215.94.128"
            with serving(a):
                for version in (4, 6):
                    assert await asyncio.to_thread(exchange, "", a.endpoints[0].address_of(version), OPEN)
        assert {"10.215.93.1/24", "10.215.94.1/24", "fd00:94::1/64"} <= set(shown_addresses(name))
    finally:
        run_quietly("ip", "link", "del", name)


async def test_a_default_gateway_is_where_containers_routes_lead(tmp_path: Path) -> None:
    async with open_host(tmp_path, bip="10.215.95.1/24", default_gateway="10.215.95.254") as host:
        a = await start(host, "a", on_bridge("a"))
        assert a.endpoints[0].gateway == "10.215.95.254"
        route = inside(a.netns, lambda: subprocess.check_output(["ip", "route", "show", "default"], text=True))
        assert "via 10.215.95.254 " in route


# --- without rules, without forwarding ---


async def test_without_rules_of_a_family_its_ports_are_carried_by_the_daemon(tmp_path: Path) -> None:
    async with open_host(tmp_path, iptables=False, ip6tables=False) as host:
        await make(host, "net", enable_ipv6=True)
        a = await start(host, "a", on("net", "a"), ports=(PortRequest(container_port=OPEN),))
        table = subprocess.check_output(["nft", "list", "table", "inet", host.networks.table], text=True)
        assert f"{a.endpoints[0].ip_address}" not in table and f"{a.endpoints[0].ipv6_address}" not in table
        with serving(a):
            assert await asyncio.to_thread(exchange, "", "127.0.0.1", a.ports[0].host_port)
            assert await asyncio.to_thread(exchange, "", host.own_address(), a.ports[0].host_port)
            assert await asyncio.to_thread(exchange, "", "::1", a.ports[1].host_port)


async def test_without_the_userland_proxy_a_container_of_ipv4_publishes_nothing_of_ipv6(tmp_path: Path) -> None:
    async with open_host(tmp_path, userland_proxy=False) as host:
        a = await start(host, "a", on_bridge("a"), ports=(PortRequest(container_port=OPEN),))
        assert [port.host_ip for port in a.ports] == ["0.0.0.0"]
        with serving(a):
            assert await asyncio.to_thread(exchange, "", "127.0.0.1", a.ports[0].host_port)
            assert await asyncio.to_thread(exchange, "", host.own_address(), a.ports[0].host_port)
