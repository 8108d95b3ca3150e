"""Connections from the host itself go straight to containers: seen in the kernel's table of sockets, with real ones."""

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from network_helpers import Host, echo_server, exchange, needs_network, open_host, open_neighbour

from bennu import bpf
from bennu.errors import BennuError
from bennu.host import FindingVerdict, forsaken
from bennu.host.kernel import check_connects
from bennu.network import EndpointRequest, PortRequest, Sandbox
from bennu.network.frontends import BackendPort, Frontend, ServiceBackend
from bennu.network.model import PortForward
from bennu.network.nat.nft import Firewall, FirewallFailure
from bennu.network.nat.rules import Ruleset
from bennu.network.socket_lb import socket_lb_bpf
from bennu.network.socket_lb.socket_lb_bpf import HOOKS, BpfSocketLb, program_mark, read_local_addresses
from support.traces import attached_programs, open_cgroup_root, programs_of

pytestmark = needs_network
IP_BIND_ADDRESS_NO_PORT = 24
ANY_1 = ("0.0.0.0", 1)
GUEST = "198.18.78.9"  # an address that this host has for a while


@pytest.fixture(autouse=True)
def _able() -> None:
    finding = check_connects()
    assert finding.verdict is FindingVerdict.OK
    if "straight" not in finding.text:
        pytest.skip(finding.text)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as opened:
        yield opened


async def publish(host: Host, name: str = "a", **more: object) -> tuple[Sandbox, str, int]:
    """A container with a published port 7; its address, and the port on the host."""
    request = PortRequest(container_port=7, **more)  # type: ignore[arg-type]
    endpoints = [EndpointRequest(network="bridge", container_name=name)]
    sandbox = await host.networks.open_sandbox(name * 12, endpoints, [request])
    return sandbox, sandbox.endpoints[0].ip_address, sandbox.ports[0].host_port


@contextlib.contextmanager
def connected(address: str, port: int, *, source: str = "") -> Iterator[socket.socket]:
    with socket.create_connection((address, port), timeout=2, source_address=(source, 0) if source else None) as sock:
        yield sock


def true_peer(sock: socket.socket) -> tuple[str, int]:
    """Whom it is connected to, whatever it is told."""
    own = sock.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_ = line.split()
        if int(local.partition(":")[2], 16) == own:
            ip, _, port = remote.partition(":")
            return socket.inet_ntoa(struct.pack("=I", int(ip, 16))), int(port, 16)
    raise AssertionError("the socket is not in the table")


async def test_a_local_client_is_connected_to_the_container_and_neither_side_notices(host: Host) -> None:
    sandbox, ip, port = await publish(host)
    gateway = sandbox.endpoints[0].gateway
    with echo_server(sandbox.netns, "0.0.0.0", 7):
        for asked, seen_as in (("127.0.0.1", gateway), ("127.9.9.9", gateway), (gateway, gateway)):
            with connected(asked, port) as sock:
                assert true_peer(sock) == (ip, 7)
                assert sock.getpeername() == (asked, port)
                assert sock.recv(100).decode() == f"{ip} heard {seen_as}"
        outside = host.own_address()
        with connected(outside, port) as sock:
            assert true_peer(sock) == (ip, 7)
            assert (sock.getpeername(), sock.getsockname()[0]) == ((outside, port), outside)
            assert sock.recv(100).decode() == f"{ip} heard {outside}", "as the rules would have it"


