"""Networks as the docker command and docker-py see them, on real containers."""

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import docker as docker_py
import pytest
from docker.errors import APIError, NotFound

from support import images
from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for


@pytest.fixture(autouse=True)
def no_networks_left(docker: Cli) -> Iterator[None]:
    yield
    for name in docker("ps", "-aq").lines:
        docker("rm", "-f", name)
    for name in docker("network", "ls", "-q", "--filter", "type=custom").lines:
        docker("network", "rm", name)


def inspect(docker: Cli, name: str, kind: str = "network") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker(kind, "inspect", name).out)[0]
    return found


def fetch(url: str) -> str:
    deadline = time.monotonic() + 5
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


HTTPD = ("sh", "-c", "mkdir -p /w && hostname > /w/index.html && exec httpd -f -p 80 -h /w")


def test_the_predefined_networks_are_listed(docker: Cli) -> None:
    listed = docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").lines
    assert {"bridge bridge local", "host host local", "none null local"} <= set(listed)
    assert set(docker("network", "ls", "--format", "{{.Name}}", "--filter", "type=builtin").lines) == {
        "bridge",
        "host",
        "none",
    }


def test_the_default_bridge_is_shown_as_dockerd_shows_it(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "one", busybox, "sleep", "60")
    shown = inspect(docker, "bridge")
    own = inspect(docker, "one", "container")
    endpoint = own["NetworkSettings"]["Networks"]["bridge"]
    pool = shown["IPAM"]["Config"][0]
    assert shown["Driver"] == "bridge" and shown["Scope"] == "local" and shown["Internal"] is False
    assert endpoint["Gateway"] == pool["Gateway"] and endpoint["NetworkID"] == shown["Id"]
    assert shown["Containers"][own["Id"]] == {
        "Name": "one",
        "EndpointID": endpoint["EndpointID"],
        "MacAddress": endpoint["MacAddress"],
        "IPv4Address": f"{endpoint['IPAddress']}/{endpoint['IPPrefixLen']}",
        "IPv6Address": "",
    }
    assert shown["Options"]["com.docker.network.bridge.default_bridge"] == "true"


def test_containers_find_each_other_by_name(docker: Cli, busybox: str) -> None:
    docker("network", "create", "front")
    docker("run", "-d", "--name", "web", "--network", "front", "--network-alias", "shop", busybox, *HTTPD)
    for name in ("web", "shop"):
        said = docker("run", "--rm", "--network", "front", busybox, "wget", "-qO-", f"http://{name}/")
        assert said.line == docker("inspect", "-f", "{{.Config.Hostname}}", "web").line
    said = docker("run", "--rm", "--network", "front", busybox, "cat", "/etc/resolv.conf")
    assert "nameserver 127.0.0.11" in said.lines
    assert "options ndots:0" in said.lines
    assert docker("run", "--rm", "--network", "front", busybox, "nslookup", "nosuch", ok=False).code != 0


def test_published_ports_are_reached_and_shown(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "web", "-p", "80", "-p", "127.0.0.1::81/udp", busybox, *HTTPD)
    port = docker("port", "web", "80/tcp").lines[0].rpartition(":")[2]
    assert set(docker("port", "web", "80/tcp").lines) == {f"0.0.0.0:{port}", f"[::]:{port}"}
    assert docker("port", "web", "81/udp").line.startswith("127.0.0.1:")
    hostname = docker("inspect", "-f", "{{.Config.Hostname}}", "web").line
    for host in ("127.0.0.1", "[::1]", "localhost"):
        assert fetch(f"http://{host}:{port}/").strip() == hostname
    assert f"0.0.0.0:{port}->80/tcp" in docker("ps", "--format", "{{.Ports}}").line


def test_a_taken_port_fails_the_start_with_dockers_words(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "first", "-p", "80", busybox, "sleep", "60")
    port = docker("port", "first", "80/tcp").lines[0].rpartition(":")[2]
    said = docker("run", "--name", "second", "-p", f"{port}:80", busybox, "true", ok=False)
    assert said.code == 125
    words = (
        "failed to set up container networking: driver failed programming external connectivity on endpoint second ("
    )
    assert words in said.err
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in said.err
    docker("rm", "-f", "first")
    docker("start", "second")


