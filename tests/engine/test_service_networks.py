"""Services on their networks, through the docker command and with real packets: virtual addresses, names, ports."""

import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from service_helpers import (
    CALLER,
    QUICK,
    SERVE,
    addresses,
    another_host,
    assert_nothing_left,
    call,
    calls_from,
    client,
    free_port,
    inspect,
    lookup,
    networks,
    overlay,
    vips,
)

from support.swarm import SwarmNode, container_of, open_swarm
from support.traces import tables
from support.waiting import wait_for


@pytest.fixture(scope="module")
def _node(able: None) -> Iterator[SwarmNode]:
    with open_swarm("busybox", "python") as node:
        yield node


@pytest.fixture
def node(_node: SwarmNode) -> Iterator[SwarmNode]:
    if not _node.daemon.is_alive:
        _node.daemon.start()
    if not networks(_node, "ingress"):
        _node.docker("swarm", "leave", "--force")
        _node.docker("swarm", "init")
    yield _node
    assert _node.daemon.is_alive, _node.daemon.log()[-3000:]
    _node.clear()
    for name in networks(_node):
        if name != "ingress":
            _node.docker("network", "rm", name)
    assert_nothing_left(_node)


# --- the ingress network ----------------------------------------------------------------------------------------


def test_a_swarm_has_an_ingress_network_that_services_with_ports_are_on(node: SwarmNode) -> None:
    (ingress,) = json.loads(node.docker("network", "inspect", "ingress").out)
    assert (ingress["Driver"], ingress["Scope"], ingress["Ingress"]) == ("overlay", "swarm", True)
    assert ingress["IPAM"]["Config"][0]["Subnet"].endswith(".0/24")
    overlay(node, "inner")
    node.create("web", *QUICK, "-p", f"{free_port()}:8000", "--network=inner", *SERVE)
    (task,) = node.wait_running("web", 1)
    assert list(vips(node, "web")) == ["ingress", "inner"]
    assert set(addresses(task)) == {"ingress", "inner"}
    node.create("quiet", *QUICK, "--network=inner", *SERVE)
    assert set(addresses(*node.wait_running("quiet", 1))) == {"inner"}
    assert set(vips(node, "quiet")) == {"inner"}


def test_the_load_balancer_is_shown_on_the_networks_that_it_serves(node: SwarmNode) -> None:
    overlay(node, "inner")

    def shown() -> dict[str, str]:
        (network,) = json.loads(node.docker("network", "inspect", "inner").out)
        return {key if key == "lb-inner" else "task": one["Name"] for key, one in network["Containers"].items()}

    assert shown() == {}
    node.create("web", *QUICK, "--network=inner", *SERVE)
    node.wait_running("web", 1)
    assert shown()["lb-inner"] == "inner-endpoint" and set(shown()) == {"lb-inner", "task"}
    node.docker("service", "update", "-q", "--network-rm=inner", "web")
    wait_for(lambda: shown() == {}, what="nobody to be left on the network")
    node.docker("network", "rm", "inner")


def test_subnets_follow_each_other_in_the_pool_of_the_swarm(node: SwarmNode) -> None:
    node.docker("swarm", "leave", "--force")
    node.docker("swarm", "init", "--default-addr-pool=10.77.0.0/16", "--default-addr-pool-mask-length=26")
    overlay(node, "one")
    overlay(node, "two")
    found = [
        node.docker("network", "inspect", "--format={{(index .IPAM.Config 0).Subnet}}", name).line
        for name in ("ingress", "one", "two")
    ]
    assert found == ["10.77.0.0/26", "10.77.0.64/26", "10.77.0.128/26"]
    node.docker("network", "rm", "one", "two")
    node.docker("swarm", "leave", "--force")
    assert networks(node) == []
    node.docker("swarm", "init")


def test_what_may_not_be_done_with_the_ingress_network_is_said_in_dockers_words(node: SwarmNode) -> None:
    refused = node.docker("service", "create", "--network=ingress", "busybox", ok=False).err
    assert 'Service cannot be explicitly attached to the ingress network "ingress"' in refused
    refused = node.docker("run", "--rm", "--network=ingress", "busybox", "true", ok=False).err
    assert "Could not attach to network ingress: rpc error: code = PermissionDenied desc = network ingress" in refused
    refused = node.docker("network", "create", "-d", "overlay", "--ingress", "second", ok=False).err
    assert "is already present" in refused
    refused = node.docker("network", "create", "-d", "overlay", "--ingress", "--attachable", "second", ok=False).err
    assert "ingress network cannot be attachable" in refused
    node.docker("network", "prune", "-f")
    assert networks(node) == ["ingress"]


