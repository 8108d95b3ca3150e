"""The kernel's knobs: of the interfaces that we make, and what of the host's own we touch for how long."""

from collections.abc import Callable, Iterator

import pytest
from network_helpers import needs_network
from network_world import World, changed, open_world

from support import images, traces
from support.daemon import Daemon
from support.waiting import wait_for

pytestmark = [needs_network, pytest.mark.slow]
SIX = ("--ipv6", "--subnet=10.218.6.0/24", "--subnet=fd00:218:6::/64")
# Sends what a router would, as the network's neighbours hear it: "I am the way out, and this is your prefix".
ADVERTISE = """
import socket, struct
def checksum(data):
    total = sum(struct.unpack(f'>{len(data) // 2}H', data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('eth0', 0))
mac = wire.getsockname()[4]
ends = socket.inet_pton(socket.AF_INET6, 'fe80::bad') + socket.inet_pton(socket.AF_INET6, 'ff02::1')
body = struct.pack('>BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0)
body += struct.pack('>BB', 1, 1) + mac
body += struct.pack('>BBBBIII', 3, 4, 64, 0xc0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, 'fd00:bad::')
body = body[:2] + struct.pack('>H', checksum(ends + struct.pack('>IxxxB', len(body), 58) + body)) + body[4:]
packet = struct.pack('>IHBB', 6 << 28, len(body), 58, 255) + ends + body
wire.send(bytes.fromhex('333300000001') + mac + b'\\x86\\xdd' + packet)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("world")) as opened:
        yield opened


@pytest.mark.parametrize("options", [(), SIX], ids=["IPv4", "IPv6"])
def test_a_router_advertisement_from_a_container_gives_the_host_no_route_and_no_address(
    make_daemon: Callable[..., Daemon], world: World, options: tuple[str, ...]
) -> None:
    daemon = make_daemon(program=world.program)
    cli, python = daemon.docker, images.import_base(daemon.docker, "python")
    cli("network", "create", *options, "net")
    for network in ("bridge", "net"):
        cli("run", "--rm", f"--network={network}", python, "python3", "-c", ADVERTISE)
    assert "bad" not in world.at("ip", "-6", "route") + world.at("ip", "-6", "addr")
    assert "proto ra" not in world.at("ip", "-6", "route", "show", "table", "all")


def test_what_we_make_listens_to_no_router_and_goes_without_ipv6_unless_it_was_asked_for(
    make_daemon: Callable[..., Daemon], world: World
) -> None:
    daemon = make_daemon(program=world.program)
    cli, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")
    names = {
        "bridge": f"bennu-{traces.tag_of(daemon)}",
        **{net: f"br-{cli('network', 'create', *words, net).line[:12]}" for net, words in (("v4", ()), ("v6", SIX))},
        "closed": f"br-{cli('network', 'create', '--internal', 'closed').line[:12]}",
    }
    for network in names:
        cli("run", "-d", f"--name=in-{network}", f"--network={network}", busybox, "sleep", "1000")
    knobs = world.sysctls()
    for network, bridge in names.items():
        found = {knob: knobs[f"ipv6/conf/{bridge}/{knob}"] for knob in ("accept_ra", "accept_redirects", "autoconf")}
        assert set(found.values()) == {"0"}, (network, found)
        assert knobs[f"ipv6/conf/{bridge}/disable_ipv6"] == str(int(network != "v6"))
        assert knobs[f"ipv4/conf/{bridge}/accept_redirects"] == "0"
        assert knobs[f"ipv4/conf/{bridge}/route_localnet"] == str(int(network != "closed"))
    mark = f"ipv6/conf/vb{traces.tag_of(daemon)[:5]}"
    ends = [name.split("/")[2] for name in knobs if name.startswith(mark) and name.endswith("/disable_ipv6")]
    assert len(ends) > len(names), "those of containers, and those kept ready"
    for end in ends:
        assert knobs[f"ipv6/conf/{end}/disable_ipv6"] == "1" and knobs[f"ipv6/conf/{end}/accept_ra"] == "0"
    inside = ("exec", "in-v6", "sh", "-c", "cd /proc/sys/net/ipv6/conf/eth0; cat accept_ra accept_redirects autoconf")
    assert cli(*inside).lines == ["0", "0", "0"]


def test_of_the_hosts_own_knobs_only_forwarding_is_touched_and_all_are_as_before_when_we_are_gone(
    make_daemon: Callable[..., Daemon], world: World
) -> None:
    world.at("sysctl", "-qw", "net.ipv6.conf.left.accept_ra=1", "net.ipv4.conf.all.accept_redirects=0")
    world.at("sysctl", "-qw", "net.ipv4.conf.right.forwarding=1", "net.ipv6.conf.right.accept_ra=0")
    before = world.sysctls()
    daemon = make_daemon(program=world.program)
    cli, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")

    hosts = ("all", "default", "left", "lo", "right")

    def differences() -> dict[str, str]:
        return changed(before, world.sysctls(), but_of=lambda name: name not in hosts)

    v4 = {"ipv4/ip_forward": "1", **{f"ipv4/conf/{name}/forwarding": "1" for name in hosts if name != "right"}}
    assert differences() == v4
    cli("network", "create", *SIX, "six")
    v6 = {f"ipv6/conf/{name}/forwarding": "1" for name in hosts}
    listening = {f"ipv6/conf/{name}/accept_ra": "2" for name in hosts if before[f"ipv6/conf/{name}/accept_ra"] == "1"}
    listening.pop("ipv6/conf/all/accept_ra", None)
    assert "ipv6/conf/left/accept_ra" in listening
    assert differences() == {**v4, **v6, **listening}
    cli("run", "-d", "--name=one", "--network=six", "-p", "80", busybox, "sleep", "1000")
    assert differences() == {**v4, **v6, **listening}
    cli("rm", "-f", "one")
    cli("network", "rm", "six")
    daemon.stop()
    assert differences() == {}


def test_a_knob_that_somebody_turned_is_turned_back(make_daemon: Callable[..., Daemon], world: World) -> None:
    daemon = make_daemon(program=world.program)
    bridge = f"bennu-{traces.tag_of(daemon)}"
    knobs = [f"net.ipv6.conf.{bridge}.accept_ra", f"net.ipv6.conf.{bridge}.disable_ipv6"]
    world.at("sysctl", "-qw", f"{knobs[0]}=1", f"{knobs[1]}=0")
    wait_for(lambda: world.at("sysctl", "-n", *knobs).split() == ["0", "1"], timeout_s=5.0, what="the knobs")