def test_connect_and_disconnect_a_running_container(docker: Cli, busybox: str) -> None:
    docker("network", "create", "front")
    docker("network", "create", "back")
    docker("run", "-d", "--name", "db", "--network", "back", busybox, *HTTPD)
    docker("run", "-d", "--name", "web", "--network", "front", busybox, "sleep", "600")
    get = ("exec", "web", "wget", "-qO-", "http://db/")
    assert docker(*get, ok=False).code != 0
    refused = docker("network", "connect", "--alias", "shop\x07", "back", "web", ok=False)
    assert refused.code == 1 and "invalid network alias" in refused.err
    docker("network", "connect", "--alias", "shop", "back", "web")
    assert docker(*get).line
    assert set(inspect(docker, "web", "container")["NetworkSettings"]["Networks"]) == {"front", "back"}
    assert docker("exec", "db", "ping", "-c1", "-W2", "shop").code == 0
    hosts = docker("exec", "web", "cat", "/etc/hosts").out
    for network in inspect(docker, "web", "container")["NetworkSettings"]["Networks"].values():
        assert network["IPAddress"] in hosts
    docker("network", "disconnect", "back", "web")
    assert docker(*get, ok=False).code != 0
    assert set(inspect(docker, "web", "container")["NetworkSettings"]["Networks"]) == {"front"}
    again = docker("network", "disconnect", "back", "web", ok=False)
    assert again.code == 1 and "is not connected to network back" in again.err


def test_what_was_connected_stays_so_across_a_restart(docker: Cli, busybox: str) -> None:
    docker("network", "create", "front")
    docker("network", "create", "back")
    docker("run", "-d", "--name", "web", "--network", "front", busybox, "sleep", "600")
    docker("network", "connect", "back", "web")
    docker("restart", "-t", "0", "web")
    assert set(inspect(docker, "web", "container")["NetworkSettings"]["Networks"]) == {"front", "back"}
    docker("stop", "-t", "0", "web")
    docker("network", "disconnect", "front", "web")
    docker("start", "web")
    assert set(inspect(docker, "web", "container")["NetworkSettings"]["Networks"]) == {"back"}
    assert docker("exec", "web", "ls", "/sys/class/net").lines == ["eth0", "lo"]


def test_an_address_of_ones_own_is_kept_across_restarts_and_free_for_the_successor(docker: Cli, busybox: str) -> None:
    docker("network", "create", "--subnet", "10.214.3.0/29", "fixed")
    run = ("run", "-d", "--name", "db", "--network", "fixed", "--ip", "10.214.3.5", busybox, "sleep", "600")
    docker(*run)
    for _ in range(3):
        docker("restart", "-t", "0", "db")
    docker("rm", "-f", "db")
    docker(*run)
    assert inspect(docker, "db", "container")["NetworkSettings"]["Networks"]["fixed"]["IPAddress"] == "10.214.3.5"
    for _ in range(6):  # more than there are addresses
        docker("run", "--rm", "--network", "fixed", busybox, "true")


def test_what_a_network_cannot_grant_is_refused_before_it_is_kept(docker: Cli, busybox: str) -> None:
    docker("network", "create", "--subnet", "10.214.4.0/24", "fixed")
    docker("create", "--name", "later", busybox)
    for address, text in (
        ("10.9.9.9", "no configured subnet or ip-range contain the IP address 10.9.9.9"),
        ("bogus", "invalid IPv4 address: bogus"),
    ):
        said = docker("network", "connect", "--ip", address, "fixed", "later", ok=False)
        assert said.code == 1 and f"invalid endpoint settings:\n{text}" in said.err
    assert "fixed" not in inspect(docker, "later", "container")["NetworkSettings"]["Networks"]
    said = docker("create", "--network", "fixed", "--ip", "10.9.9.9", busybox, ok=False)
    assert "invalid config for network fixed: invalid endpoint settings:" in said.err
    assert docker("ps", "-aq").lines == [docker("ps", "-aq", "--filter", "name=later").line]


def test_networks_are_refused_in_dockers_words(docker: Cli, busybox: str) -> None:
    docker("network", "create", "front")
    docker("run", "-d", "--name", "web", "--network", "front", busybox, "sleep", "600")
    container_id = docker("inspect", "-f", "{{.Id}}", "web").line
    for words, text in (
        (("network", "rm", "front"), f'network front has active endpoints (name:"web" id:"{container_id[:12]}")'),
        (("network", "rm", "bridge"), "bridge is a pre-defined network and cannot be removed"),
        (("network", "rm", "nosuch"), "network nosuch not found"),
        (("network", "inspect", "nosuch"), "network nosuch not found"),
        (("network", "create", "front"), "network with name front already exists"),
        (("network", "create", "host"), "operation is not permitted on predefined host network"),
        (("network", "create", "--driver", "nosuch", "x"), 'plugin "nosuch" not found'),
        (("network", "create", "--subnet", "10.0.0.1/24", "x"), "it should be 10.0.0.0/24"),
        (("network", "connect", "front", "web"), "endpoint with name web already exists in network front"),
        (
            ("network", "connect", "host", "web"),
            "cannot connect container to host network - container must be created in host",
        ),
        (("network", "connect", "nosuch", "web"), "network nosuch not found"),
        (("network", "connect", "front", "nosuch"), "No such container: nosuch"),
        (("run", "--rm", "--network", "nosuch", busybox, "true"), "network nosuch not found"),
    ):
        said = docker(*words, ok=False)
        assert said.code != 0 and text in said.err, (words, said.err)