def test_the_ingress_network_goes_when_no_service_needs_it_and_another_may_take_its_place(node: SwarmNode) -> None:
    service = node.create("web", *QUICK, "-p", "8000", *SERVE)
    node.wait_running("web", 1)
    status, body = node.daemon.request("DELETE", "/networks/ingress")
    assert status == 400
    assert f"ingress network cannot be removed because service {service} depends on it" in body.decode()
    node.docker("service", "rm", "web")
    assert node.daemon.request("DELETE", "/networks/ingress")[0] == 204
    refused = node.docker("service", "create", "-d", "-p", "8000", "busybox", ok=False).err
    assert "service needs ingress network, but no ingress network is present" in refused
    node.docker("network", "create", "-d", "overlay", "--ingress", "mine")
    node.create("web", *QUICK, "-p", "8000", *SERVE)
    assert set(addresses(*node.wait_running("web", 1))) == {"mine"}
    node.docker("service", "rm", "web")
    wait_for(lambda: node.daemon.request("DELETE", "/networks/mine")[0] == 204)


# --- virtual addresses and names --------------------------------------------------------------------------------


def test_a_name_is_the_virtual_address_and_tasks_are_found_beside_it(node: SwarmNode) -> None:
    overlay(node, "inner")
    overlay(node, "other")
    options = ("--replicas=3", "--network=name=inner,alias=shop")
    node.create("web", *QUICK, *options, *SERVE)
    tasks = node.wait_running("web", 3)
    inside, outside = client(node, "inner"), client(node, "other")
    vip = vips(node, "web")["inner"]
    serving = sorted(addresses(task)["inner"] for task in tasks)
    for name in ("web", "shop", "web.inner"):
        assert lookup(node, inside, name) == [vip]
    for name in ("tasks.web", "tasks.shop"):
        assert lookup(node, inside, name) == serving
    for name in ("web", "shop", "tasks.web"):
        assert lookup(node, outside, name) == []
    node.docker("service", "scale", "-d", "web=0")
    wait_for(lambda: lookup(node, inside, "web") == [], what="the name of a service without tasks to be gone")
    assert lookup(node, inside, "tasks.web") == []
    assert vips(node, "web") == {"inner": vip}


def test_a_virtual_address_goes_round_its_tasks_by_any_port_and_protocol(node: SwarmNode) -> None:
    overlay(node, "inner")
    node.create("web", *QUICK, "--replicas=3", "--network=inner", *SERVE)
    names = {container_of(task)[:12] for task in node.wait_running("web", 3)}
    caller = client(node, "inner", "python")
    told = calls_from(node, caller, "web", 8000)
    assert told.keys() == names
    assert max(told.values()) - min(told.values()) <= 1, "in turn"
    datagrams = """
import socket
for _ in range(6):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(b"?", ("web", 8001))
        print(sock.recv(100).decode())
"""
    assert set(node.docker("exec", caller, "python3", "-c", datagrams).lines) == names
    assert node.docker("exec", client(node, "inner"), "ping", "-c1", "-W2", "web").out.count("1 packets received") == 1


def test_a_task_reaches_its_own_service_and_itself(node: SwarmNode) -> None:
    overlay(node, "inner")
    node.create("web", *QUICK, "--replicas=2", "--network=inner", *SERVE)
    tasks = node.wait_running("web", 2)
    for task in tasks:
        told = calls_from(node, container_of(task), "web", 8000)
        assert told.keys() == {container_of(one)[:12] for one in tasks}


def test_a_virtual_address_is_for_its_own_network_only(node: SwarmNode) -> None:
    overlay(node, "inner", "--internal")
    overlay(node, "other")
    node.create("web", *QUICK, "--network=inner", *SERVE)
    node.wait_running("web", 1)
    vip = vips(node, "web")["inner"]
    assert calls_from(node, client(node, "inner", "python"), vip, 8000, 0.1).total() > 0
    told = calls_from(node, client(node, "other", "python"), vip, 8000, 0.1)
    assert all(word.startswith("failed") for word in told), told


def test_a_service_that_nobody_serves_refuses_at_once_and_no_program_of_the_host_answers(node: SwarmNode) -> None:
    overlay(node, "inner")
    port = free_port()
    node.create("web", *QUICK, "--replicas=0", "--network=inner", "-p", f"{port}:8000", *SERVE)
    caller = client(node, "inner", "python")
    vip = vips(node, "web")["inner"]
    with socket.create_server(("", 0)) as server:
        began = time.monotonic()
        told = calls_from(node, caller, vip, server.getsockname()[1], 0.05)
        assert time.monotonic() - began < 3
    assert {word.partition("] ")[2] for word in told} == {"Connection refused"}
    with pytest.raises(ConnectionRefusedError):
        call("127.0.0.1", port)