async def test_what_is_not_for_it_goes_its_own_way(host: Host) -> None:
    sandbox, ip, port = await publish(host)
    with echo_server(sandbox.netns, "0.0.0.0", 7):
        with connected(ip, 7) as sock:
            assert (true_peer(sock), sock.getpeername()) == ((ip, 7), (ip, 7)), "straight to the container"
        with connected("127.0.0.1", port, source="127.0.0.2") as sock:
            assert true_peer(sock) == ("127.0.0.1", port), "bound already: by the rules"
            assert sock.recv(100).startswith(ip.encode())
        with socket.socket() as sock:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((host.own_address(), 0))
            sock.connect((sandbox.endpoints[0].gateway, port))
            assert sock.recv(100).decode() == f"{ip} heard {host.own_address()}", "bound, without a port yet"
        with connected(host.own_address(), port, source=host.own_address()) as sock:
            assert true_peer(sock) == (host.own_address(), port), "bound already: by the rules"
            assert sock.recv(100).startswith(ip.encode())
        with socket.create_server(("127.0.0.1", 0)) as other, connected(*other.getsockname()) as sock:
            assert true_peer(sock) == other.getsockname(), "a program of the host"
        with open_neighbour(host.root, host.neighbour_address, host.neighbour_gateway) as path:
            with echo_server(path, "0.0.0.0", port), connected(host.neighbour_address, port) as sock:
                assert sock.recv(100).startswith(host.neighbour_address.encode()), "another host's port of that number"
            assert exchange(path, host.neighbour_gateway, port).startswith(ip), "another host's client"


async def test_a_port_of_one_address_is_a_way_from_there_alone(host: Host) -> None:
    sandbox, ip, port = await publish(host, host_ip="127.0.0.1")
    with echo_server(sandbox.netns, "0.0.0.0", 7):
        with connected("127.0.0.1", port) as sock:
            assert true_peer(sock) == (ip, 7)
        for elsewhere in ("127.0.0.2", host.own_address()):
            with pytest.raises(ConnectionRefusedError):
                exchange("", elsewhere, port)


async def test_other_network_namespaces_are_not_looked_at(host: Host) -> None:
    sandbox, _, port = await publish(host)
    with (
        echo_server(sandbox.netns, "0.0.0.0", 7),
        open_neighbour(host.root, host.neighbour_address, host.neighbour_gateway) as path,
        pytest.raises(ConnectionRefusedError),
    ):
        exchange(path, "127.0.0.1", port)


async def test_a_way_is_gone_with_its_port_and_comes_back_with_another_container(host: Host) -> None:
    port = host.free_port()
    fixed = {"host_port_first": port, "host_port_last": port}
    for name in "ab":
        sandbox, ip, _ = await publish(host, name, **fixed)
        with echo_server(sandbox.netns, "0.0.0.0", 7), connected("127.0.0.1", port) as sock:
            assert true_peer(sock) == (ip, 7)
            await host.networks.shut_ports(name * 12)
            with pytest.raises(ConnectionRefusedError):
                exchange("", "127.0.0.1", port)
            await host.networks.reopen_ports(name * 12)
            assert sock.recv(100).startswith(ip.encode())
            assert exchange("", "127.0.0.1", port).startswith(ip)
        await host.networks.close_sandbox(name * 12)
        with pytest.raises(ConnectionRefusedError):
            exchange("", "127.0.0.1", port)


async def test_tasks_of_a_service_take_turns_and_one_that_left_gets_none(host: Host) -> None:
    port, sandboxes = host.free_port(), [(await publish(host, name))[0] for name in "abc"]
    ips = [sandbox.endpoints[0].ip_address for sandbox in sandboxes]
    backends = [
        ServiceBackend(owner=ip, ip=ip, ports=(BackendPort(proto="tcp", published=port, target=7),)) for ip in ips
    ]
    with contextlib.ExitStack() as servers:
        for sandbox in sandboxes:
            servers.enter_context(echo_server(sandbox.netns, "0.0.0.0", 7))
        for serving in (backends, backends[:2], backends[1:], []):
            frontend = Frontend(service_id="s", ports=(("tcp", port),), backends=tuple(serving))
            host.networks.balancer.put(frontend)
            await host.networks.balancer.write("s")
            heard = []
            for _ in range(3 * len(serving)):
                with connected("127.0.0.1", port) as sock:
                    heard.append(true_peer(sock)[0])
            assert sorted(heard) == sorted(3 * [backend.ip for backend in serving])
        with pytest.raises(ConnectionRefusedError):
            exchange("", "127.0.0.1", port)
    host.networks.balancer.drop("s")
    await host.networks.balancer.write("s")


