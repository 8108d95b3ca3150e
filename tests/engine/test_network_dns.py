"""The embedded DNS with real packets: names of containers, forwarding, broken questions."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
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
    start,
    values,
)

from bennu.errors import InvalidParameter
from bennu.network import Sandbox
from bennu.network.dns import forward_limiter, server
from bennu.network.dns.forward_limiter import MAX_FORWARDS_PER_SANDBOX
from bennu.network.dns.server import MAX_CONNECTIONS_PER_SANDBOX

pytestmark = needs_network
ELSEWHERE = "198.51.100.{}"  # addresses of this host that containers reach: their servers are asked from where they are


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    add_elsewhere = ["ip", "address", "replace", ELSEWHERE.format("0/24"), "dev", "lo"]
    subprocess.run(add_elsewhere, check=True)  # of lo the kernel takes all addresses of the subnet for its own
    async with open_host(tmp_path) as opened:
        yield opened


async def test_containers_find_each_other_by_name_alias_and_short_id(host: Host) -> None:
    await make(host, "net1")
    web = await start(host, "web", on("net1", "web", hostname="box", aliases=["www"]))
    other = await start(host, "other", on("net1", "other"))
    address = web.endpoints[0].ip_address
    for name in ("web", "WEB", "www", "box", cid("web")[:12], "web.net1", "www.net1"):
        for tcp in (False, True):
            assert values(await ask(other, name, tcp=tcp)) == {address}, name
    assert values(await ask(web, "web")) == {address}, "itself"
    pointer = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert values(await ask(other, pointer, "PTR")) == {"web.net1."}
    with echo_server(web.netns, "0.0.0.0", 7):
        assert exchange(other.netns, address, 7).startswith(address)


async def test_a_known_name_without_such_an_address_is_an_empty_answer_and_an_unknown_one_is_denied_at_once(
    host: Host,
) -> None:
    await make(host, "net1")
    web = await start(host, "web", on("net1", "web"))
    answer = await ask(web, "web", "AAAA")
    assert answer.rcode() == dns.rcode.NOERROR and not answer.answer
    async with asyncio.timeout(1):
        assert (await ask(web, "nosuch")).rcode() == dns.rcode.NXDOMAIN


async def test_one_alias_for_several_containers_answers_all_in_changing_order(host: Host) -> None:
    await make(host, "net1")
    expected = set()
    for number in range(4):
        sandbox = await start(host, f"w{number}", on("net1", f"w{number}", aliases=["workers"]))
        expected.add(sandbox.endpoints[0].ip_address)
    firsts = set()
    for _ in range(40):
        answer = await ask(sandbox, "workers")
        assert values(answer) == expected
        firsts.add(answer.answer[0][0].to_text())
    assert len(firsts) > 1


async def test_names_vanish_with_their_containers_and_follow_a_rename(host: Host) -> None:
    await make(host, "net1")
    await start(host, "web", on("net1", "web"))
    other = await start(host, "other", on("net1", "other"))
    host.networks.rename_sandbox(cid("web"), "shop")
    assert values(await ask(other, "shop"))
    assert (await ask(other, "web")).rcode() == dns.rcode.NXDOMAIN
    await host.networks.close_sandbox(cid("web"))
    assert (await ask(other, "shop")).rcode() == dns.rcode.NXDOMAIN


async def test_the_default_bridge_has_no_names(host: Host) -> None:
    sandbox = await start(host, "web", on("bridge", "web"))
    assert not sandbox.has_embedded_dns
    with pytest.raises(InvalidParameter, match="alias is supported only for containers in user defined networks"):
        await start(host, "other", on("bridge", "other", aliases=["x"]))


async def test_a_link_is_known_to_its_owner_alone(host: Host) -> None:
    await make(host, "net1")
    db = await start(host, "db", on("net1", "db"))
    web = await start(host, "web", on("net1", "web", links={"database": "db"}))
    assert values(await ask(web, "database")) == {db.endpoints[0].ip_address}
    assert (await ask(db, "database")).rcode() == dns.rcode.NXDOMAIN


async def test_a_container_may_listen_on_port_53_itself(host: Host) -> None:
    await make(host, "net1")
    web = await start(host, "web", on("net1", "web"))
    with echo_server(web.netns, "0.0.0.0", 53), echo_server(web.netns, "0.0.0.0", 53, "udp"):
        assert values(await ask(web, "web"))


async def test_what_is_not_ours_is_forwarded_and_kept_for_a_while(host: Host) -> None:
    await make(host, "net1")
    asked: list[str] = []

    class Answers(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            query = dns.message.from_wire(data)
            asked.append(query.question[0].name.to_text())
            response = dns.message.make_response(query)
            if "slow" not in asked[-1]:
                response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "203.0.113.7"))
                self.transport.sendto(response.to_wire(), addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Answers, local_addr=(ELSEWHERE.format(77), 53))
    try:
        web = await host.networks.open_sandbox(cid("web"), [on("net1", "web")], [], dns=[ELSEWHERE.format(77)])
        for _ in range(3):
            assert values(await ask(web, "www.example.test")) == {"203.0.113.7"}
        assert asked == ["www.example.test."]
        slow = asyncio.ensure_future(ask(web, "slow.example.test", timeout_s=0.5))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(1):
            assert values(await ask(web, "web")), "others do not wait for a slow server"
        with pytest.raises(dns.exception.Timeout):
            await slow
    finally:
        transport.close()


async def test_a_server_that_a_container_names_is_asked_where_the_container_is(host: Host) -> None:
    """127.0.0.1 is the container itself then, not the host. 127.0.0.11 is not asked: it would ask itself."""
    await make(host, "net1")
    web = await host.networks.open_sandbox(cid("web"), [on("net1", "web")], [], dns=["127.0.0.11", "127.0.0.1"])
    assert (await ask(web, "www.example.test")).rcode() == dns.rcode.SERVFAIL, "nobody serves there yet"
    heard = inside(web.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with closing(heard):
        heard.bind(("127.0.0.1", 53))
        asking = asyncio.ensure_future(ask(web, "mine.example.test"))
        wire, peer = await asyncio.to_thread(heard.recvfrom, 512)
        response = dns.message.make_response(query := dns.message.from_wire(wire))
        response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "203.0.113.9"))
        heard.sendto(response.to_wire(), peer)
        assert values(await asking) == {"203.0.113.9"}
    alone = await host.networks.open_sandbox(cid("alone"), [on("net1", "alone")], [], dns=["127.0.0.11"])
    async with asyncio.timeout(1):
        assert (await ask(alone, "www.example.test")).rcode() == dns.rcode.SERVFAIL


async def test_broken_questions_get_an_error_and_harm_nothing(host: Host) -> None:
    await make(host, "net1")
    web = await start(host, "web", on("net1", "web"))

    def send(*packets: bytes) -> list[bytes]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            sock.connect(("127.0.0.11", 53))
            answers = []
            for packet in packets:
                sock.send(packet)
                with contextlib.suppress(TimeoutError):
                    answers.append(sock.recv(4096))
            return answers

    garbage = [b"", b"x", b"\0" * 11, b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + b"\xc0\x0c\0\1\0\1", b"\xff" * 600]
    answers = await asyncio.to_thread(inside, web.netns, lambda: send(*garbage))
    assert all(answer[3] & 0x0F != 0 for answer in answers)
    assert values(await ask(web, "web"))


@dataclass
class Elsewhere:
    """A name server of another machine: answers by UDP are cut off, by TCP they are whole."""

    asked: list[str] = field(default_factory=list)

    def answer(self, wire: bytes, *, tcp: bool) -> bytes:
        query = dns.message.from_wire(wire)
        name = query.question[0].name
        self.asked.append(("tcp " if tcp else "udp ") + name.to_text())
        response = dns.message.make_response(query)
        if tcp:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *(f"203.0.113.{n}" for n in range(100))))
        else:
            response.flags |= dns.flags.TC
        return response.to_wire()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        whole = self.answer(await reader.readexactly(size), tcp=True)
        writer.write(struct.pack("!H", len(whole)) + whole)
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Elsewhere) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._server.answer(data, tcp=False), addr)


async def test_a_long_answer_from_elsewhere_comes_whole_by_tcp(host: Host) -> None:
    await make(host, "net1")
    server, loop = Elsewhere(), asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(server), local_addr=(ELSEWHERE.format(78), 53))
    async with await asyncio.start_server(server.talk, ELSEWHERE.format(78), 53):
        web = await host.networks.open_sandbox(cid("web"), [on("net1", "web")], [], dns=[ELSEWHERE.format(78)])
        cut = await ask(web, "many.example.test")
        assert cut.flags & dns.flags.TC and not cut.answer
        for _ in range(2):
            assert len(values(await ask(web, "many.example.test", tcp=True))) == 100
    transport.close()
    assert server.asked == ["udp many.example.test.", "tcp many.example.test."], (
        "a cut answer is not kept, a whole one is"
    )


async def test_many_containers_of_one_alias_are_all_told_by_tcp(host: Host) -> None:
    await make(host, "net1")
    for number in range(60):
        sandbox = await start(host, f"w{number}", on("net1", f"w{number}", aliases=["workers"]))
    assert (await ask(sandbox, "workers")).flags & dns.flags.TC
    assert len(values(await ask(sandbox, "workers", tcp=True))) == 60


async def test_an_answer_that_was_kept_repeats_the_askers_spelling(host: Host) -> None:
    """Resolvers that mix upper and lower case take no other answer for theirs."""
    await make(host, "net1")
    server = Elsewhere()
    async with await asyncio.start_server(server.talk, ELSEWHERE.format(79), 53):
        web = await host.networks.open_sandbox(cid("web"), [on("net1", "web")], [], dns=[ELSEWHERE.format(79)])
        for name in ("many.example.test.", "mAnY.eXample.test."):
            assert (await ask(web, name, tcp=True)).question[0].name.to_text() == name


# --- connections by TCP ---


def talk(sandbox: Sandbox) -> socket.socket:
    """A connection to the embedded DNS on which nothing is asked."""
    return inside(sandbox.netns, lambda: socket.create_connection(("127.0.0.11", 53), timeout=2))


async def still_open(talks: list[socket.socket]) -> list[bool]:
    """Which of them the other side has not ended, once it has had time to."""
    await asyncio.sleep(0.2)
    found = []
    for one in talks:
        one.setblocking(False)
        try:
            found.append(bool(one.recv(1)))
        except BlockingIOError:
            found.append(True)
        except ConnectionError:
            found.append(False)
    return found


async def test_a_container_holds_a_few_connections_by_tcp_and_the_oldest_gives_way(host: Host) -> None:
    await make(host, "net1")
    hostile, other = (
        await start(host, "hostile", on("net1", "hostile")),
        await start(host, "other", on("net1", "other")),
    )
    with contextlib.ExitStack() as held:
        quiet = [held.enter_context(closing(await asyncio.to_thread(talk, other)))]
        many = []
        for _ in range(3 * MAX_CONNECTIONS_PER_SANDBOX):
            many.append(held.enter_context(closing(await asyncio.to_thread(talk, hostile))))
        assert (
            await still_open(many) == [False] * 2 * MAX_CONNECTIONS_PER_SANDBOX + [True] * MAX_CONNECTIONS_PER_SANDBOX
        )
        assert await still_open(quiet) == [True]
        for sandbox in (hostile, other):
            assert values(await ask(sandbox, "other", tcp=True)) == {other.endpoints[0].ip_address}


async def test_all_containers_together_hold_no_more_connections_than_there_is_room_for(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)
    await make(host, "net1")
    sandboxes = [await start(host, name, on("net1", name)) for name in ("a", "b", "c")]
    with contextlib.ExitStack() as held:
        talks = [
            held.enter_context(closing(await asyncio.to_thread(talk, one))) for one in sandboxes for _ in range(10)
        ]
        assert await still_open(talks) == [False] * 10 + [True] * 20
        assert values(await ask(sandboxes[0], "b", tcp=True)) == {sandboxes[1].endpoints[0].ip_address}


# --- questions that others have to answer ---


@contextlib.contextmanager
def silent_server(address: str) -> Iterator[None]:
    """A name server that answers nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        yield