def test_without_a_virtual_address_a_name_is_all_tasks(node: SwarmNode) -> None:
    overlay(node, "inner")
    node.create("web", *QUICK, "--replicas=3", "--endpoint-mode=dnsrr", "--network=inner", *SERVE)
    serving = sorted(addresses(task)["inner"] for task in node.wait_running("web", 3))
    caller = client(node, "inner")
    assert vips(node, "web") == {}
    assert lookup(node, caller, "web") == lookup(node, caller, "tasks.web") == serving
    told = {tuple(re.findall(r"^Address: ([0-9.]+)$", node.docker("exec", caller, "nslookup", "web.").out, re.M))
            for _ in range(20)}  # fmt: skip
    assert len(told) > 1, "in random order"
    node.docker("service", "update", "-d", "--endpoint-mode=vip", "web")
    wait_for(lambda: lookup(node, caller, "web") == [vips(node, "web").get("inner")], timeout_s=30)
    before = vips(node, "web")
    node.docker("service", "update", "-d", "--endpoint-mode=dnsrr", "web")
    wait_for(lambda: not vips(node, "web") and len(lookup(node, caller, "web")) > 1, timeout_s=30)
    node.docker("service", "update", "-d", "--endpoint-mode=vip", "web")
    wait_for(lambda: lookup(node, caller, "web") == [vips(node, "web").get("inner")], timeout_s=30)
    assert before.keys() == vips(node, "web").keys()


def test_a_virtual_address_stays_over_updates_deaths_and_rollbacks_and_is_nobody_elses(node: SwarmNode) -> None:
    overlay(node, "inner")
    node.create("web", *QUICK, "--network=inner", *SERVE)
    vip = vips(node, "web")["inner"]
    node.wait_running("web", 1)
    node.docker("service", "update", "-q", "--env-add=A=1", "web")
    assert vips(node, "web")["inner"] == vip
    node.daemon.kill()
    node.daemon.start()
    assert vips(node, "web")["inner"] == vip
    node.create("next", *QUICK, "--network=inner", *SERVE)
    node.wait_running("next", 1)
    containers = [client(node, "inner", "python") for _ in range(3)]
    taken = [vip, vips(node, "next")["inner"]]
    taken += [addresses(task)["inner"] for name in ("web", "next") for task in node.wait_running(name, 1)]
    shown = json.loads(node.docker("inspect", *containers).out)
    taken += [one["NetworkSettings"]["Networks"]["inner"]["IPAddress"] for one in shown]
    assert len(taken) == len(set(taken))
    node.docker("service", "update", "-d", "--network-rm=inner", "web")
    assert vips(node, "web") == {}
    node.docker("service", "rollback", "-d", "web")
    assert vips(node, "web").keys() == {"inner"}
    wait_for(lambda: calls_from(node, containers[0], "web", 8000, 0.1).total() > 0)


def test_addresses_are_free_again_when_a_service_is_gone(node: SwarmNode) -> None:
    overlay(node, "inner", "--subnet=10.99.0.0/29")  # five addresses are to be had
    for turn in range(3):
        for name in ("a", "b"):
            node.create(f"{name}{turn}", *QUICK, "--network=inner", "busybox", "sleep", "1000")
            node.wait_running(f"{name}{turn}", 1)
        node.docker("service", "rm", f"a{turn}", f"b{turn}")
        wait_for(lambda: not node.docker("ps", "-q").lines, timeout_s=30)

    def makes(number: int) -> bool:
        words = ("-d", f"--name=n{number}", "--network=inner", "--replicas=0", "busybox")
        return node.docker("service", "create", *words, ok=False).code == 0

    for number in range(5):
        wait_for(lambda number=number: makes(number), what=f"address {number} to be free")
    refused = node.docker("service", "create", "-d", "--network=inner", "busybox", ok=False).err
    assert "no available IPv4 addresses" in refused
    node.docker("service", "rm", "n3")
    wait_for(lambda: makes(5), what="the address of the one that went")