async def test_an_address_that_left_this_host_is_another_hosts_also_while_the_daemon_is_dead(host: Host) -> None:
    """It is looked up now and then only, but nobody is bound to an address that the host has not."""
    sandbox, ip, port = await publish(host)
    own("add")
    try:
        await host.networks.reconcile()
        await host.networks.close(remove=False)
        with echo_server(sandbox.netns, "0.0.0.0", 7), connected(GUEST, port) as sock:
            assert true_peer(sock) == (ip, 7)
    finally:
        own("del")
    with (
        open_neighbour(host.root, GUEST, "198.18.78.1") as path,
        echo_server(path, "0.0.0.0", port),
        connected(GUEST, port) as sock,
    ):
        assert sock.recv(100).startswith(GUEST.encode())


async def test_addresses_that_nobody_confirmed_are_for_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_lb_bpf, "LOCAL_ADDRESS_TTL_S", 0.0)
    async with open_host(tmp_path) as host:
        sandbox, ip, port = await publish(host)
        with echo_server(sandbox.netns, "0.0.0.0", 7):
            with connected(host.own_address(), port) as sock:
                assert true_peer(sock) == (host.own_address(), port)
                assert sock.recv(100).startswith(ip.encode())
            with connected("127.0.0.1", port) as sock:
                assert true_peer(sock) == (ip, 7), "loopback needs nobody's word"


def own(action: str) -> None:
    subprocess.run(["ip", "addr", action, f"{GUEST}/32", "dev", "lo"], check=True)


def test_own_addresses_are_all_of_ipv4() -> None:
    own("add")
    try:
        words = ["ip", "-json", "-4", "addr"]
        listed = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        expected = {socket.inet_aton(one["local"]) for link in listed for one in link.get("addr_info", ())}
        assert read_local_addresses() == expected
        assert socket.inet_aton(GUEST) in expected
    finally:
        own("del")


async def test_the_programs_outlive_the_daemon_and_the_next_one_replaces_them(host: Host) -> None:
    sandbox, ip, port = await publish(host)
    await host.networks.close(remove=False)
    assert programs_of(host.root / "data") == len(HOOKS)
    with echo_server(sandbox.netns, "0.0.0.0", 7):
        with connected("127.0.0.1", port) as sock:
            assert true_peer(sock) == (ip, 7)
        await host.reopen({"a" * 12: sandbox})
        assert programs_of(host.root / "data") == len(HOOKS)
        with connected("127.0.0.1", port) as sock:
            assert true_peer(sock) == (ip, 7)
    await host.networks.close_sandbox("a" * 12)
    with pytest.raises(ConnectionRefusedError):
        exchange("", "127.0.0.1", port)


async def test_a_daemon_that_has_it_off_detaches_what_an_earlier_one_left(host: Host) -> None:
    sandbox, ip, port = await publish(host)
    await host.networks.close(remove=False)
    assert programs_of(host.root / "data") == len(HOOKS)
    await host.reopen({"a" * 12: sandbox}, socket_lb=False)
    assert programs_of(host.root / "data") == 0
    with echo_server(sandbox.netns, "0.0.0.0", 7), connected("127.0.0.1", port) as sock:
        assert true_peer(sock) == ("127.0.0.1", port), "by the rules"
        assert sock.recv(100).startswith(ip.encode())


async def test_two_daemons_do_not_touch_each_others_programs(host: Host, tmp_path: Path) -> None:
    sandbox, ip, port = await publish(host)
    async with open_host(tmp_path / "other") as other:
        theirs, their_ip, their_port = await publish(other)
        with echo_server(sandbox.netns, "0.0.0.0", 7), echo_server(theirs.netns, "0.0.0.0", 7):
            for number, address in ((port, ip), (their_port, their_ip)):
                with connected("127.0.0.1", number) as sock:
                    assert true_peer(sock) == (address, 7)
    with echo_server(sandbox.netns, "0.0.0.0", 7), connected("127.0.0.1", port) as sock:
        assert true_peer(sock) == (ip, 7)


