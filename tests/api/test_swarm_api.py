"""The swarm-mode API as clients meet it: states of the node, words of refusals, versions, filters, docker-py."""

import json
from collections.abc import Iterator
from typing import Any

import docker as docker_py
import pytest

from support import images, traces
from support.daemon import Daemon
from support.swarm import SwarmNode

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def _daemon(able: None) -> Iterator[Daemon]:
    daemon = Daemon()
    try:
        daemon.start()
        images.import_base(daemon.docker, "busybox")
        yield daemon
    finally:
        traces.discard(daemon)


@pytest.fixture
def outside(_daemon: Daemon) -> Daemon:
    """A node in no swarm."""
    _daemon.request("POST", "/swarm/leave?force=1")
    return _daemon


@pytest.fixture
def node(_daemon: Daemon) -> Iterator[SwarmNode]:
    _daemon.request("POST", "/swarm/init", json.dumps({"ListenAddr": "0.0.0.0:2377"}), JSON)
    node = SwarmNode(_daemon)
    yield node
    node.clear()


def call(daemon: Daemon, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    raw = None if body is None else json.dumps(body)
    status, answer = daemon.request(method, path, raw, JSON if raw else None)
    return status, json.loads(answer) if answer.strip() else None


INVALID = "rpc error: code = InvalidArgument desc = "
UNKNOWN = "rpc error: code = Unknown desc = "
TMPFS = {"Type": "tmpfs", "Target": "/a"}
PORT = {"TargetPort": 80, "PublishedPort": 8000}


def spec(
    name: str = "s", *, container: dict[str, Any] | None = None, template: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    whole = {"Image": "busybox:latest", "Args": ["sleep", "1000"], "StopGracePeriod": 0} | (container or {})
    return {"Name": name, "TaskTemplate": {"ContainerSpec": whole} | (template or {})} | more


def limits(**sizes: int) -> dict[str, Any]:
    return {"Resources": {"Limits": sizes}}


def constrained(constraint: str) -> dict[str, Any]:
    return {"Placement": {"Constraints": [constraint]}}


def no_secret(name: str, *, mode: int = 0, uid: str = "0", gid: str = "0", **more: Any) -> dict[str, Any]:
    file = {"Name": name, "Mode": mode, "UID": uid, "GID": gid}
    return {"SecretID": "x", "SecretName": name, "File": more.get("file", file)}


def reserved(kind: str, value: int) -> dict[str, Any]:
    return {
        "Resources": {"Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": kind, "Value": value}}]}}
    }


def test_outside_a_swarm_every_verb_says_so(outside: Daemon) -> None:
    for method, path in (("GET", "/services"), ("GET", "/tasks"), ("GET", "/nodes"), ("GET", "/swarm")):
        status, answer = call(outside, method, path)
        assert status == 503
        assert answer["message"].startswith("This node is not a swarm manager. Use ")
    assert call(outside, "POST", "/swarm/leave") == (503, {"message": "This node is not part of a swarm"})
    assert call(outside, "GET", "/info")[1]["Swarm"]["LocalNodeState"] == "inactive"


def test_a_swarm_begins_and_ends(outside: Daemon) -> None:
    status, node_id = call(outside, "POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377"})
    assert status == 200
    info = call(outside, "GET", "/info")[1]["Swarm"]
    assert (info["NodeID"], info["LocalNodeState"], info["ControlAvailable"]) == (node_id, "active", True)
    assert call(outside, "POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377"})[0] == 503
    status, answer = call(outside, "POST", "/swarm/join", {"RemoteAddrs": ["192.0.2.1:2377"]})
    assert status == 503
    refused = call(outside, "POST", "/swarm/leave")[1]["message"]
    assert refused.startswith("You are attempting to leave the swarm on a node that is participating as a manager.")
    assert call(outside, "POST", "/swarm/leave?force=1")[0] == 200
    status, answer = call(outside, "POST", "/swarm/join", {"RemoteAddrs": ["192.0.2.1:2377"]})
    assert status == 501
    assert "comes next" in answer["message"]