def test_events_tell_of_networks(docker: Cli, busybox: str) -> None:
    since = str(int(time.time()))
    network_id = docker("network", "create", "front").line
    docker("run", "-d", "--name", "web", busybox, "sleep", "600")
    docker("network", "connect", "front", "web")
    docker("network", "disconnect", "front", "web")
    docker("network", "rm", "front")
    shown = ("{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}", f"network={network_id}")
    said = docker(
        "events", "--since", since, "--until", str(int(time.time()) + 1), "--format", shown[0], "--filter", shown[1]
    )
    assert said.lines == [f"{action} front bridge" for action in ("create", "connect", "disconnect", "destroy")]


def test_prune_leaves_what_is_in_use_and_what_is_filtered(docker: Cli, busybox: str) -> None:
    docker("network", "create", "used")
    docker("network", "create", "idle")
    docker("network", "create", "--label", "keep=1", "kept")
    docker("run", "-d", "--network", "used", busybox, "sleep", "600")
    said = docker("network", "prune", "-f", "--filter", "label!=keep=1")
    assert said.lines[:2] == ["Deleted Networks:", "idle"]
    assert {"used", "kept"} <= set(docker("network", "ls", "--format", "{{.Name}}").lines)


def test_docker_py_makes_uses_and_removes_networks(client: docker_py.DockerClient, busybox: str) -> None:
    ipam = docker_py.types.IPAMConfig(
        pool_configs=[docker_py.types.IPAMPool(subnet="10.214.0.0/24", gateway="10.214.0.254")]
    )
    network = client.networks.create("front", driver="bridge", ipam=ipam, labels={"tier": "1"}, check_duplicate=True)
    assert network.attrs["IPAM"]["Config"] == [{"Subnet": "10.214.0.0/24", "Gateway": "10.214.0.254"}]
    assert [found.name for found in client.networks.list(filters={"label": "tier=1"})] == ["front"]
    assert client.networks.list(names=["front"])[0].id == network.id
    container = client.containers.run(busybox, ["sleep", "600"], detach=True, name="web")
    network.connect(container, ipv4_address="10.214.0.77", aliases=["shop"])
    container.reload()
    assert container.attrs["NetworkSettings"]["Networks"]["front"]["IPAddress"] == "10.214.0.77"
    network.reload()
    assert [found.name for found in network.containers] == ["web"]
    with pytest.raises(APIError) as refused:
        network.remove()
    assert refused.value.status_code == 403
    network.disconnect(container)
    network.remove()
    with pytest.raises(NotFound):
        client.networks.get("front")


def test_legacy_links_are_names_in_the_hosts_file(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "db", busybox, *HTTPD)
    said = docker("run", "--rm", "--link", "db:database", busybox, "cat", "/etc/hosts")
    address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db").line
    hostname = docker("inspect", "-f", "{{.Config.Hostname}}", "db").line
    assert f"{address}\tdatabase {hostname} db" in said.lines
    said = docker("run", "--rm", "--link", "db:database", busybox, "wget", "-qO-", "http://database/")
    assert said.line == hostname
    docker("stop", "-t", "0", "db")
    said = docker("run", "--rm", "--name", "web", "--link", "db:database", busybox, "true", ok=False)
    assert "Cannot link to a non running container: /db AS /web/database" in said.err
    said = docker("run", "--rm", "--link", "nosuch", busybox, "true", ok=False)
    assert "could not get container for nosuch: No such container: nosuch" in said.err