async def test_when_the_kernel_refuses_the_rules_do_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bpf.SYSCALL, bpf.platform.machine(), -1)  # no system call has this number
    async with open_host(tmp_path) as host:
        sandbox, ip, port = await publish(host)
        with echo_server(sandbox.netns, "0.0.0.0", 7), connected("127.0.0.1", port) as sock:
            assert true_peer(sock) == ("127.0.0.1", port)
            assert sock.recv(100).startswith(ip.encode())
    assert "a little slower (Function not implemented)" in check_connects().text


async def test_a_failed_start_leaves_nothing_published(host: Host) -> None:
    _, _, port = await publish(host)
    with pytest.raises(BennuError):
        await publish(host, "b", host_port_first=port, host_port_last=port)
    await host.networks.close_sandbox("a" * 12)
    with pytest.raises(ConnectionRefusedError):
        exchange("", "127.0.0.1", port)


async def test_nothing_is_left_of_one_that_was_removed_or_could_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_files()
    one = BpfSocketLb("bennu_test", tmp_path)
    await one.open()
    one.publish({ANY_1: (("10.0.0.2", 80),)})
    await one.refresh_local_addresses()
    assert (one.published(), programs_of(tmp_path)) == ([ANY_1], len(HOOKS))
    await one.remove()
    assert (open_files(), programs_of(tmp_path)) == (before, 0)
    monkeypatch.setattr(socket_lb_bpf, "HOOKS", (bpf.INET4_CONNECT, 250))  # the kernel knows no such hook
    other = BpfSocketLb("bennu_test", tmp_path)
    await other.open()
    other.publish({ANY_1: (("10.0.0.2", 80),)})
    assert (other.published(), other.is_open) == ([], False)
    monkeypatch.undo()
    assert (open_files(), programs_of(tmp_path)) == (before, 0)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_programs_of_a_daemon_that_is_gone_with_its_root_are_taken_away_by_the_next_and_by_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "living").mkdir()
    living = BpfSocketLb("bennu_living", tmp_path / "living")
    await living.open()
    await living.refresh_local_addresses()
    files = open_files()
    try:
        gone = [await leave_programs(tmp_path, name, monkeypatch) for name in ("one", "other")]
        assert sorted(name for name in all_programs() if name in gone) == sorted(gone * len(HOOKS))
        for name in ("one", "other"):
            (tmp_path / name).rmdir()
        monkeypatch.setattr(forsaken, "SILENT_S", 0.0)
        assert "took away" in forsaken.check_forsaken().text
        assert not {*gone} & {*all_programs()}
        assert open_files() == files
        last = await leave_programs(tmp_path, "last", monkeypatch)
        following = BpfSocketLb("bennu_following", tmp_path)
        await following.open()
        await following.remove()
        assert last not in all_programs()
        assert programs_of(tmp_path / "living") == len(HOOKS)
        assert "no program" in forsaken.check_forsaken().text
        # One that died before it said anything, and one that has just begun: the time of loading tells them apart.
        starting = BpfSocketLb("bennu_starting", tmp_path)
        await starting.open()
        starting.close()
        monkeypatch.setattr(forsaken, "SILENT_S", 60.0)
        assert "no program" in forsaken.check_forsaken().text
        assert programs_of(tmp_path) == len(HOOKS)
        monkeypatch.setattr(forsaken, "SILENT_S", 0.0)
        assert "took away" in forsaken.check_forsaken().text
        assert programs_of(tmp_path) == 0
    finally:
        await living.remove()


