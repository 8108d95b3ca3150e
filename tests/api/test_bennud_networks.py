"""What bennud's options say of networks and names, seen from inside of containers."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from support import images
from support.daemon import Daemon
from support.traces import programs_of

HTTPD = ("sh", "-c", "mkdir /w && hostname > /w/index.html && exec httpd -f -p 80 -h /w")
MTU = ("cat", "/sys/class/net/eth0/mtu")


@pytest.mark.slow
def test_options_hold_for_the_default_bridge_and_new_networks(make_daemon: Callable[..., Daemon]) -> None:
    options = ["--bip=10.215.7.1/24", "--mtu=1400", "--ip=127.0.0.1", "--icc=false", "--ip-masq=false"]
    daemon = make_daemon(options=[*options, "--default-address-pool", "base=10.215.64.0/20,size=24"])
    cli, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")
    cli("run", "-d", "--name=web", "-p", "80", busybox, *HTTPD)
    assert cli("exec", "web", *MTU).line == "1400"
    (binding,) = json.loads(cli("inspect", "web").out)[0]["NetworkSettings"]["Ports"]["80/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    address = cli("exec", "web", "hostname", "-i").line
    assert address.startswith("10.215.7.")
    ask = ("sh", "-c", f"timeout 2 wget -qO- http://{address}/ || echo nothing")
    assert cli("run", "--rm", busybox, *ask).line == "nothing"
    assert cli("exec", "web", *ask).line != "nothing", "nobody would have answered"
    shown = json.loads(cli("network", "inspect", "bridge").out)[0]["Options"]
    assert shown["com.docker.network.bridge.enable_icc"] == "false"
    assert shown["com.docker.network.bridge.enable_ip_masquerade"] == "false"

    cli("network", "create", "own")
    (pool,) = json.loads(cli("network", "inspect", "own").out)[0]["IPAM"]["Config"]
    assert pool["Subnet"] == "10.215.64.0/24"
    cli("run", "-d", "--name=peer", "--network=own", busybox, *HTTPD)
    assert cli("run", "--rm", "--network=own", busybox, "wget", "-qO-", "http://peer/").line


@pytest.mark.slow
def test_without_the_socket_load_balancer_ports_of_containers_and_services_are_reached_on_loopback(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(options=["--socket-lb=false"])
    cli, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")
    cli("run", "-d", "--name=web", "-p", "80", busybox, *HTTPD)
    cli("swarm", "init")
    cli("service", "create", "--name=shop", "--publish=80", busybox, *HTTPD)
    (endpoint,) = json.loads(cli("service", "inspect", "shop").out)[0]["Endpoint"]["Ports"]
    for port in (cli("port", "web", "80/tcp").lines[0].rpartition(":")[2], endpoint["PublishedPort"]):
        answered = fetch(f"http://127.0.0.1:{port}/")
        assert answered.strip(), "the host name of whoever serves it"
    assert programs_of(daemon.data_root) == 0
    cli("service", "rm", "shop")


def fetch(url: str) -> str:
    """From this host, as a local client does."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


@pytest.mark.slow
def test_name_servers_are_for_containers_that_name_none(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(options=["--dns=192.0.2.53", "--dns-search=here.example", "--dns-opt=timeout:1"])
    cli, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")

    def resolv_conf(*options: str) -> list[str]:
        return cli("run", "--rm", *options, busybox, "grep", "-v", "^#", "/etc/resolv.conf").lines

    usual = ["nameserver 192.0.2.53", "search here.example", "options timeout:1"]
    assert resolv_conf() == usual
    assert resolv_conf("--network=host") == usual
    assert resolv_conf("--dns=192.0.2.54", "--dns-search=.") == ["nameserver 192.0.2.54", "options timeout:1"]
    cli("network", "create", "own")
    assert resolv_conf("--network=own") == [
        "nameserver 127.0.0.11",
        "search here.example",
        "options timeout:1 ndots:0",
    ]
    cli("run", "-d", "--name=kept", "--network=own", busybox, "sleep", "600")
    state = json.loads(cli("inspect", "kept").out)[0]
    assert state["HostConfig"]["Dns"] in ([], None), "the daemon's servers are no choice of the container"


@pytest.mark.slow
def test_a_configuration_file_says_the_same(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    pools = [{"base": "10.215.80.0/20", "size": 25}]
    file.write_text(json.dumps({"mtu": 1300, "dns": ["192.0.2.55"], "default-address-pools": pools}))
    daemon = make_daemon(options=["--config-file", file])
    cli, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")
    said = cli(
        "run", "--rm", busybox, "sh", "-c", "cat /sys/class/net/eth0/mtu; grep name /etc/resolv.conf; hostname -i"
    ).lines
    assert said[:2] == ["1300", "nameserver 192.0.2.55"]
    assert said[-1].startswith("10.215.80.")