def test_nobody_is_refused_while_a_service_behind_a_virtual_address_is_scaled_and_updated(node: SwarmNode) -> None:
    overlay(node, "inner")
    node.create("web", *QUICK, "--replicas=2", "--network=inner", "--label=bennu.drain.deadline=3s",
                "--container-label=bennu.ready.tcp=8000", "--update-delay=500ms", *SERVE)  # fmt: skip
    node.wait_running("web", 2)
    caller = client(node, "inner", "python")
    words = ("exec", caller, "python3", "-c", CALLER, "web", "8000", "14")
    with node.docker.running(*words, stdout=subprocess.PIPE) as process:
        time.sleep(1)
        for count in (5, 2):
            node.docker("service", "scale", "-d", f"web={count}")
            node.wait_running("web", count)
        node.docker("service", "update", "-d", "--env-add=A=1", "web")
        out, _ = process.communicate(timeout=60)
    told = Counter(json.loads(out))
    assert not [word for word in told if word.startswith(("failed", "nothing"))], told
    assert len(told) > 2


def test_a_connection_through_a_virtual_address_holds_up_the_end_of_its_task(node: SwarmNode) -> None:
    overlay(node, "inner")
    node.create("web", *QUICK, "--network=inner", "--label=bennu.drain.deadline=20s", *SERVE)
    (task,) = node.wait_running("web", 1)
    caller = client(node, "inner", "python")
    hold = """
import socket, sys
link = socket.create_connection(("web", 8000))
link.sendall(b"wait")
print(link.recv(100).decode(), flush=True)
sys.stdin.read(1)
"""
    words = ("exec", "-i", caller, "python3", "-c", hold)
    with node.docker.running(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        node.docker("service", "rm", "web")
        time.sleep(3)
        assert container_of(task)[:12] in node.docker("ps", "-q").lines, "it is still being talked to"
        process.communicate(b"x", timeout=10)
        wait_for(lambda: container_of(task)[:12] not in node.docker("ps", "-q").lines, what="its end")


# --- published ports --------------------------------------------------------------------------------------------


def test_a_published_port_is_reached_from_everywhere(node: SwarmNode) -> None:
    port = free_port()
    overlay(node, "apart")  # sorts before `ingress`: answers have to leave the way the calls came all the same
    node.create("web", *QUICK, "--replicas=2", "--network=apart", "-p", f"{port}:8000", *SERVE)
    names = {container_of(task)[:12] for task in node.wait_running("web", 2)}
    own = "192.0.2.2"
    for address in ("127.0.0.1", own):
        assert {call(address, port).split(" ")[0] for _ in range(4)} == names
    assert calls_from(node, client(node, "bridge", "python"), own, port, wanted=2).keys() == names
    assert calls_from(node, container_of(node.running("web")[0]), own, port, wanted=2).keys() == names
    with another_host("198.51.100.1") as there:
        call_it = [*there, sys.executable, "-c", CALLER, "198.51.100.1", str(port), "0.5", "2"]
        found = subprocess.run(call_it, capture_output=True, text=True, check=True).stdout
    assert json.loads(found).keys() == names


def test_a_rollback_that_nobody_asked_for_gives_back_ports_and_addresses(node: SwarmNode) -> None:
    overlay(node, "inner")
    old, new = free_port(), free_port()
    node.create("web", *QUICK, "--network=inner", "-p", f"{old}:8000", "--update-failure-action=rollback", *SERVE)
    node.wait_running("web", 1)
    node.docker("service", "update", "-d", "--args=false", "--publish-rm=8000", f"--publish-add={new}:8000",
                "--network-rm=inner", "web")  # fmt: skip
    wait_for(lambda: inspect(node, "web").get("UpdateStatus", {}).get("State") == "rollback_completed", timeout_s=40)
    wait_for(lambda: _answers(old) and not _answers(new), what="the old port", timeout_s=20)
    assert inspect(node, "web")["Endpoint"]["Ports"][0]["PublishedPort"] == old
    caller = client(node, "inner")
    wait_for(lambda: lookup(node, caller, "web") == [vips(node, "web").get("inner")], what="the old address")


def test_clients_by_ipv6_are_carried_to_the_tasks(node: SwarmNode) -> None:
    port = free_port()
    try:
        with socket.create_server(("::1", port), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    node.create("web", *QUICK, "--replicas=2", "-p", f"{port}:8000", *SERVE)
    names = {container_of(task)[:12] for task in node.wait_running("web", 2)}
    assert {call("::1", port).split(" ")[0] for _ in range(4)} == names
    node.daemon.kill()
    node.daemon.start()
    assert {call("::1", port).split(" ")[0] for _ in range(4)} == names


def test_a_services_port_is_no_containers_nor_a_programs(node: SwarmNode) -> None:
    port = free_port()
    service = node.create("web", *QUICK, "--replicas=0", "-p", f"{port}:8000", *SERVE)
    refused = node.docker("run", "--rm", "-p", f"{port}:80", "busybox", "true", ok=False).err
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in refused
    with socket.socket() as sock, pytest.raises(OSError, match="in use"):
        sock.bind(("", port))
    node.docker("service", "rm", service)
    node.docker("run", "--rm", "-p", f"{port}:80", "busybox", "true")
    with socket.create_server(("127.0.0.1", port)) as server:
        node.create("web", *QUICK, "-p", f"{port}:8000", *SERVE)
        node.wait_running("web", 1)
        assert call("127.0.0.1", port), "the service's rules come before the program"
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_datagrams_to_a_published_port_go_to_whoever_serves_now(node: SwarmNode) -> None:
    port = free_port()
    node.create("web", *QUICK, "-p", f"{port}:8001/udp", *SERVE)
    (first,) = node.wait_running("web", 1)

    def asked(sock: socket.socket) -> str:
        try:
            sock.sendto(b"?", ("127.0.0.1", port))
            return sock.recv(100).decode()
        except OSError:
            return ""

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # one flow
        sock.settimeout(1)
        wait_for(lambda: asked(sock) == container_of(first)[:12])
        node.docker("service", "update", "-d", "--env-add=A=1", "web")
        wait_for(lambda: asked(sock) not in ("", container_of(first)[:12]), timeout_s=30, what="the flow to follow")


def test_a_port_of_a_host_goes_to_its_task_and_is_shown(node: SwarmNode) -> None:
    port = free_port()
    node.create("web", *QUICK, "--publish", f"mode=host,published={port},target=8000", *SERVE)
    (task,) = node.wait_running("web", 1)
    wait_for(lambda: _answers(port))
    assert call("127.0.0.1", port).split(" ")[0] == container_of(task)[:12]
    (shown, *_) = task["Status"]["PortStatus"]["Ports"]
    assert shown == {"Protocol": "tcp", "TargetPort": 8000, "PublishedPort": port, "PublishMode": "host"}
    assert "VirtualIPs" not in inspect(node, "web")["Endpoint"]


def _answers(port: int) -> bool:
    try:
        return bool(call("127.0.0.1", port))
    except OSError:
        return False


def test_what_was_shown_is_there_again_after_deaths_and_without_its_table(node: SwarmNode) -> None:
    port = free_port()
    overlay(node, "inner")
    node.create("web", *QUICK, "--replicas=2", "--network=inner", "-p", f"{port}:8000", *SERVE)
    node.wait_running("web", 2)
    caller = client(node, "inner", "python")
    pid = node.docker("inspect", "--format={{.State.Pid}}", caller).line
    inside = ["nsenter", "-t", pid, "-n", sys.executable, "-c", CALLER, vips(node, "web")["inner"], "8000", "0.3"]
    node.daemon.kill()
    assert call("127.0.0.1", port), "the kernel goes on without a daemon"
    told = json.loads(subprocess.run(inside, capture_output=True, text=True, check=True).stdout)
    node.daemon.start()
    names = {container_of(task)[:12] for task in node.running("web")}
    assert told.keys() == names == calls_from(node, caller, "web", 8000).keys()
    (table,) = tables(node.daemon)
    subprocess.run(["nft", "delete", "table", *table.split()], check=True)  # the host's other rules are not ours
    wait_for(lambda: tables(node.daemon) == [table], what="the rules to be written anew")
    assert calls_from(node, caller, "web", 8000).keys() == names


def test_a_daemon_that_dies_while_a_service_goes_leaves_nothing_of_it(node: SwarmNode) -> None:
    port = free_port()
    overlay(node, "inner")
    for turn in range(4):
        name = f"web{turn}"
        node.create(name, *QUICK, "--network=inner", "-p", f"{port}:8000", *SERVE)
        if turn % 2:
            node.wait_running(name, 1)
        node.docker("service", "rm", name)
        time.sleep(0.02 * turn)
        node.daemon.kill()
        node.daemon.start()
        assert_nothing_left(node)


def test_a_network_of_the_swarm_is_told_as_the_swarms(node: SwarmNode) -> None:
    since = f"{time.time():.9f}"
    overlay(node, "told")
    node.docker("run", "--rm", "--network=told", "busybox", "true")
    node.docker("network", "rm", "told")
    shape = "{{.Scope}} {{.Action}} {{json .Actor.Attributes}}"
    how = ("--since", since, "--until", f"{time.time():.9f}", "--filter=type=network", "--format", shape)
    told = node.docker("events", *how).lines
    assert (told[0], told[-1]) == ('swarm create {"name":"told"}', 'swarm remove {"name":"told"}'), told
    assert [line.split()[:2] for line in told[1:-1]] == [["local", "connect"], ["local", "disconnect"]]
    assert all('"type":"overlay"' in line for line in told[1:-1]), told