async def leave_programs(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """As a daemon does that was killed long ago; what they are called."""
    root = folder / name
    root.mkdir()
    dead = BpfSocketLb(f"bennu_{name}", root)
    with monkeypatch.context() as believed_no_longer:
        believed_no_longer.setattr(socket_lb_bpf, "LOCAL_ADDRESS_TTL_S", 0.0)
        await dead.open()
        await dead.refresh_local_addresses()
    dead.close()
    return program_mark(f"bennu_{name}", root).name


def all_programs() -> list[str]:
    return [name for hook in HOOKS for name in attached_programs(hook)]


async def test_one_that_never_began_removes_what_its_predecessor_left(tmp_path: Path) -> None:
    dead = BpfSocketLb("bennu_test", tmp_path)
    await dead.open()
    dead.close()
    assert programs_of(tmp_path) == len(HOOKS)
    await BpfSocketLb("bennu_test", tmp_path).remove()
    assert programs_of(tmp_path) == 0


async def test_a_data_root_made_anew_and_a_network_of_ones_own_hide_no_predecessor(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    dead = BpfSocketLb("bennu_test", root)
    await dead.open()
    dead.close()
    for table, place in (("bennu_test", tmp_path), ("bennu_elsewhere", root)):  # as in another network: another table
        assert program_mark(table, place).is_ours(program_mark("bennu_test", root).name)
    assert not program_mark("bennu_elsewhere", tmp_path).is_ours(program_mark("bennu_test", root).name)
    root.rmdir()
    await BpfSocketLb("bennu_test", tmp_path).remove()
    with open_cgroup_root() as cgroup:
        assert cgroup is not None
        assert not any(program_mark("bennu_test", tmp_path).is_ours(name) for name in attached_programs(HOOKS[0]))


class Watching(BpfSocketLb):
    """Notes what the kernel's table says when backends are withdrawn, and when they are published."""

    def __init__(self, table: str, root: Path) -> None:
        super().__init__(table, root)
        self.seen: list[tuple[str, bool, list[tuple[str, int]]]] = []

    def withdraw(self, *words: object) -> None:
        super().withdraw(*words)  # type: ignore[arg-type]
        self.note("withdrawn")

    def publish(self, *words: object) -> None:
        self.note("before published")
        super().publish(*words)  # type: ignore[arg-type]

    def note(self, when: str) -> None:
        words = ["nft", "list", "table", "inet", "bennu_watching"]
        listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        self.seen.append((when, "10.0.0.2 . 80" in listed, self.published()))


async def test_backends_are_withdrawn_before_the_rules_change_and_published_after(tmp_path: Path) -> None:
    ports: set[PortForward] = set()
    watching = Watching("bennu_watching", tmp_path)
    firewall = Firewall("bennu_watching", watching, lambda: Ruleset((), frozenset(ports)))
    try:
        await firewall.apply()
        watching.seen.clear()
        ports.add(PortForward("tcp", "0.0.0.0", 1, "10.0.0.2", 80))
        await firewall.apply()
        assert watching.seen == [("withdrawn", False, []), ("before published", True, [])]
        assert watching.published() == [ANY_1]
        watching.seen.clear()
        ports.clear()
        await firewall.apply()
        assert watching.seen == [("withdrawn", True, []), ("before published", False, [])]
        ports.add(PortForward("tcp", "0.0.0.0", 1, "10.0.0.2", 80))
        await firewall.apply()
        ports.add(PortForward("tcp", "0.0.0.0", 1, "not an address", 80))
        with pytest.raises(FirewallFailure):
            await firewall.apply()
        assert watching.published() == [], "what is not sure is for the rules"
    finally:
        await firewall.remove()


async def test_a_service_that_takes_a_containers_port_has_its_local_clients_too(host: Host) -> None:
    """The rules ask for services first; two may be told to publish one port."""
    sandbox, ip, port = await publish(host, "a", host_ip="127.0.0.1")
    task, task_ip, _ = await publish(host, "b")
    with echo_server(sandbox.netns, "0.0.0.0", 7), echo_server(task.netns, "0.0.0.0", 7):
        assert exchange("", "127.0.0.1", port).startswith(ip)
        backend = ServiceBackend(owner="b", ip=task_ip, ports=(BackendPort(proto="tcp", published=port, target=7),))
        for backends in ((backend,), ()):
            host.networks.balancer.put(Frontend(service_id="s", ports=(("tcp", port),), backends=backends))
            await host.networks.balancer.write("s")
            if backends:
                assert exchange("", "127.0.0.1", port).startswith(task_ip)
            else:
                with pytest.raises(ConnectionRefusedError):
                    exchange("", "127.0.0.1", port)
        host.networks.balancer.drop("s")
        await host.networks.balancer.write("s")
        with connected("127.0.0.1", port) as sock:
            assert true_peer(sock) == (ip, 7)
