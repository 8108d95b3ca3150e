"""The kernel forgets the flows it is told to, and no others: real ones, in the table of the host."""

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from network_helpers import Host, echo_server, inside, needs_network, open_host

from bennu.network import EndpointRequest, PortRequest, Sandbox
from bennu.network.nat.conntrack import (
    FlowFilter,
    delete_listed,
    forget_udp_flows,
    forget_udp_flows_to,
    forget_unanswered,
    list_flows,
)
from bennu.network.nat.nft import NETLINK_NETFILTER
from support.waiting import wait_for

pytestmark = needs_network
UDP, TCP = socket.IPPROTO_UDP, socket.IPPROTO_TCP


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as opened:
        yield opened


async def start(host: Host, name: str) -> tuple[Sandbox, str, int]:
    """A container with the port 7 of UDP published; its address, and the port on the host."""
    request = PortRequest(container_port=7, proto="udp")
    sandbox = await host.networks.open_sandbox(
        name * 12, [EndpointRequest(network="bridge", container_name=name)], [request]
    )
    return sandbox, sandbox.endpoints[0].ip_address, sandbox.ports[0].host_port


def netfilter() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)


def count(wanted: FlowFilter) -> int:
    with netfilter() as sock:
        return len(list_flows(sock, wanted))


def to_port(port: int) -> FlowFilter:
    return FlowFilter(UDP, port=port)


def test_nobody_has_flows_to_a_port_that_nobody_talks_to() -> None:
    assert count(to_port(1)) == count(FlowFilter(UDP, socket.AF_INET6, port=1)) == 0


async def test_flows_by_udp_are_forgotten_by_port_or_by_who_answers(host: Host) -> None:
    (a, a_ip, a_port), (b, b_ip, b_port) = await start(host, "a"), await start(host, "b")
    with (
        echo_server(a.netns, "0.0.0.0", 7, "udp"),
        echo_server(b.netns, "0.0.0.0", 7, "udp"),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(5)

        def talk() -> tuple[int, int]:
            for port in (a_port, b_port):
                client.sendto(b"?", (host.own_address(), port))
                client.recv(100)
            return count(to_port(a_port)), count(to_port(b_port))

        before = count(FlowFilter(UDP, answered_by=a_ip))  # others had the address, and their flows are remembered
        assert talk() == (1, 1)
        assert count(FlowFilter(UDP, answered_by=a_ip)) == before + 1
        forget_udp_flows([a_port])
        assert (count(to_port(a_port)), count(to_port(b_port))) == (0, 1)
        assert talk() == (1, 1)
        forget_udp_flows_to([b_ip])
        assert (count(to_port(a_port)), count(to_port(b_port))) == (1, 0)


@pytest.mark.parametrize("way", ["by filter", "one by one"])
async def test_only_connections_without_an_answer_are_forgotten(host: Host, way: str) -> None:
    sandbox, ip, _ = await start(host, "a")

    def forget() -> None:
        if way == "by filter":
            forget_unanswered([ip])
        else:  # as on kernels that refuse the filter
            with netfilter() as sock:
                delete_listed(sock, unanswered)

    every, unanswered = FlowFilter(TCP, answered_by=ip), FlowFilter(TCP, answered_by=ip, only_unanswered=True)
    before = count(every)  # others had the address, and their connections are remembered for a while
    with (
        inside(sandbox.netns, lambda: socket.create_server(("0.0.0.0", 9), backlog=0)),
        contextlib.ExitStack() as clients,
    ):
        clients.enter_context(socket.create_connection((ip, 9), timeout=10))  # nobody takes it: the queue is full
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((ip, 9))
        wait_for(lambda: count(unanswered) == 3, what="the others to have sent their first packet")
        forget()
        assert (count(unanswered), count(every)) == (0, before + 1), "the answered one goes on"
