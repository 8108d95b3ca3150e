"""A host that forwards only because of containers: seen by two neighbours on two wires, with real packets."""

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
from network_helpers import echo_server, exchange, needs_network
from network_world import WIRES, World, open_world

from bennu.host.forwarding import TABLE
from support import images
from support.daemon import BENNU, Daemon
from support.waiting import wait_for

pytestmark = [needs_network, pytest.mark.slow]
SIX = ("--ipv6", "--subnet=10.218.7.0/24", "--subnet=fd00:218:7::/64")
RIGHT = {"IPv4": f"{WIRES['right'][0]}.2", "IPv6": f"{WIRES['right'][1]}:2"}
HOST = {"IPv4": f"{WIRES['left'][0]}.1", "IPv6": f"{WIRES['left'][1]}:1"}
BACK_S = 5.0


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("world")) as opened:
        yield opened


def reaches(path: str, address: str, port: int) -> bool:
    """By UDP: a host that does not forward may also say so."""
    try:
        return bool(exchange(path, address, port, "udp"))
    except OSError:
        return False


def is_router(world: World, family: str) -> bool:
    with echo_server(world.right, RIGHT[family], 7, "udp"):
        return reaches(world.left, RIGHT[family], 7)


def serve(daemon: Daemon, *options: str) -> None:
    busybox = images.import_base(daemon.docker, "busybox")
    echo = ("nc", "-ll", "-p", "7", "-e", "hostname")
    daemon.docker("run", "-d", "--name=one", "-p", "7000:7", *options, busybox, *echo)


def is_reached(world: World, family: str) -> bool:
    try:
        return bool(exchange(world.left, HOST[family], 7000))
    except OSError:
        return False


def ask_doctor(world: World, daemon: Daemon) -> dict[str, str]:
    """What doctor, on this host, finds of forwarding."""
    argv = ["nsenter", f"--net={world.host}", BENNU, "doctor", "--json"]
    done = subprocess.run(argv, env=daemon.environment, capture_output=True, check=False, timeout=60)
    found: dict[str, str]
    (found,) = [one for one in json.loads(done.stdout) if one["name"] == "ip_forward"]
    return found


def test_a_host_that_forwards_because_of_us_is_no_router_between_its_networks(
    make_daemon: Callable[..., Daemon], world: World
) -> None:
    daemon = make_daemon(program=world.program)
    daemon.docker("network", "create", *SIX, "six")
    serve(daemon, "--network=six")
    assert world.forwards() == ("1", "1")
    for family in RIGHT:
        wait_for(lambda family=family: is_reached(world, family), what="the published port")  # type: ignore[misc]
        assert not is_router(world, family), family
        with echo_server(world.right, RIGHT[family], 9):
            assert daemon.docker("exec", "one", "nc", RIGHT[family], "9").out, "a container reaches other hosts"
    finding = ask_doctor(world, daemon)
    assert "because of bennud (ipv4, ipv6)" in finding["text"]
    assert "ipv4.ip_forward was off and is switched on" in daemon.log()


@pytest.mark.parametrize("family", RIGHT)
def test_a_host_that_was_a_router_stays_one(make_daemon: Callable[..., Daemon], world: World, family: str) -> None:
    world.at("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    daemon = make_daemon(program=world.program)
    daemon.docker("network", "create", *SIX, "six")
    assert is_router(world, family)
    daemon.docker("network", "rm", "six")
    daemon.stop()
    assert is_router(world, family) and world.forwards() == ("1", "1")


def test_who_switched_it_on_is_known_to_every_daemon_and_over_its_death(
    make_daemon: Callable[..., Daemon], world: World
) -> None:
    """The first daemon does, and is killed; a second comes and goes; the first comes back, and is the last to go."""
    first = make_daemon(program=world.program)
    serve(first)
    first.kill()
    assert not is_router(world, "IPv4") and is_reached(world, "IPv4")
    second = make_daemon(program=world.program)
    assert not is_router(world, "IPv4") and is_reached(world, "IPv4")
    second.stop()
    assert not is_router(world, "IPv4") and is_reached(world, "IPv4")
    first.start()
    assert not is_router(world, "IPv4") and is_reached(world, "IPv4")
    first.docker("rm", "-f", "one")
    first.stop()
    assert world.forwards() == ("0", "0") and TABLE not in world.at("nft", "list", "ruleset")


def test_flushed_rules_and_forwarding_switched_off_are_put_right_and_it_is_no_router_meanwhile(
    make_daemon: Callable[..., Daemon], world: World
) -> None:
    daemon = make_daemon(program=world.program)
    serve(daemon)
    wait_for(lambda: is_reached(world, "IPv4"), what="the published port")
    world.at("nft", "delete", "table", "inet", TABLE)
    wait_for(lambda: TABLE in world.at("nft", "list", "tables"), timeout_s=BACK_S, what="the table")
    assert not is_router(world, "IPv4")
    world.at("sysctl", "-qw", "net.ipv4.ip_forward=0")
    wait_for(lambda: is_reached(world, "IPv4"), timeout_s=BACK_S + 2, what="the published port")
    assert not is_router(world, "IPv4")


def test_what_doctor_says_makes_the_host_a_router(make_daemon: Callable[..., Daemon], world: World) -> None:
    daemon = make_daemon(program=world.program)
    finding = ask_doctor(world, daemon)
    assert not is_router(world, "IPv4")
    world.at("sh", "-c", finding["cure"].partition("then ")[2])
    wait_for(lambda: is_router(world, "IPv4"), timeout_s=BACK_S + 2, what="the host to be a router")
    daemon.stop()
    assert world.forwards()[0] == "1"