def flood(sandbox: Sandbox, count: int) -> socket.socket:
    """Ask for so many names of elsewhere at once; on the socket come the answers."""

    def send() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.connect(("127.0.0.11", 53))
        for number in range(count):
            sock.send(dns.message.make_query(f"n{number}.example.test", "A").to_wire())
            if number % 50 == 49:
                time.sleep(0.02)  # as many as the sockets' buffers hold
        return sock

    return inside(sandbox.netns, send)


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@contextlib.asynccontextmanager
async def server_that_takes(seconds: float, address: str) -> AsyncIterator[None]:
    class Slow(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            response = dns.message.make_response(query := dns.message.from_wire(data))
            response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "203.0.113.7"))
            asyncio.get_running_loop().call_later(seconds, self.transport.sendto, response.to_wire(), addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Slow, local_addr=(address, 53))
    try:
        yield
    finally:
        transport.close()


async def test_whatever_a_container_asks_for_it_takes_few_descriptors_and_others_are_answered(host: Host) -> None:
    await make(host, "net1")
    with silent_server(ELSEWHERE.format(80)):
        async with server_that_takes(0, ELSEWHERE.format(81)):
            hostile = await host.networks.open_sandbox(cid("bad"), [on("net1", "bad")], [], dns=[ELSEWHERE.format(80)])
            good = await host.networks.open_sandbox(cid("good"), [on("net1", "good")], [], dns=[ELSEWHERE.format(81)])
            before = count_descriptors()
            with closing(await asyncio.to_thread(flood, hostile, 1000)) as answers:
                await asyncio.sleep(0.2)
                assert MAX_FORWARDS_PER_SANDBOX <= count_descriptors() - before <= MAX_FORWARDS_PER_SANDBOX + 10
                assert values(await ask(good, "www.example.test", timeout_s=1)) == {"203.0.113.7"}
                assert values(await ask(hostile, "good", timeout_s=1)), "what needs nobody else is known"
                answers.settimeout(1)
                assert dns.message.from_wire(answers.recv(4096)).rcode() == dns.rcode.SERVFAIL, "told at once"


