"""Every field of a service's specification is honoured, or refused by its name."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support import images, traces
from support.daemon import Daemon
from support.swarm import SwarmNode, container_of
from support.waiting import wait_for

JSON = {"Content-Type": "application/json"}
SECOND = 10**9
NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
}


@pytest.fixture(scope="module")
def _node(able: None) -> Iterator[SwarmNode]:
    daemon = Daemon()
    try:
        daemon.start()
        images.import_base(daemon.docker, "busybox")
        daemon.request("POST", "/swarm/init", json.dumps({"ListenAddr": "0.0.0.0:2377"}), JSON)
        yield SwarmNode(daemon)
    finally:
        traces.discard(daemon)


@pytest.fixture
def node(_node: SwarmNode) -> Iterator[SwarmNode]:
    yield _node
    _node.clear()


def post(node: SwarmNode, path: str, body: Any) -> tuple[int, Any]:
    status, answer = node.daemon.request("POST", path, json.dumps(body), JSON)
    return status, json.loads(answer) if answer.strip() else None


def create(node: SwarmNode, container: dict[str, Any], template: dict[str, Any] | None = None, **spec: Any) -> str:
    """A service `s` of one task that sleeps; the id of the container of its task."""
    full = {"Image": "busybox:latest", "Args": ["sleep", "1000"], "StopGracePeriod": 0} | container
    body = {"Name": "s", "TaskTemplate": {"ContainerSpec": full} | (template or {})} | spec
    status, answer = post(node, "/services/create", body)
    assert status == 201, answer
    return container_of(node.wait_running("s", 1)[0])


def inside(node: SwarmNode, container: str, script: str) -> list[str]:
    return node.docker("exec", container, "sh", "-c", script).lines


def test_what_a_container_is_reaches_it(node: SwarmNode) -> None:
    container = create(
        node,
        {
            "Command": ["sh", "-c"],
            "Args": ["sleep 1000"],
            "Hostname": "h{{.Task.Slot}}",
            "Env": ["A=1", "NAME={{.Service.Name}}"],
            "Dir": "/tmp",
            "User": "daemon",
            "Groups": ["bin", "1234"],
            "StopSignal": "SIGINT",
            "StopGracePeriod": 7 * SECOND,
            "TTY": True,
            "OpenStdin": True,
            "ReadOnly": True,
            "Init": True,
            "Labels": {"l": "v"},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": SECOND, "StartInterval": SECOND},
        },
    )
    shown = node.ask(f"/containers/{container}/json")
    config, host = shown["Config"], shown["HostConfig"]
    assert (config["Entrypoint"], config["Cmd"]) == (["sh", "-c"], ["sleep 1000"])
    assert (config["Hostname"], config["WorkingDir"], config["User"]) == ("h1", "/tmp", "daemon")
    assert {"A=1", "NAME=s"} <= set(config["Env"])
    assert (config["StopSignal"], config["StopTimeout"]) == ("SIGINT", 7)
    assert config["Tty"] and config["OpenStdin"] and host["ReadonlyRootfs"] and host["Init"]
    assert config["Labels"]["l"] == "v"
    assert config["Healthcheck"]["Test"] == ["CMD", "true"]
    assert host["RestartPolicy"]["Name"] in ("", "no")
    found = inside(node, container, "id -G; touch /x 2>&1; pwd; cat /proc/1/comm")
    assert {"2", "1234"} <= set(found[0].split())
    assert "Read-only file system" in found[1]
    assert found[2] == "/tmp"
    assert "sleep" not in found[3]


def test_names_limits_and_rights_reach_it(node: SwarmNode) -> None:
    container = create(
        node,
        {
            "Hosts": ["10.1.2.3 one two"],
            "DNSConfig": {"Nameservers": ["10.9.9.9"], "Search": ["example.org"], "Options": ["ndots:3"]},
            "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "77"},
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
            "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["CAP_CHOWN"],
            "OomScoreAdj": 321,
            "Privileges": {
                "NoNewPrivileges": True,
                "AppArmor": {"Mode": "disabled"},
                "SELinuxContext": {"Disable": True, "User": "u", "Role": "r", "Type": "t", "Level": "l"},
            },
        },
        {
            "Resources": {
                "Limits": {"NanoCPUs": SECOND // 2, "MemoryBytes": 64 << 20, "Pids": 50},
                "Reservations": {"NanoCPUs": SECOND // 10, "MemoryBytes": 16 << 20},
            },
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        },
    )
    host = node.ask(f"/containers/{container}/json")["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (SECOND // 2, 64 << 20, 50)
    assert host["MemoryReservation"] == 16 << 20
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    labels = {"label=disable", *(f"label={part}:{part[0]}" for part in ("user", "role", "type", "level"))}
    assert set(host["SecurityOpt"]) == {"no-new-privileges", "apparmor=unconfined", *labels}
    assert node.ask("/services/s")["Spec"]["TaskTemplate"]["ContainerSpec"]["Privileges"]["SELinuxContext"]["Disable"]
    found = inside(
        node,
        container,
        "grep -c 10.1.2.3 /etc/hosts; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ulimit -n; ulimit -Hn;"
        "cat /proc/1/oom_score_adj; grep NoNewPrivs /proc/1/status; touch /f; chown 5 /f 2>&1; ip link set lo down; "
        "echo $?; getent hosts one two 2>/dev/null; cat /etc/resolv.conf",
    )
    assert int(found[0]) >= 1
    assert found[1:5] == ["77", "100", "200", "321"]
    assert found[5].split() == ["NoNewPrivs:", "1"]
    assert "Operation not permitted" in found[6]
    assert found[7] == "0"
    assert {"nameserver 10.9.9.9", "search example.org", "options ndots:3"} <= set(found)
    assert inside(node, container, "grep -E 'one|two' /etc/hosts | wc -l") != ["0"]
    assert "two" in "".join(inside(node, container, "cat /etc/hosts"))


def test_mounts_reach_it_with_their_templates(node: SwarmNode) -> None:
    container = create(
        node,
        {
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "data-{{.Task.Slot}}",
                    "Target": "/data",
                    "VolumeOptions": {"Labels": {"of": "{{.Service.Name}}"}, "NoCopy": True},
                },
                {"Type": "bind", "Source": str(node.daemon.root), "Target": "/bound", "ReadOnly": True},
                {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}},
            ]
        },
    )
    assert node.ask("/volumes/data-1")["Labels"]["of"] == "s"
    found = inside(node, container, "touch /bound/x 2>&1; stat -c %a /t; df -k /t | tail -1")
    assert "Read-only file system" in found[0]
    assert found[1] == "700"
    assert found[2].split()[1] == "1024"
    node.docker("service", "rm", "s")
    wait_for(lambda: not node.docker("ps", "-aq").lines, timeout_s=30)
    node.docker("volume", "rm", "data-1")


def test_a_seccomp_profile_of_the_services_own_is_in_force(node: SwarmNode) -> None:
    profile = base64.b64encode(json.dumps(NO_MKDIR).encode()).decode()
    container = create(node, {"Privileges": {"Seccomp": {"Mode": "custom", "Profile": profile}}})
    assert "Operation not permitted" in inside(node, container, "mkdir /d 2>&1; true")[0]


def test_templates_of_configs_see_the_task_its_secrets_and_its_environment(node: SwarmNode) -> None:
    def make(kind: str, name: str, text: str, **more: Any) -> dict[str, Any]:
        body = {"Name": name, "Data": base64.b64encode(text.encode()).decode()} | more
        made = post(node, f"/{kind}s/create", body)[1]["ID"]
        file = {"Name": name, "UID": "0", "GID": "0", "Mode": 0o444}
        return {"File": file, f"{kind.title()}ID": made, f"{kind.title()}Name": name}

    text = '{{.Service.Name}} {{.Task.Slot}} {{secret "word"}} {{config "plain"}} {{env "A"}}'
    references = {
        "Secrets": [make("secret", "word", "sesame")],
        "Configs": [make("config", "plain", "p"), make("config", "made", text, Templating={"Name": "golang"})],
        "Env": ["A=b"],
    }
    container = create(node, references)
    assert inside(node, container, "cat /made") == ["s 1 sesame p b"]
    node.docker("service", "rm", "s")
    for kind in ("secret", "config"):
        node.docker(kind, "rm", *node.docker(kind, "ls", "-q").lines)


@pytest.mark.parametrize(
    ("container", "template", "why"),
    [
        ({}, {"LogDriver": {"Name": "gelf"}}, "no suitable node (missing plugin on 1 node)"),
        (
            {"Mounts": [{"Type": "volume", "Target": "/d", "VolumeOptions": {"DriverConfig": {"Name": "rexray"}}}]},
            {},
            "no suitable node (missing plugin on 1 node)",
        ),
        (
            {},
            {"Placement": {"Platforms": [{"Architecture": "s390x", "OS": "linux"}]}},
            "no suitable node (unsupported platform on 1 node)",
        ),
        (
            {},
            {
                "Resources": {
                    "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]}
                }
            },
            "no suitable node (insufficient resources on 1 node)",
        ),
        (
            {},
            {"Placement": {"Constraints": ["node.labels.x==y"]}},
            "no suitable node (scheduling constraints not satisfied on 1 node)",
        ),
        (
            {},
            {"Resources": {"Reservations": {"MemoryBytes": 1 << 50}}},
            "no suitable node (insufficient resources on 1 node)",
        ),
    ],
)
def test_what_no_node_has_leaves_the_task_pending_with_the_reason(
    node: SwarmNode, container: dict[str, Any], template: dict[str, Any], why: str
) -> None:
    full = {"Image": "busybox:latest", "Args": ["sleep", "1000"]} | container
    post(node, "/services/create", {"Name": "s", "TaskTemplate": {"ContainerSpec": full} | template})
    wait_for(lambda: node.wait_task("s", "pending")["Status"].get("Err") == why, timeout_s=10, what=why)
    assert why in node.daemon.bennu("why", "s").out
    assert why in node.daemon.docker("service", "ps", "--no-trunc", "s").out


def test_labels_and_resources_of_the_engine_decide_about_placement(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(options=["--label", "disk=ssd", "--node-generic-resource", "gpu=1"])
    images.import_base(daemon.docker, "busybox")
    daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    node = SwarmNode(daemon)
    shown = node.ask("/nodes/self")["Description"]
    assert shown["Engine"]["Labels"] == {"disk": "ssd"}
    assert shown["Resources"]["GenericResources"] == [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]
    assert node.ask("/info")["Labels"] == ["disk=ssd"]
    words = ("--constraint", "engine.labels.disk==ssd", "--generic-resource", "gpu=1", "busybox", "sleep", "1000")
    node.create("one", *words)
    (task,) = node.wait_running("one", 1)
    assert task["GenericResources"] == [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]
    node.create("two", *words)
    wait_for(lambda: node.wait_task("two", "pending")["Status"].get("Err"), what="a reason")
    assert node.wait_task("two", "pending")["Status"]["Err"] == "no suitable node (insufficient resources on 1 node)"
    node.docker("service", "rm", "one")
    node.wait_running("two", 1)
    node.clear()


def test_max_replicas_per_node_is_a_limit(node: SwarmNode) -> None:
    create(node, {}, {"Placement": {"MaxReplicas": 1}}, Mode={"Replicated": {"Replicas": 1}})
    node.docker("service", "scale", "-d", "s=2")
    pending = node.wait_task("s", "pending")
    wait_for(lambda: "max replicas per node limit exceed" in node.wait_task("s", "pending")["Status"].get("Err", ""))
    assert pending["Slot"] == 2
    assert node.docker("service", "ls", "--format", "{{.Replicas}}").line == "1/2 (max 1 per node)"


@pytest.mark.parametrize(
    ("status", "what", "container", "template"),
    [
        (501, "ContainerSpec.Privileges.CredentialSpec", {"Privileges": {"CredentialSpec": {"File": "f"}}}, {}),
        (501, "ContainerSpec.Isolation hyperv", {"Isolation": "hyperv"}, {}),
        (501, "cluster volumes (CSI)", {"Mounts": [{"Type": "cluster", "Source": "v", "Target": "/v"}]}, {}),
        (501, "(Runtime)", {"Configs": [{"ConfigID": "x", "ConfigName": "x", "Runtime": {}}]}, {}),
        (501, "TaskTemplate.PluginSpec", {}, {"PluginSpec": {"Name": "p"}}),
        (501, "runtime plugin", {}, {"Runtime": "plugin"}),
        (400, "unrecognized seccomp mode x", {"Privileges": {"Seccomp": {"Mode": "x"}}}, {}),
        (400, "mode custom needs one", {"Privileges": {"Seccomp": {"Mode": "custom"}}}, {}),
        (400, "unrecognized AppArmor mode x", {"Privileges": {"AppArmor": {"Mode": "x"}}}, {}),
        (400, 'invalid MountType: "foo"', {"Mounts": [{"Type": "foo", "Target": "/a"}]}, {}),
        (400, "can't evaluate field Foo", {"Env": ["A={{.Foo}}"]}, {}),
    ],
)
def test_what_is_not_honoured_is_refused_by_its_name(
    node: SwarmNode, status: int, what: str, container: dict[str, Any], template: dict[str, Any]
) -> None:
    full = {"Image": "busybox:latest"} | container
    body = {"Name": "s", "TaskTemplate": {"ContainerSpec": full} | template}
    found, answer = post(node, "/services/create", body)
    assert (found, what in answer["message"]) == (status, True), answer