@pytest.mark.parametrize(
    ("status", "words", "asked"),
    [
        (400, "invalid base pool NaN: invalid CIDR address", {"DefaultAddrPool": ["NaN"]}),
        (400, "invalid base pool : invalid CIDR address", {"DefaultAddrPool": [""]}),
        (400, 'Subnet size is too small for pool: 16"', {"DefaultAddrPool": ["10.0.0.0/24"], "SubnetSize": 16}),
        (400, "it overlaps with 10.0.0.0/8", {"DefaultAddrPool": ["10.0.0.0/8", "10.1.0.0/16"]}),
        (400, "subnet size is out of range: 30", {"SubnetSize": 30}),
        (400, "subnet size is out of range: -1", {"SubnetSize": -1}),
        (400, 'invalid CIDR: "10.0.0.0/8"', {"SubnetSize": 1}),
        (400, "Datapath port number is not in valid range", {"DataPathPort": 80}),
        (501, "address pools of IPv6", {"DefaultAddrPool": ["fd00::/8"]}),
    ],
)
def test_a_swarm_does_not_begin_with_bad_addresses(
    outside: Daemon, status: int, words: str, asked: dict[str, Any]
) -> None:
    found, answer = call(outside, "POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377"} | asked)
    assert found == status
    assert words.rstrip('"') in answer["message"]


def test_a_pool_with_bits_behind_its_prefix_means_the_whole_range(outside: Daemon) -> None:
    asked = {"ListenAddr": "0.0.0.0:2377", "DefaultAddrPool": ["10.10.0.0/8"]}
    assert call(outside, "POST", "/swarm/init", asked)[0] == 200
    assert call(outside, "GET", "/swarm")[1]["DefaultAddrPool"] == ["10.0.0.0/8"]
    assert call(outside, "POST", "/swarm/leave?force=1")[0] == 200


def test_an_update_with_an_old_version_is_out_of_sequence(node: SwarmNode) -> None:
    made = call(node.daemon, "POST", "/services/create", spec())[1]["ID"]
    assert len(made) == 25
    status, answer = call(node.daemon, "POST", f"/services/{made}/update?version=1", spec())
    assert status == 500
    assert answer["message"] == "rpc error: code = Unknown desc = update out of sequence"
    index = node.ask(f"/services/{made}")["Version"]["Index"]
    assert call(node.daemon, "POST", f"/services/{made}/update?version={index}", spec()) == (200, {"Warnings": None})
    wrong = call(node.daemon, "POST", f"/services/{made}/update", spec())
    assert wrong[0] == 400
    assert wrong[1]["message"].startswith("invalid service version ''")