async def test_however_many_containers_ask_without_end_another_is_answered(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_limiter, "MAX_FORWARDS", 100)
    await make(host, "net1")
    with silent_server(ELSEWHERE.format(80)), contextlib.ExitStack() as held:
        async with server_that_takes(0.2, ELSEWHERE.format(81)):
            good = await host.networks.open_sandbox(cid("good"), [on("net1", "good")], [], dns=[ELSEWHERE.format(81)])
            hostile = [
                await host.networks.open_sandbox(cid(name), [on("net1", name)], [], dns=[ELSEWHERE.format(80)])
                for name in ("a", "b", "c")
            ]
            before = count_descriptors()
            for one in hostile:
                held.enter_context(closing(await asyncio.to_thread(flood, one, 200)))
            await asyncio.sleep(0.2)
            assert 100 <= count_descriptors() - before <= 120
            assert values(await ask(good, "www.example.test", timeout_s=1)) == {"203.0.113.7"}


async def test_many_questions_at_once_are_all_answered_where_somebody_answers(host: Host) -> None:
    await make(host, "net1")
    async with server_that_takes(0.1, ELSEWHERE.format(82)):
        web = await host.networks.open_sandbox(cid("web"), [on("net1", "web")], [], dns=[ELSEWHERE.format(82)])
        count = 3 * MAX_FORWARDS_PER_SANDBOX
        with closing(await asyncio.to_thread(flood, web, count)) as answers:
            await asyncio.sleep(1)
            answers.setblocking(False)
            told = [dns.message.from_wire(answers.recv(4096)) for _ in range(count)]
        assert all(values(one) == {"203.0.113.7"} for one in told)
