"""The default bridge with real packets between real namespaces."""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from network_helpers import Host, echo_server, exchange, inside, needs_network, open_host, run_quietly

from bennu.errors import BennuError, NotFound
from bennu.network import EndpointRequest, NetworkRequest, PortRequest, Sandbox
from bennu.network.model import PortForward
from bennu.network.namespaces import netns as namespaces
from bennu.network.nat.nft import Firewall
from bennu.network.nat.rules import Ruleset
from bennu.network.socket_lb.socket_lb_bpf import BpfSocketLb

pytestmark = needs_network


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as opened:
        yield opened


async def start(host: Host, name: str, *ports: PortRequest) -> Sandbox:
    return await host.networks.open_sandbox(name * 12, [EndpointRequest(network="bridge", container_name=name)], ports)


async def test_two_containers_reach_each_other_and_the_host(host: Host) -> None:
    a, b = await start(host, "a"), await start(host, "b")
    with echo_server(b.netns, "0.0.0.0", 7):
        assert (
            exchange(a.netns, b.endpoints[0].ip_address, 7)
            == b.endpoints[0].ip_address + " heard " + a.endpoints[0].ip_address
        )
        assert exchange("", b.endpoints[0].ip_address, 7).endswith(a.endpoints[0].gateway)
    with echo_server("", a.endpoints[0].gateway, 7788):
        assert exchange(a.netns, a.endpoints[0].gateway, 7788).endswith(a.endpoints[0].ip_address)


async def test_the_mac_address_is_derived_from_the_address(host: Host) -> None:
    endpoint = (await start(host, "a")).endpoints[0]
    expected = "02:42:" + ":".join(f"{int(part):02x}" for part in endpoint.ip_address.split("."))
    assert endpoint.mac_address == expected
    shown = inside(
        host.networks.sandbox("a" * 12).netns,
        lambda: subprocess.run(["ip", "-br", "link"], capture_output=True, text=True).stdout,
    )
    assert expected in shown and "eth0" in shown


@pytest.mark.parametrize("proto", ["tcp", "udp"])
async def test_a_published_port_is_reached_from_everywhere(host: Host, proto: str) -> None:
    port = host.free_port(proto)
    a = await start(host, "a", PortRequest(container_port=7, proto=proto, host_port_first=port, host_port_last=port))
    b = await start(host, "b")
    own = a.endpoints[0].ip_address
    outside = host.own_address()
    with echo_server(a.netns, "0.0.0.0", 7, proto):
        assert exchange("", "127.0.0.1", port, proto).startswith(own), "from localhost"
        assert exchange("", outside, port, proto).startswith(own), "from the host's own address"
        assert exchange("", a.endpoints[0].gateway, port, proto).startswith(own), "from the bridge's address"
        assert exchange(b.netns, outside, port, proto).startswith(own), "from another container"
        assert exchange(b.netns, a.endpoints[0].gateway, port, proto).startswith(own), "through the gateway"
        assert exchange(a.netns, outside, port, proto).startswith(own), "from itself"
        assert exchange(a.netns, a.endpoints[0].gateway, port, proto).startswith(own), "from itself, by the gateway"


@pytest.mark.parametrize("proto", ["tcp", "udp"])
async def test_an_ipv6_client_reaches_a_container_that_has_only_ipv4(host: Host, proto: str) -> None:
    a = await start(host, "a", PortRequest(container_port=7, proto=proto))
    port = a.ports[0].host_port
    assert [published.host_ip for published in a.ports] == ["0.0.0.0", "::"]
    with echo_server(a.netns, "0.0.0.0", 7, proto):
        for address in ("::1", host.own_address(6)):
            for _ in range(3):
                heard = await asyncio.to_thread(exchange, "", address, port, proto)
                assert heard == f"{a.endpoints[0].ip_address} heard {a.endpoints[0].gateway}"
    if proto == "tcp":
        with pytest.raises(OSError):
            await asyncio.to_thread(exchange, "", "::1", port)
    await host.networks.close_sandbox("a" * 12)
    if proto == "tcp":
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(exchange, "", "::1", port)