@pytest.mark.parametrize(
    ("status", "message", "body"),
    [
        (400, "name must be valid as a DNS name component", spec("a b")),
        (400, "ContainerSpec: image reference must be provided", {"Name": "x", "TaskTemplate": {"ContainerSpec": {}}}),
        (400, "must specify only one service mode", spec(Mode={"Replicated": {}, "Global": {}})),
        (400, "mismatched Runtime and *Spec fields", {"Name": "x", "TaskTemplate": {}}),
        (400, 'invalid resolution mode: "foo"', spec(EndpointSpec={"Mode": "foo"})),
        (
            400,
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            spec(EndpointSpec={"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}),
        ),
        (400, "unrecognized update order die", spec(UpdateConfig={"Order": "die"})),
        (400, "unrecognized update failure action die", spec(RollbackConfig={"FailureAction": "die"})),
        (400, f"{INVALID}name must be 63 characters or fewer", spec("a" * 64)),
        (400, f"{INVALID}TaskSpec: update-delay cannot be negative", spec(UpdateConfig={"Delay": -1})),
        (400, f"{INVALID}TaskSpec: update-maxfailureratio cannot be", spec(UpdateConfig={"MaxFailureRatio": 2})),
        (400, f"{INVALID}Jobs may not have an update config", spec(Mode={"GlobalJob": {}}, UpdateConfig={})),
        (400, "unsupported runtime", spec(template={"Runtime": "foo"})),
        (400, 'invalid RestartCondition: "always"', spec(template={"RestartPolicy": {"Condition": "always"}})),
        (400, f"{INVALID}TaskSpec: restart-delay cannot be", spec(template={"RestartPolicy": {"Delay": -1}})),
        (400, f"{INVALID}invalid cpu value 1e-06: Must be at least 0.001", spec(template=limits(NanoCPUs=1000))),
        (400, f"{INVALID}invalid memory value 1000: Must be at least 4MiB", spec(template=limits(MemoryBytes=1000))),
        (400, f'{INVALID}ContainerSpec: "Foo Bar" is not a valid repository/tag', spec(container={"Image": "Foo Bar"})),
        (400, f"{INVALID}ContainerSpec: duplicate mount point: /a", spec(container={"Mounts": [TMPFS, TMPFS]})),
        (400, f"{INVALID}ContainerSpec: Interval in HealthConfig", spec(container={"Healthcheck": {"Interval": 1}})),
        (400, f"{INVALID}secrets not found: a, b", spec(container={"Secrets": [no_secret("a"), no_secret("b")]})),
        (400, f"{INVALID}malformed secret reference", spec(container={"Secrets": [{"SecretName": "a"}]})),
        (400, f"{INVALID}malformed secret reference, no", spec(container={"Secrets": [no_secret("a", file=None)]})),
        *(
            (400, f"{INVALID}malformed file {kind} reference, invalid target file name", spec(container=files))
            for name in ("", "/", "..", "../a", "/a/../b", "a/", "a\nb")
            for kind, files in (
                ("secret", {"Secrets": [no_secret("a", file={"Name": name})]}),
                ("config", {"Configs": [{"ConfigID": "x", "ConfigName": "a", "File": {"Name": name}}]}),
            )
        ),
        (400, "cannot unmarshal number 1099511627776", spec(container={"Secrets": [no_secret("a", mode=2**40)]})),
        (400, "cannot unmarshal number -1", spec(container={"Secrets": [no_secret("a", mode=-1)]})),
        (400, "invalid UID", spec(container={"Secrets": [no_secret("a", uid="root")]})),
        (400, "invalid GID", spec(container={"Secrets": [no_secret("a", gid="9" * 5000)]})),
        (400, "a NUL character", spec(container={"Secrets": [no_secret("a\0b")]})),
        (400, "max expression depth exceeded", spec(container={"Env": ["A={{" + "(" * 3000 + ")" * 3000 + "}}"]})),
        (400, "hostname 'a\\nb' has a control character", spec(container={"Hostname": "a\nb"})),
        (400, "hostname 'a\\n1' has a control character", spec(container={"Hostname": 'a{{"\\n"}}{{.Task.Slot}}'})),
        (
            400,
            "network alias 'a\\nb' has a control",
            spec(template={"Networks": [{"Target": "n", "Aliases": ["a\nb"]}]}),
        ),
        (400, "cannot unmarshal number -1", spec(template={"ForceUpdate": -1})),
        (400, "cannot unmarshal number -1", spec(template={"Placement": {"MaxReplicas": -1}})),
        (400, "cannot unmarshal number -1", spec(template={"RestartPolicy": {"MaxAttempts": -1}})),
        (400, "cannot unmarshal number -1", spec(UpdateConfig={"Parallelism": -1})),
        (400, "invalid argument for resource gpu", spec(template=reserved("gpu", -1))),
        (400, "invalid argument for resource ", spec(template=reserved("", 1))),
        (400, "is not a valid repository/tag", spec(container={"Image": "a" + "." * 60 + "!"})),
        (400, "is not a duration", spec(Labels={"bennu.drain.deadline": "9" * 30 + "h"})),
        (400, "either File or Runtime should be set", spec(container={"Configs": [{"ConfigID": "x"}]})),
        (400, f"{INVALID}EndpointSpec: duplicate published ports", spec(EndpointSpec={"Ports": [PORT, PORT]})),
        (500, "network nonet not found", spec(template={"Networks": [{"Target": "nonet"}]})),
        (500, f"{UNKNOWN}constraint expected one operator", spec(template=constrained("node.role"))),
        (500, f"{UNKNOWN}key 'no de' is invalid", spec(template=constrained("no de==x"))),
        (500, f"{UNKNOWN}value '@' is invalid", spec(template=constrained("node.role==@"))),
        (400, "json: cannot unmarshal number -1", spec(Mode={"Replicated": {"Replicas": -1}})),
        (501, "is not implemented", spec(EndpointSpec={"Ports": [{"TargetPort": 80, "Protocol": "sctp"}]})),
    ],
)
def test_a_bad_specification_is_refused_in_known_words(
    node: SwarmNode, status: int, message: str, body: dict[str, Any]
) -> None:
    found, answer = call(node.daemon, "POST", "/services/create", body)
    assert found == status
    assert message in answer["message"]


def test_names_and_ports_are_taken_once(node: SwarmNode) -> None:
    ports = {"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 28123}]}}
    made = call(node.daemon, "POST", "/services/create", spec("a", **ports))[1]["ID"]
    status, answer = call(node.daemon, "POST", "/services/create", spec("a"))
    assert status == 409
    assert answer["message"].endswith("name conflicts with an existing object: service a already exists")
    status, answer = call(node.daemon, "POST", "/services/create", spec("b", **ports))
    assert status == 400
    assert f"port '28123' is already in use by service 'a' ({made}) as an ingress port" in answer["message"]


def test_a_login_that_is_no_text_is_no_login(node: SwarmNode) -> None:
    headers = {"Content-Type": "application/json", "X-Registry-Auth": "\xff"}
    assert node.daemon.request("POST", "/services/create", json.dumps(spec("unknown")), headers)[0] == 201


def test_a_dynamic_port_is_shown_and_kept(node: SwarmNode) -> None:
    made = call(node.daemon, "POST", "/services/create", spec(EndpointSpec={"Ports": [{"TargetPort": 80}]}))[1]["ID"]
    found = node.ask(f"/services/{made}")
    (port,) = found["Endpoint"]["Ports"]
    assert 30000 <= port["PublishedPort"] <= 32767
    assert "PublishedPort" not in found["Spec"]["EndpointSpec"]["Ports"][0]


def test_secrets_are_never_shown_and_configs_are(node: SwarmNode) -> None:
    body = {"Name": "word", "Data": "c2VzYW1l"}
    assert call(node.daemon, "POST", "/secrets/create", body)[0] == 201
    assert call(node.daemon, "POST", "/configs/create", body)[0] == 201
    assert "Data" not in node.ask("/secrets/word")["Spec"]
    assert node.ask("/configs/word")["Spec"]["Data"] == "c2VzYW1l"
    assert call(node.daemon, "POST", "/secrets/create", body)[0] == 409
    status, answer = call(node.daemon, "POST", "/secrets/create", {"Name": "empty", "Data": ""})
    assert status == 400
    assert answer["message"].endswith("secret data must be larger than 0 and less than 512000 bytes")


def test_filters_choose(node: SwarmNode) -> None:
    call(node.daemon, "POST", "/services/create", spec("one", Labels={"a": "b"}))
    call(node.daemon, "POST", "/services/create", spec("two"))
    assert [item["Spec"]["Name"] for item in node.ask("/services", label=["a=b"])] == ["one"]
    assert [item["Spec"]["Name"] for item in node.ask("/services", name=["tw"])] == ["two"]
    assert call(node.daemon, "GET", "/services?filters=%7B%22foo%22%3A%5B%22x%22%5D%7D")[0] == 400
    assert call(node.daemon, "GET", "/tasks?filters=%7B%22service%22%3A%5B%22none%22%5D%7D")[0] == 404


def test_docker_py_speaks_with_it(node: SwarmNode) -> None:
    client = docker_py.DockerClient(base_url=node.daemon.host, version="1.51", timeout=60)
    try:
        service = client.services.create("busybox:latest", ["sleep", "1000"], name="py", stop_grace_period=0)
        node.wait_running("py", 1)
        assert service.tasks()[0]["Status"]["State"] == "running"
        service.reload()
        assert service.scale(2)
        node.wait_running("py", 2)
        assert client.nodes.list()[0].attrs["Spec"]["Role"] == "manager"
        secret = client.secrets.create(name="k", data=b"v")
        assert client.secrets.get(secret.id).name == "k"
        service.remove()
    finally:
        client.close()