def test_legacy_links_are_told_in_the_environment_and_follow_the_other_container(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon()
    docker, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")
    docker("run", "-d", "--name", "db", "--expose", "5432", "--expose", "99/udp", "-e", "USER=me", busybox, *HTTPD)
    docker("run", "-d", "--name", "web", "--link", "db:data-base", busybox, "sleep", "600")

    def address() -> str:
        return docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db").line

    said = docker("exec", "web", "cat", "/proc/1/environ").out.split("\0")
    first = address()
    for expected in (
        f"DATA_BASE_PORT=tcp://{first}:5432",
        f"DATA_BASE_PORT_5432_TCP=tcp://{first}:5432",
        f"DATA_BASE_PORT_5432_TCP_ADDR={first}",
        "DATA_BASE_PORT_5432_TCP_PORT=5432",
        "DATA_BASE_PORT_5432_TCP_PROTO=tcp",
        "DATA_BASE_NAME=/web/data-base",
        "DATA_BASE_ENV_USER=me",
    ):
        assert expected in said

    def hosts_name(where: str) -> bool:
        return any(line.startswith(f"{where}\tdata-base ") for line in docker("exec", "web", "cat", "/etc/hosts").lines)

    assert hosts_name(first)
    docker("stop", "-t", "0", "db")
    docker("run", "-d", "--name", "other", busybox, "sleep", "600")  # may have the address now
    docker("start", "db")
    wait_for(lambda: hosts_name(address()), what="the hosts file to follow")
    daemon.kill()
    daemon.start()
    docker("restart", "-t", "0", "db")
    wait_for(lambda: hosts_name(address()), what="the hosts file to follow after the daemon's death")
    assert docker("exec", "web", "wget", "-qO-", "http://data-base/").line


def test_a_link_on_a_network_of_ones_own_is_a_name_in_the_dns(docker: Cli, busybox: str) -> None:
    docker("network", "create", "front")
    docker("run", "-d", "--name", "db", "--network", "front", busybox, *HTTPD)
    said = docker(
        "run", "--rm", "--network", "front", "--link", "db:database", busybox, "wget", "-qO-", "http://database/"
    )
    assert said.line == docker("inspect", "-f", "{{.Config.Hostname}}", "db").line


def test_the_mode_none_has_loopback_only_and_host_has_the_hosts(docker: Cli, busybox: str) -> None:
    assert docker("run", "--rm", "--network", "none", busybox, "ls", "/sys/class/net").lines == ["lo"]
    assert docker("run", "--rm", "--network", "host", busybox, "hostname").line == subprocess.getoutput("hostname")


def test_a_container_on_anothers_network_shares_its_addresses(docker: Cli, busybox: str) -> None:
    docker("run", "-d", "--name", "web", busybox, *HTTPD)
    said = docker("run", "--rm", "--network", "container:web", busybox, "wget", "-qO-", "http://127.0.0.1/")
    assert said.line == docker("inspect", "-f", "{{.Config.Hostname}}", "web").line


def test_networks_and_names_outlive_the_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = images.import_base(daemon.docker, "busybox")
    docker = daemon.docker
    docker("network", "create", "front")
    docker("run", "-d", "--name", "web", "--network", "front", "-p", "80", busybox, *HTTPD)
    docker("run", "-d", "--name", "other", "--network", "front", busybox, "sleep", "600")
    port = docker("port", "web", "80/tcp").lines[0].rpartition(":")[2]
    get = ("exec", "other", "wget", "-qO-", "http://web/")
    hostname = docker(*get).line
    daemon.kill()
    assert fetch(f"http://127.0.0.1:{port}/").strip() == hostname, "reached while the daemon is away"
    daemon.start()
    assert docker(*get).line == hostname
    docker("rm", "-f", "web", "other")
    docker("network", "rm", "front")


@pytest.mark.slow
def test_a_daemon_killed_in_the_middle_of_connect_leaves_what_inspect_says(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    busybox = images.import_base(daemon.docker, "busybox")
    docker = daemon.docker
    docker("network", "create", "front")
    docker("network", "create", "back")
    docker("run", "-d", "--name", "db", "--network", "back", busybox, *HTTPD)
    docker("run", "-d", "--name", "web", "--network", "front", busybox, "sleep", "600")
    for delay in (0.0, 0.01, 0.02, 0.04):
        with docker.running("network", "connect", "back", "web") as command:
            time.sleep(0.02)  # the command needs as long to say what it wants
            time.sleep(delay)
            daemon.kill()
            command.wait(10)
        daemon.start()
        networks = inspect(docker, "web", "container")["NetworkSettings"]["Networks"]
        interfaces = docker("exec", "web", "ls", "/sys/class/net").lines
        assert len(interfaces) == len(networks) + 1, (delay, interfaces, networks)
        if "back" not in networks:
            docker("network", "connect", "back", "web")
        assert docker("exec", "web", "wget", "-qO-", "http://db/").line
        docker("network", "disconnect", "back", "web")
        assert docker("exec", "web", "ls", "/sys/class/net").lines == ["eth0", "lo"]
    docker("rm", "-f", "web", "db")
    docker("network", "rm", "front", "back")


def test_a_connection_goes_on_while_other_networks_come_and_go(docker: Cli, busybox: str) -> None:
    docker("network", "create", "front")
    docker("network", "create", "other")
    docker("run", "-d", "--name", "web", "--network", "front", "-p", "7", busybox, "nc", "-ll", "-p", "7", "-e", "cat")
    port = int(docker("port", "web", "7/tcp").lines[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for number in range(6):
            docker("network", "connect" if number % 2 == 0 else "disconnect", "other", "web")
            connection.sendall(f"{number}\n".encode())
            assert connection.recv(100) == f"{number}\n".encode()
