"""A container's places on networks: what connects to what, and what an endpoint may be asked to be."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support import images
from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for

HTTPD = ("sh", "-c", "mkdir -p /w && hostname > /w/index.html && exec httpd -f -p 80 -h /w")
SLEEP = ("sleep", "600")
NAMELESS = r"printf '\377)' > /proc/1/comm; echo renamed; while :; do sleep 0.1; done"  # no UTF-8


@pytest.fixture(autouse=True)
def no_networks_left(docker: Cli) -> Iterator[None]:
    yield
    for name in docker("ps", "-aq").lines:
        docker("rm", "-f", name)
    for name in docker("network", "ls", "-q", "--filter", "type=custom").lines:
        docker("network", "rm", name)


def networks(docker: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name).out)
    return found


def interfaces(docker: Cli, name: str) -> list[str]:
    return docker("exec", name, "ls", "/sys/class/net").lines


def test_a_container_may_leave_the_network_none_for_others_and_come_back(docker: Cli, busybox: str) -> None:
    docker("network", "create", "front")
    docker("run", "-d", "--name", "box", "--network", "none", busybox, *SLEEP)
    assert networks(docker, "box")["none"]["EndpointID"]
    assert docker("network", "inspect", "-f", "{{range .Containers}}{{.Name}}{{end}}", "none").line == "box"
    refused = docker("network", "connect", "front", "box", ok=False)
    assert "one of the networks in private (none) mode" in refused.err
    docker("network", "disconnect", "none", "box")
    assert networks(docker, "box") == {} and interfaces(docker, "box") == ["lo"]
    docker("network", "connect", "front", "box")
    assert set(networks(docker, "box")) == {"front"} and interfaces(docker, "box") == ["eth0", "lo"]
    docker("restart", "-t", "0", "box")
    assert set(networks(docker, "box")) == {"front"} and interfaces(docker, "box") == ["eth0", "lo"]
    docker("network", "disconnect", "front", "box")
    docker("network", "connect", "none", "box")
    assert set(networks(docker, "box")) == {"none"} and interfaces(docker, "box") == ["lo"]


def test_a_container_in_the_hosts_network_has_an_endpoint_there_and_stays(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "box", "--network", "host", "--hostname", "its-own", busybox, *SLEEP)
    endpoint = networks(docker, "box")["host"]
    shown = json.loads(docker("network", "inspect", "-f", "{{json .Containers}}", "host").out)
    assert [one["EndpointID"] for one in shown.values()] == [endpoint["EndpointID"]]
    assert endpoint["EndpointID"] and endpoint["IPAddress"] == ""
    assert docker("exec", "box", "hostname").line == "its-own", "only the network is the host's"
    for words, text in (
        (("disconnect", "host", "box"), "cannot disconnect container from host network - container was created in"),
        (("disconnect", "-f", "host", "box"), "cannot disconnect container from host network"),
        (("connect", "bridge", "box"), "container sharing network namespace with another container or host cannot be"),
        (("disconnect", "bridge", "box"), "is not connected to network bridge"),
        (("disconnect", "-f", "bridge", "nosuch"), "endpoint nosuch not found"),
        (("disconnect", "bridge", "nosuch"), "No such container: nosuch"),
    ):
        said = docker("network", *words, ok=False)
        assert said.code == 1 and text in said.err, words


def test_an_interface_has_the_name_the_sysctls_and_the_further_addresses_that_are_asked_for(
    docker: Cli, busybox: str
) -> None:
    option = "com.docker.network.endpoint"
    for number in (1, 2, 3):
        docker("network", "create", "--subnet", f"10.214.2{number}.0/24", f"net{number}")
    first = f"name=net1,driver-opt={option}.ifname=eth1,driver-opt={option}.sysctls=net.ipv4.conf.IFNAME.forwarding=0"
    ask = ("--network", first, "--network", "name=net2,link-local-ip=169.254.8.8")
    docker("run", "-d", "--name", "box", *ask, busybox, *SLEEP)

    def address(interface: str) -> str:
        return docker("exec", "box", "ip", "-4", "-o", "addr", "show", interface).out

    assert "inet 10.214.21.2/24" in address("eth1") and "inet 10.214.22.2/24" in address("eth0")
    assert "inet 169.254.8.8/16" in address("eth0")
    assert networks(docker, "box")["net2"]["IPAMConfig"] == {"LinkLocalIPs": ["169.254.8.8"]}
    sysctl = ("exec", "box", "cat", "/proc/sys/net/ipv4/conf/eth1/forwarding")
    assert docker(*sysctl).line == "0"
    docker("network", "connect", "net3", "box")
    assert "inet 10.214.23.2/24" in address("eth2")
    docker("network", "disconnect", "net2", "box")
    docker("network", "disconnect", "net3", "box")
    docker("network", "connect", "net3", "box")
    assert "inet 10.214.23.2/24" in address("eth0"), "the first name that is free"
    taken = docker("network", "connect", "--driver-opt", f"{option}.ifname=eth1", "net2", "box", ok=False)
    assert "error renaming interface" in taken.err and "file exists" in taken.err
    assert set(networks(docker, "box")) == {"net1", "net3"}
    docker("restart", "-t", "0", "box")
    assert "inet 10.214.21." in address("eth1") and docker(*sysctl).line == "0"
    only = f"name=net2,driver-opt={option}.ifname=uplink"
    assert docker("run", "--rm", "--network", only, busybox, "ls", "/sys/class/net").lines == ["lo", "uplink"]
    for bad, text in (
        (
            f"{option}.sysctls=net.ipv4.conf.eth0.forwarding=0",
            "unrecognised network interface sysctl 'net.ipv4.conf.eth0",
        ),
        (f"{option}.sysctls=net.ipv4.conf.IFNAME.nosuch=0", "cannot set the sysctl net.ipv4.conf.eth0.nosuch"),
        (f"{option}.ifname=a/b", "invalid interface name 'a/b'"),
    ):
        said = docker("run", "--rm", "--network", f"name=net2,driver-opt={bad}", busybox, "true", ok=False)
        assert said.code == 125 and text in said.err


def test_a_network_may_say_what_the_names_of_interfaces_begin_with(docker: Cli, busybox: str) -> None:
    docker("network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "named")
    docker("network", "create", "plain")
    ask = ("--network", "named", "--network", "plain")
    assert docker("run", "--rm", *ask, busybox, "ls", "/sys/class/net").lines == ["eth0", "lan0", "lo"]


def test_a_container_without_ipv6_has_no_address_of_it_anywhere(docker: Cli, busybox: str) -> None:
    docker("network", "create", "--ipv6", "--subnet", "fd00:214:8::/64", "six")
    off = ("--sysctl", "net.ipv6.conf.all.disable_ipv6=1")
    docker("run", "-d", "--name", "four", "--network", "six", *off, busybox, *SLEEP)
    assert networks(docker, "four")["six"]["GlobalIPv6Address"] == ""
    assert ":" not in docker("exec", "four", "cat", "/etc/hosts").out
    docker("run", "-d", "--name", "both", "--network", "six", busybox, *SLEEP)
    assert networks(docker, "both")["six"]["GlobalIPv6Address"] in docker("exec", "both", "cat", "/etc/hosts").out
    found = docker("exec", "both", "ping", "-6", "-c1", "-W1", "four", ok=False)
    assert "bad address" in found.err, "its name has no address of that family"


def test_a_change_of_networks_leaves_what_the_container_wrote_into_its_files(docker: Cli, busybox: str) -> None:
    docker("network", "create", "front")
    docker("run", "-d", "--name", "box", busybox, *SLEEP)
    docker("exec", "box", "sh", "-c", "echo 192.0.2.1 mine >> /etc/hosts")
    docker("network", "connect", "front", "box")
    hosts = docker("exec", "box", "cat", "/etc/hosts").out
    assert "192.0.2.1 mine\n" in hosts and networks(docker, "box")["front"]["IPAddress"] in hosts
    assert "nameserver 127.0.0.11" in docker("exec", "box", "cat", "/etc/resolv.conf").lines
    docker("exec", "box", "sh", "-c", "echo nameserver 192.0.2.53 > /etc/resolv.conf")
    docker("network", "disconnect", "front", "box")
    assert docker("exec", "box", "cat", "/etc/resolv.conf").line == "nameserver 192.0.2.53"
    assert "192.0.2.1 mine\n" in docker("exec", "box", "cat", "/etc/hosts").out


def test_a_network_may_go_with_the_last_output_of_the_container_on_it(docker: Cli, busybox: str) -> None:
    for turn in range(5):
        docker("network", "create", f"brief{turn}")
        docker("run", "--name", f"last{turn}", "--network", f"brief{turn}", busybox, "echo", "done")
        docker("network", "rm", f"brief{turn}")
    network_id = docker("network", "create", "kept").line
    docker("run", "-d", "--name", "box", "--network", network_id[:10], busybox, "sh", "-c", NAMELESS)
    wait_for(lambda: docker("logs", "box").out)
    assert list(networks(docker, "box")) == ["kept"], "whatever it was called"
    refused = docker("network", "rm", "kept", ok=False)
    assert 'network kept has active endpoints (name:"box"' in refused.err
    docker("stop", "-t", "0", "box")
    docker("network", "connect", "--alias", "shop", "kept", "box")
    docker("start", "box")
    assert networks(docker, "box")["kept"]["Aliases"] == ["shop"], "connected anew, not twice"
    docker("network", "disconnect", "kept", "box")
    assert networks(docker, "box") == {}


def test_who_takes_over_an_address_is_known_to_its_neighbours_at_once(docker: Cli, busybox: str) -> None:
    docker("network", "create", "--ipv6", "--subnet", "10.214.9.0/24", "--subnet", "fd00:214:9::/64", "front")
    docker("run", "-d", "--name", "near", "--network", "front", busybox, *SLEEP)

    def take_over(mac: str) -> None:
        docker("rm", "-f", "far", ok=False)
        address = ("--ip", "10.214.9.22", "--ip6", "fd00:214:9::22", "--mac-address", mac)
        docker("run", "-d", "--name", "far", "--network", "front", *address, busybox, *SLEEP)

    def known() -> list[str]:
        lines = [line.split() for line in docker("exec", "near", "ip", "neigh", "show").lines]
        return [words[4] for words in lines if words[0] in ("10.214.9.22", "fd00:214:9::22") and len(words) > 4]

    take_over("02:11:22:33:44:01")
    for family in ("-4", "-6"):
        docker("exec", "near", "ping", family, "-c1", "-W2", "far")
    assert known() == ["02:11:22:33:44:01"] * 2
    take_over("02:11:22:33:44:02")
    assert known() == ["02:11:22:33:44:02"] * 2


def test_links_and_the_hosts_gateway_on_a_daemon_that_keeps_containers_apart(
    make_daemon: Callable[..., Daemon],
) -> None:
    gateways = ["--host-gateway-ip=192.0.2.9", "--host-gateway-ip=2001:db8::9"]
    daemon = make_daemon(options=["--icc=false", *gateways])
    docker, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")
    docker("network", "create", "--internal", "inner")
    for network in ("bridge", "inner", "none", "host"):
        ask = ("--network", network, "--add-host", "gw:host-gateway")
        said = docker("run", "--rm", *ask, busybox, "grep", "gw$", "/etc/hosts")
        assert said.lines == ["192.0.2.9\tgw", "2001:db8::9\tgw"], network

    docker("run", "-d", "--name", "db", "--expose", "80", busybox, *HTTPD)
    docker("run", "-d", "--name", "apart", busybox, *SLEEP)
    docker("run", "-d", "--name", "web", "--link", "db:store", busybox, *SLEEP)

    def reaches(name: str, host: str) -> bool:
        return docker("exec", name, "timeout", "2", "wget", "-qO-", f"http://{host}/", ok=False).code == 0

    address = docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "db").line
    assert reaches("web", "store") and not reaches("apart", address)
    assert docker("inspect", "-f", "{{.HostConfig.Links}}", "web").line == "[/db:/web/store]"
    docker("rename", "db", "base")
    docker("rename", "web", "shop")
    assert docker("inspect", "-f", "{{.HostConfig.Links}}", "shop").line == "[/base:/shop/store]"
    assert docker("inspect", "-f", "{{.Name}}", "shop/store").line == "/base"
    assert docker("ps", "--no-trunc", "--filter", "name=store", "--format", "{{.Names}}").line == "base,shop/store"
    for name in ("host", "none"):
        docker("run", "-d", "--name", f"on-{name}", "--network", name, busybox, *SLEEP)
    docker("network", "create", "plain")
    named = "name=plain,driver-opt=com.docker.network.endpoint.ifname=uplink,link-local-ip=169.254.8.8"
    docker("run", "-d", "--name", "on-plain", "--network", named, busybox, *SLEEP)
    before = {name: networks(docker, f"on-{name}") for name in ("host", "none", "plain")}
    daemon.kill()
    daemon.start()
    assert {name: networks(docker, f"on-{name}") for name in before} == before
    docker("network", "disconnect", "none", "on-none")
    docker("network", "connect", "plain", "on-none")
    assert interfaces(docker, "on-none") == ["eth0", "lo"]
    docker("network", "disconnect", "plain", "on-plain")
    assert interfaces(docker, "on-plain") == ["lo"]
    docker("rm", "-f", "on-host", "on-none", "on-plain")
    assert docker("network", "inspect", "-f", "{{.Containers}}", "host").line == "map[]"
    assert reaches("shop", "store")
    docker("stop", "-t", "0", "base")
    docker("run", "-d", "--name", "other", busybox, *HTTPD)

    def has_the_address() -> bool:
        """An address is free again soon after its container has stopped, and the lowest one is taken first."""
        if networks(docker, "other")["bridge"]["IPAddress"] == address:
            return True
        docker("restart", "-t", "0", "other")
        return False

    wait_for(has_the_address, what="the address of who stopped")
    assert not reaches("shop", address)
    docker("start", "base")
    wait_for(lambda: reaches("shop", "store"), what="the link to follow")
    refused = docker("rm", "--link", "shop", ok=False)
    assert "Conflict, cannot remove the default link name of the container" in refused.err
    docker("rm", "--link", "shop/store")
    address = docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "base").line
    assert not reaches("shop", address)
    assert "store" not in docker("exec", "shop", "cat", "/etc/hosts").out
    assert docker("inspect", "-f", "{{.HostConfig.Links}}", "shop").line == "[]"
    assert docker("inspect", "-f", "{{.State.Running}}", "shop", "base").lines == ["true", "true"]