async def test_megabytes_go_both_ways_through_the_userland_proxy_and_each_end_is_told(host: Host) -> None:
    a = await start(host, "a", PortRequest(container_port=7))
    server = inside(a.netns, lambda: socket.create_server(("0.0.0.0", 7)))
    sent = bytes(range(256)) * 16384

    def mirror() -> None:
        connection, _ = server.accept()
        with connection:
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
            connection.sendall(data[::-1])

    def client() -> bytes:
        with socket.create_connection(("::1", a.ports[0].host_port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
            return data

    with server:
        _, received = await asyncio.gather(asyncio.to_thread(mirror), asyncio.to_thread(client))
    assert received == sent[::-1]


async def test_a_udp_client_that_goes_on_sending_follows_the_port_to_another_container(host: Host) -> None:
    """Conntrack keeps a flow's translation as long as packets come; a change of the port has to end it."""
    port = host.free_port("udp")
    request = PortRequest(container_port=7, proto="udp", host_port_first=port, host_port_last=port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)

        def ask() -> str:
            client.sendto(b"?", (host.own_address(), port))
            return client.recv(100).decode()

        with pytest.raises(OSError):
            ask()
        for name in "ab":
            sandbox = await start(host, name, request)
            with echo_server(sandbox.netns, "0.0.0.0", 7, "udp"):
                assert ask().startswith(sandbox.endpoints[0].ip_address)
            await host.networks.close_sandbox(name * 12)


async def test_a_published_port_is_gone_with_its_sandbox(host: Host) -> None:
    port = host.free_port()
    a = await start(host, "a", PortRequest(container_port=7, host_port_first=port, host_port_last=port))
    with echo_server(a.netns, "0.0.0.0", 7):
        assert exchange("", "127.0.0.1", port)
        await host.networks.close_sandbox("a" * 12)
        with pytest.raises(ConnectionRefusedError):
            exchange("", "127.0.0.1", port)


async def test_a_port_published_on_loopback_is_not_reached_through_another_address(host: Host) -> None:
    port = host.free_port()
    request = PortRequest(container_port=7, host_ip="127.0.0.1", host_port_first=port, host_port_last=port)
    a, b = await start(host, "a", request), await start(host, "b")
    with echo_server(a.netns, "0.0.0.0", 7):
        assert exchange("", "127.0.0.1", port).startswith(a.endpoints[0].ip_address)
        with pytest.raises(OSError):
            exchange("", host.own_address(), port)
        with pytest.raises(OSError):
            exchange(b.netns, host.own_address(), port)


async def test_a_taken_port_is_refused_with_dockers_words_and_nothing_is_left(host: Host) -> None:
    port = host.free_port()
    request = PortRequest(container_port=7, host_port_first=port, host_port_last=port)
    first = await start(host, "a", request)
    await host.settled()
    before = host.kernel_state()
    with pytest.raises(BennuError) as refused:
        await start(host, "b", PortRequest(container_port=8), request)
    assert str(refused.value).startswith("driver failed programming external connectivity on endpoint b (")
    assert str(refused.value).endswith(f"): Bind for 0.0.0.0:{port} failed: port is already allocated")
    await host.settled()
    assert host.kernel_state() == before
    second = await start(host, "c")
    assert second.endpoints[0].ip_address != first.endpoints[0].ip_address
    await host.networks.close_sandbox("a" * 12)
    assert (await start(host, "d", request)).ports[0].host_port == port


async def test_a_port_of_a_host_program_is_refused(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BennuError, match=f"failed to bind host port 0.0.0.0:{port}/tcp: address already in use"):
            await start(host, "a", PortRequest(container_port=7, host_port_first=port, host_port_last=port))


async def test_nobody_else_gets_a_published_port(host: Host) -> None:
    sandbox = await start(host, "a", PortRequest(container_port=7))
    assert {port.host_ip for port in sandbox.ports} == {"0.0.0.0", "::"}
    assert len({port.host_port for port in sandbox.ports}) == 1
    for address in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(OSError, match="Address already in use"):
            socket.create_server((address, sandbox.ports[0].host_port))


async def test_a_range_takes_its_first_free_port(host: Host) -> None:
    base = host.free_port()
    ask = PortRequest(container_port=7, host_port_first=base, host_port_last=base + 3)
    with socket.create_server(("0.0.0.0", base)):
        sandbox = await start(host, "a", ask)
    assert base < sandbox.ports[0].host_port <= base + 3


async def test_unpublished_ports_are_closed_to_other_networks_and_neighbours(host: Host) -> None:
    """A neighbour who routes to the container's address by way of the host gets nothing."""
    a = await start(host, "a")
    with host.neighbour() as neighbour, echo_server(a.netns, "0.0.0.0", 7), pytest.raises(OSError):
        exchange(neighbour, a.endpoints[0].ip_address, 7)


async def test_a_neighbour_reaches_published_ports_and_sees_the_hosts_address(host: Host) -> None:
    port = host.free_port()
    a = await start(host, "a", PortRequest(container_port=7, host_port_first=port, host_port_last=port))
    with host.neighbour() as neighbour:
        with echo_server(a.netns, "0.0.0.0", 7):
            assert (
                exchange(neighbour, host.neighbour_gateway, port)
                == f"{a.endpoints[0].ip_address} heard {host.neighbour_address}"
            )
        with echo_server(neighbour, "0.0.0.0", 7799):
            assert exchange(a.netns, host.neighbour_address, 7799).endswith(f"heard {host.neighbour_gateway}")


async def test_no_endpoints_means_loopback_only(host: Host) -> None:
    sandbox = await host.networks.open_sandbox("a" * 12, [], [])
    with echo_server(sandbox.netns, "127.0.0.1", 7):
        assert exchange(sandbox.netns, "127.0.0.1", 7)
    names = inside(sandbox.netns, lambda: Path("/proc/self/net/dev"))
    shown = inside(sandbox.netns, lambda: [name for _, name in socket.if_nameindex()])
    assert shown == ["lo"], names


async def test_addresses_are_not_reused_while_the_old_namespace_may_live(host: Host) -> None:
    seen: dict[str, Path] = {}
    for _ in range(5):
        sandbox = await start(host, "a")
        address = sandbox.endpoints[0].ip_address
        assert address not in seen or not seen[address].exists()
        seen[address] = Path(sandbox.netns)
        await host.networks.close_sandbox("a" * 12)
    await host.settled()
    assert (await start(host, "a")).endpoints[0].ip_address in seen


async def test_a_reopened_daemon_adopts_what_lives_and_deletes_what_does_not(host: Host) -> None:
    port = host.free_port()
    kept = await start(host, "a", PortRequest(container_port=7, host_port_first=port, host_port_last=port))
    await start(host, "b")
    await host.networks.close(remove=False)
    again = await host.reopen({"a" * 12: kept})
    with echo_server(kept.netns, "0.0.0.0", 7):
        assert exchange("", "127.0.0.1", port)
    assert (await start(host, "c")).endpoints[0].ip_address != kept.endpoints[0].ip_address
    with pytest.raises(BennuError, match="port is already allocated"):
        await start(host, "d", PortRequest(container_port=7, host_port_first=port, host_port_last=port))
    await again.close(remove=True)
    assert host.kernel_state() == host.pristine


async def test_a_vanished_bridge_pair_and_namespace_are_made_anew_at_open(host: Host) -> None:
    kept = await start(host, "a")
    await host.networks.close(remove=False)
    run_quietly("ip", "link", "del", host.networks.bridge)
    run_quietly("ip", "link", "del", kept.endpoints[0].host_interface)
    namespaces.unpin(Path(kept.netns))
    await host.reopen({"a" * 12: kept})
    with echo_server(kept.netns, "0.0.0.0", 7):
        assert exchange("", kept.endpoints[0].ip_address, 7)


async def test_a_flushed_rule_set_is_written_again(host: Host) -> None:
    port = host.free_port()
    a = await start(host, "a", PortRequest(container_port=7, host_port_first=port, host_port_last=port))
    run_quietly("nft", "delete", "table", "inet", host.networks.table)
    with echo_server(a.netns, "0.0.0.0", 7):
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(OSError):
                    exchange("", "127.0.0.1", port)
                    break
                await asyncio.sleep(0.1)


async def test_rules_of_others_are_no_reason_to_write_ours_again(host: Host) -> None:
    await start(host, "a", PortRequest(container_port=7), PortRequest(container_port=8, proto="udp"))
    await start(host, "b")
    before = host.networks.firewall_runs
    run_quietly("nft", "add", "table", "inet", "somebody_else")
    try:
        await host.networks.reconcile()
        assert host.networks.firewall_runs == before
    finally:
        run_quietly("nft", "delete", "table", "inet", "somebody_else")
    run_quietly("nft", "flush", "chain", "inet", host.networks.table, "forward")
    await host.networks.reconcile()
    assert host.networks.firewall_runs == before + 1
    await host.networks.reconcile()
    assert host.networks.firewall_runs == before + 1


async def test_changes_that_arrive_together_share_an_nft_process(tmp_path: Path) -> None:
    ports: set[PortForward] = set()
    table = f"bennu_batch_{os.getpid()}"
    firewall = Firewall(table, BpfSocketLb(table, tmp_path), lambda: Ruleset((), frozenset(ports)))

    async def publish(number: int) -> None:
        ports.add(PortForward("tcp", "0.0.0.0", number, "10.0.0.2", 80))
        await firewall.apply()

    try:
        first = asyncio.ensure_future(publish(1))
        while firewall.runs == 0:
            await asyncio.sleep(0)
        await asyncio.gather(first, *(publish(number) for number in range(2, 100)))
        assert firewall.runs == 2, "one for the first, one for all that came while it ran"
        assert await firewall.is_intact()
    finally:
        await firewall.remove()


async def test_a_cancelled_start_leaves_nothing(host: Host) -> None:
    before = host.kernel_state()
    for delay in (0.0, 0.001, 0.002, 0.004, 0.008):
        task = asyncio.ensure_future(start(host, "a", PortRequest(container_port=7)))
        await asyncio.sleep(delay)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
            await host.networks.close_sandbox("a" * 12)
    await host.settled()
    assert host.kernel_state() == before


async def test_two_daemons_on_one_machine_use_different_subnets(host: Host, tmp_path: Path) -> None:
    async with open_host(tmp_path / "other") as other:
        mine, theirs = host.networks.find("bridge"), other.networks.find("bridge")
        assert mine.ipam[0].subnet != theirs.ipam[0].subnet
        assert mine.bridge != theirs.bridge
        a = await start(host, "a", PortRequest(container_port=7))
        b = await start(other, "b", PortRequest(container_port=7))
        assert a.ports[0].host_port != b.ports[0].host_port
        with echo_server(b.netns, "0.0.0.0", 7):
            assert exchange(a.netns, host.own_address(), b.ports[0].host_port).startswith(b.endpoints[0].ip_address)
            with pytest.raises(OSError):
                exchange(a.netns, b.endpoints[0].ip_address, 7)


async def test_the_bridges_mac_address_stays_as_containers_come_and_go(host: Host) -> None:
    shown = Path("/sys/class/net", host.networks.bridge, "address")
    before = shown.read_text()
    for name in "abcd":
        await start(host, name)
        assert shown.read_text() == before


async def test_the_administrators_settings_hold_for_the_default_bridge(tmp_path: Path) -> None:
    wanted = {"bip": "10.215.4.254/24", "mtu": 1400, "ip": "127.0.0.1", "pools": (("10.215.128.0/20", 24),)}
    async with open_host(tmp_path, **wanted) as host:
        a = await start(host, "a", PortRequest(container_port=7))
        assert a.endpoints[0].ip_address == "10.215.4.1" and a.endpoints[0].gateway == "10.215.4.254"
        assert [port.host_ip for port in a.ports] == ["127.0.0.1"]
        assert Path("/sys/class/net", host.networks.bridge, "mtu").read_text() == "1400\n"
        assert (await host.networks.create(NetworkRequest(name="x"))).ipam[0].subnet == "10.215.128.0/24"
        network_id = host.networks.find("bridge").id
        await host.networks.close_sandbox("a" * 12)
        await host.networks.close(remove=False)
        await host.reopen({}, bip="10.215.4.254/24", mtu=1300)
        assert host.networks.find("bridge").id == network_id
        assert Path("/sys/class/net", host.networks.bridge, "mtu").read_text() == "1300\n"


async def test_an_administrators_bridge_is_used_and_left_as_it_is(tmp_path: Path) -> None:
    name = "bntheirs7"
    run_quietly("ip", "link", "add", name, "type", "bridge")
    try:
        run_quietly("ip", "addr", "add", "10.215.3.1/24", "dev", name)
        run_quietly("ip", "link", "set", name, "up")
        async with open_host(tmp_path, bridge=name, pristine=False) as host:
            a = await start(host, "a", PortRequest(container_port=7))
            assert a.endpoints[0].ip_address == "10.215.3.2"
            with echo_server(a.netns, "0.0.0.0", 7):
                assert exchange("", "127.0.0.1", a.ports[0].host_port).startswith("10.215.3.2")
        shown = subprocess.run(["ip", "-br", "addr", "show", name], capture_output=True, text=True)
        assert "10.215.3.1/24" in shown.stdout
    finally:
        run_quietly("ip", "link", "del", name)


async def test_a_stopped_daemon_without_containers_leaves_nothing_and_comes_back_the_same(host: Host) -> None:
    before = host.networks.find("bridge")
    await host.networks.close(remove=False)
    assert host.kernel_state() == host.pristine
    await host.reopen({})
    assert host.networks.find("bridge") == before


async def test_a_subnet_that_was_taken_while_the_daemon_was_away_is_given_up(host: Host, tmp_path: Path) -> None:
    user_defined = await host.networks.create(NetworkRequest(name="x"))
    before = host.networks.find("bridge")
    taken = {before.ipam[0].subnet, user_defined.ipam[0].subnet}
    await host.networks.close(remove=False)
    async with open_host(tmp_path / "other", pools=tuple((subnet, 16) for subnet in sorted(taken))) as other:
        assert other.networks.find("bridge").ipam[0].subnet in taken
        await other.networks.create(NetworkRequest(name="y"))
        await host.reopen({})
        for name, network_id in (("bridge", before.id), ("x", user_defined.id)):
            network = host.networks.find(name)
            assert network.id == network_id and network.ipam[0].subnet not in taken
        a = await start(host, "a")
        with echo_server(a.netns, "0.0.0.0", 7):
            assert exchange("", a.endpoints[0].ip_address, 7)


async def test_a_start_that_fails_half_way_leaves_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    await host.networks.close(remove=True)
    with monkeypatch.context() as without_nft:
        without_nft.setenv("PATH", "/nowhere")
        with pytest.raises((BennuError, OSError)):
            await host.reopen({})
    assert host.kernel_state() == host.pristine
    await host.reopen({})


async def test_a_start_that_fails_takes_nothing_from_living_containers(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await start(host, "a")
    await host.networks.close(remove=False)
    with monkeypatch.context() as without_nft:
        without_nft.setenv("PATH", "/nowhere")
        with pytest.raises((BennuError, OSError)):
            await host.reopen({"a" * 12: kept})
    with echo_server(kept.netns, "0.0.0.0", 7):
        assert exchange("", kept.endpoints[0].ip_address, 7)
    await host.reopen({"a" * 12: kept})


async def test_a_container_that_lived_on_keeps_its_subnet_whatever_the_host_did(host: Host) -> None:
    kept = await start(host, "a")
    subnet = host.networks.find("bridge").ipam[0].subnet
    await host.networks.close(remove=False)
    run_quietly("ip", "route", "add", "blackhole", subnet, "metric", "77")
    try:
        await host.reopen({"a" * 12: kept})
        assert host.networks.find("bridge").ipam[0].subnet == subnet
        assert (await start(host, "b")).endpoints[0].ip_address != kept.endpoints[0].ip_address
    finally:
        run_quietly("ip", "route", "del", "blackhole", subnet, "metric", "77")


async def test_an_unknown_network_is_named(host: Host) -> None:
    with pytest.raises(NotFound, match="network nosuchnet not found"):
        await host.networks.open_sandbox("a" * 12, [EndpointRequest(network="nosuchnet")], [])
