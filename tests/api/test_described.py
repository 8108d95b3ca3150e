"""The published description of API 1.51, field by field: what it names is honoured, refused, or here with its reason.

`support/api-1.51.json` has the facts; `support.published` makes it anew from a description.
"""

import functools
import json
import re
from fnmatch import fnmatchcase
from typing import Any, Final

from support.daemon import Daemon
from support.described import ROUTES, SOURCE, Seen, attributes, unread_fields, words_of_the_source
from support.hostile import BODIES, read_routes
from support.waiting import wait_for

Json = Any
WINDOWS: Final = "exists on Windows alone"
CLIENT: Final = "clients keep it for themselves; dockerd does not read it either"
ONE_NODE: Final = "a swarm is one node: there is no other to choose, to wait for or to force"
NO_PLUGINS: Final = "there are no plugins"
STORE: Final = "of stores that keep images for several platforms; dockerd with layers on disk leaves it out too"

# Fields of bodies that no shape has.
NOT_READ: Final[dict[str, str]] = {"AuthConfig.email": "registries have had no use for it since 2016"}
# Fields of shapes that nothing reads.
WITHOUT_EFFECT: Final[dict[str, str]] = {
    "HostConfig.ContainerIDFile": CLIENT,
    "HostConfig.CpuPercent": WINDOWS,
    "InitBody.DataPathAddr": ONE_NODE,
    "Mount.Consistency": "exists on macOS alone",
    "UpdateBody.ContainerIDFile": "no field of an update",
    "UpdateBody.CpuPercent": WINDOWS,
}
# Parameters of queries that no handler reads.
NOT_ASKED: Final[dict[str, str]] = {
    "POST /containers/{}/start detachKeys": CLIENT,
    "PUT /containers/{}/archive copyUIDGID": "files keep the owners that the archive names",
    "GET /images/json digests": CLIENT,
    "GET /images/json manifests": STORE,
    "GET /networks/{} verbose": ONE_NODE,
    "GET /plugins filters": NO_PLUGINS,
    "GET /plugins/privileges remote": NO_PLUGINS,
    "POST /plugins/pull name": NO_PLUGINS,
    "POST /plugins/create name": NO_PLUGINS,
    "DELETE /plugins/{} force": NO_PLUGINS,
    "POST /plugins/{}/enable timeout": NO_PLUGINS,
    "POST /plugins/{}/disable force": NO_PLUGINS,
    "PUT /volumes/{} version": "volumes of a cluster are refused by name",
    "DELETE /nodes/{} force": ONE_NODE,
}


@functools.cache
def our_routes() -> dict[str, Any]:
    return {f"{route.method} {bare(route.path)}": route for route in read_routes()}


def bare(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


# --- what is asked ----------------------------------------------------------------------------------------------


def test_every_route_is_there() -> None:
    assert [key for key in ROUTES if bare(key) not in our_routes()] == []


def test_every_field_of_a_body_is_read() -> None:
    unread = set()
    for (method, path), (shape, _) in BODIES.items():
        if (described := ROUTES.get(f"{method} {path}")) is not None:
            unread |= set(unread_fields(described["body"], shape))
    assert unread == set(NOT_READ)


def test_every_body_that_is_json_has_a_shape() -> None:
    refused = {
        "PUT /volumes/{name}",
        "POST /swarm/join",
        "POST /swarm/unlock",
    }  # by name, whatever it holds
    described = {key for key, facts in ROUTES.items() if facts["body"] not in ("", "string")}
    assert described - {" ".join(key) for key in BODIES} == refused


def test_every_field_that_is_read_has_an_effect() -> None:
    words = words_of_the_source()
    found = {name: attribute for shape, _ in BODIES.values() for name, attribute in attributes(shape)}
    idle = {name for name, attribute in found.items() if attribute not in words and name.partition(".")[2] not in words}
    assert idle == set(WITHOUT_EFFECT)


def test_every_parameter_of_a_query_is_read() -> None:
    built = (SOURCE / "api/routes/build.py").read_text()  # names its limits in tables
    unread = set()
    for key, facts in ROUTES.items():
        names = set(our_routes()[bare(key)].parameters)
        if key.startswith("POST /build"):
            names |= set(re.findall(r'"([\w-]+)"', built))
        unread |= {f"{bare(key)} {name}" for name in set(facts["query"]) - names}
    assert unread == set(NOT_ASKED)


# --- what is answered -------------------------------------------------------------------------------------------

SERVICE: Final[Json] = {
    "Name": "web",
    "Labels": {"a": "b"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "busybox:latest",
            "Labels": {"a": "b"},
            "Command": ["sleep"],
            "Args": ["1000"],
            "Hostname": "h",
            "Env": ["A=b"],
            "Dir": "/",
            "User": "0",
            "Groups": ["1"],
            "Privileges": {
                "NoNewPrivileges": True,
                "Seccomp": {"Mode": "default"},
                "AppArmor": {"Mode": "default"},
                "SELinuxContext": {"Disable": True},
            },
            "TTY": True,
            "OpenStdin": True,
            "ReadOnly": True,
            "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}}],
            "StopSignal": "SIGKILL",
            "StopGracePeriod": 1,
            "HealthCheck": {"Test": ["NONE"]},
            "Hosts": ["10.0.0.1 a"],
            "DNSConfig": {"Nameservers": ["10.0.0.1"], "Search": ["a"], "Options": ["b"]},
            "Init": True,
            "Sysctls": {"kernel.msgmax": "8192"},
            "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["CAP_CHOWN"],
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
            "OomScoreAdj": 1,
        },
        "Resources": {
            "Limits": {"NanoCPUs": 10**9, "MemoryBytes": 64 << 20, "Pids": 50},
            "Reservations": {"NanoCPUs": 10**7, "MemoryBytes": 8 << 20},
        },
        "RestartPolicy": {"Condition": "any", "Delay": 1, "MaxAttempts": 1, "Window": 1},
        "Placement": {
            "Constraints": ["node.role==manager"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.id"}}],
            "MaxReplicas": 3,
            "Platforms": [{"OS": "linux"}],
        },
        "ForceUpdate": 1,
        "LogDriver": {"Name": "json-file", "Options": {"max-file": "2"}},
    },
    "Mode": {"Replicated": {"Replicas": 1}},
    "UpdateConfig": {"Parallelism": 1, "Delay": 1, "FailureAction": "pause", "Monitor": 1, "MaxFailureRatio": 0.5},
    "RollbackConfig": {"Parallelism": 1, "FailureAction": "pause", "Order": "stop-first"},
    "EndpointSpec": {
        "Mode": "vip",
        "Ports": [{"Name": "p", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 28080, "PublishMode": "host"}],
    },
}
CONTAINER: Final[Json] = {
    "Image": "busybox",
    "Cmd": ["sleep", "1000"],
    "ExposedPorts": {"80/tcp": {}},
    "Healthcheck": {
        "Test": ["CMD", "true"],
        "Interval": 10**9,
        "Timeout": 10**9,
        "StartPeriod": 10**9,
        "Retries": 1,
        "StartInterval": 10**9,
    },
    "Shell": ["/bin/sh", "-c"],
    "StopSignal": "SIGKILL",
    "StopTimeout": 1,
    "HostConfig": {
        "NetworkMode": "made",
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
        "Mounts": [
            {
                "Type": "volume",
                "Source": "made",
                "Target": "/v",
                "VolumeOptions": {"Labels": {"a": "b"}, "NoCopy": True, "DriverConfig": {"Name": "local"}},
            },
            {
                "Type": "bind",
                "Source": "/mnt",
                "Target": "/b",
                "ReadOnly": True,
                "BindOptions": {
                    "Propagation": "rprivate",
                    "NonRecursive": True,
                    "CreateMountpoint": True,
                    "ReadOnlyNonRecursive": True,
                },
            },
            {
                "Type": "tmpfs",
                "Target": "/u",
                "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700, "Options": [["noexec"]]},
            },
        ],
        "Tmpfs": {"/t": "size=1m"},
        "Annotations": {"a": "b"},
        "Sysctls": {"kernel.msgmax": "8192"},
        "Init": True,
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "rwm"}],
    },
    "NetworkingConfig": {"EndpointsConfig": {"made": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.99.0.9"}}}},
}
NETWORK: Final[Json] = {
    "Name": "made",
    "IPAM": {"Config": [{"Subnet": "10.99.0.0/16", "IPRange": "10.99.0.0/24", "Gateway": "10.99.0.1"}]},
    "Labels": {"a": "b"},
}
NETWORK["IPAM"]["Config"][0]["AuxiliaryAddresses"] = {"x": "10.99.0.2"}


# Numbers that are null when nothing was given.
MAY_BE_NULL: Final = ("HostConfig.MemorySwappiness", "HostConfig.PidsLimit", "GET /exec/{id}/json answer.ExitCode")
# Fields of answers that the description lacks.
NOT_DESCRIBED: Final[dict[str, str]] = {
    "ContainerInspectResponse.Bennu": "our own",
    "ContainerSummary.Bennu": "our own",
    "IDResponse.ID": "dockerd's name for what the description calls Id",
    "Service.PreviousSpec": "dockerd has it",
    "TaskSpec.ContainerSpec.Healthcheck": "dockerd's name for what the description calls HealthCheck",
}
# Fields that no answer has here, by reason.
ABSENT: Final[dict[str, tuple[str, ...]]] = {
    STORE: ("*.ImageManifestDescriptor", "Image*.Descriptor", "Image*.Manifests"),
    WINDOWS: (
        *("ContainerMemoryStats.commit*", "ContainerMemoryStats.privateworkingset", "ContainerStorageStats.*"),
        *("ContainerNetworkStats.endpoint_id", "ContainerNetworkStats.instance_id", "ImageInspect.OsVersion"),
        *("TaskSpec.ContainerSpec.Privileges.CredentialSpec", "TaskSpec.ContainerSpec.Configs[[]].Runtime"),
    ),
    "of one version of control groups alone": (
        *("ContainerMemoryStats.max_usage", "ContainerMemoryStats.failcnt", "ContainerCPUUsage.percpu_usage"),
        *("ContainerThrottlingData.*", "ContainerBlkioStats*"),
    ),
    "left out unless it was asked for": (
        *("ContainerConfig.ArgsEscaped", "ContainerConfig.MacAddress", "ImageConfig.ArgsEscaped", "ImageConfig.Shell"),
        *("EndpointIPAMConfig.IPv6Address", "EndpointIPAMConfig.LinkLocalIPs", "ImageInspect.Variant"),
        "NetworkAttachmentConfig.DriverOpts",
        *("Mount.BindOptions.ReadOnlyForceRecursive", "Mount.VolumeOptions.DriverConfig.Options"),
        *("Mount.VolumeOptions.Subpath", "Mount.ImageOptions"),
        *("ServiceSpec.Networks", "ServiceSpec.RollbackConfig.Delay", "NodeSpec.Name", "NodeStatus.Message"),
        *("ResourceObject.GenericResources", "Task*.Name", "Task.AssignedGenericResources", "*.Templating"),
        *("TaskSpec.ContainerSpec.Privileges.Seccomp.Profile", "Platform.Architecture", "Runtime.runtimeArgs"),
    ),
    "told of what went wrong or is over": (
        *("ContainerWaitResponse.Error", "TaskStatus.Err", "Service.UpdateStatus.CompletedAt"),
    ),
    "refused by name when it is asked for": (
        *("ContainerConfig.NetworkDisabled", "HostConfig.StorageOpt"),
        *("HostConfig.KernelMemoryTCP", "Mount.Consistency"),
        *("SecretSpec.Driver", "SwarmSpec.CAConfig.*", "SwarmSpec.TaskDefaults.LogDriver", "Volume.ClusterVolume"),
        *("TaskSpec.NetworkAttachmentSpec", "TaskSpec.PluginSpec"),
    ),
    ONE_NODE: ("Network.Peers", "TLSInfo.*"),
    "never shown": ("SecretSpec.Data",),
    "empty, and then dockerd leaves it out too": (
        *("PortStatus.Ports", "SystemVersion.Experimental", "SystemInfo.ProductLicense", "Volume.Status"),
        *("TaskSpec.ContainerSpec.HealthCheck", "IDResponse.Id", "EngineDescription.Labels"),
    ),
    "there is no containerd, and no feature of this host behind it": (
        *("SystemInfo.Containerd", "SystemInfo.CDISpecDirs", "SystemInfo.DiscoveredDevices", "Runtime.status"),
        *(
            "SystemInfo.DefaultAddressPools",
            "SystemInfo.FirewallBackend",
            "SystemInfo.KernelMemoryTCP",
            "FirewallInfo.*",
        ),
    ),
}
NO_JSON: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("GET /containers/{id}/logs", "GET /services/{id}/logs", "GET /tasks/{id}/logs", "GET /events"), "a stream"
    ),
    **dict.fromkeys(("GET /images/{name}/get", "GET /images/get"), "a tar archive"),
    **dict.fromkeys(("GET /_ping", "HEAD /_ping"), "plain text"),
    **dict.fromkeys(("GET /images/search", "POST /auth", "GET /distribution/{name}/json"), "asks a registry"),
    **dict.fromkeys(("GET /plugins/privileges", "GET /plugins/{name}/json", "DELETE /plugins/{name}"), NO_PLUGINS),
}


class Client:
    """Asks for what a route of the description names, and has a look at each answer."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.seen, self.asked = daemon, Seen(), set[str]()

    def ask(self, key: str, *names: str, query: str = "", body: Json = None) -> Json:
        """Ask by method and path as described; `names` go where the path has one."""
        method, path = key.split(" ")
        parts = iter(names)
        url = re.sub(r"\{[^}]*\}", lambda _: next(parts), path) + query
        headers = {} if body is None else {"Content-Type": "application/json"}
        raw_body = body if isinstance(body, bytes | None) else json.dumps(body)
        status, raw = self.daemon.request(method, f"/v1.51{url}", raw_body, headers)
        assert status in (200, 201), (key, status, raw)
        answer = json.loads(raw)
        self.seen.look(ROUTES[key]["answer"], answer)
        self.asked.add(key)
        return answer


def look_at_containers(client: Client) -> None:
    client.ask("POST /volumes/create", body={"Name": "made", "Labels": {"a": "b"}})
    client.ask("POST /networks/create", body=NETWORK)
    client.ask("POST /containers/create", query="?name=made", body=CONTAINER)
    assert client.daemon.request("POST", "/containers/made/start")[0] == 204
    client.daemon.docker("exec", "made", "sh", "-c", "echo new > /new")
    session = client.ask("POST /containers/{id}/exec", "made", body={"Cmd": ["sh", "-c", "exit 3"], "User": "0"})["Id"]
    client.daemon.request("POST", f"/exec/{session}/start", '{"Detach":true}', {"Content-Type": "application/json"})
    wait_for(lambda: client.ask("GET /exec/{id}/json", session)["ExitCode"] == 3)
    wait_for(lambda: client.ask("GET /containers/{id}/json", "made", query="?size=1")["State"]["Health"]["Log"])
    client.ask("GET /containers/{id}/json", "made", query="?size=1")
    client.ask("GET /containers/json", query="?size=1")
    for path in ("top", "changes"):
        client.ask(f"GET /containers/{{id}}/{path}", "made")
    client.ask("GET /containers/{id}/stats", "made", query="?stream=false")
    client.ask("POST /containers/{id}/update", "made", body={"CpuShares": 512})
    client.ask("GET /networks/{id}", "made")
    client.ask("GET /networks")
    client.ask("GET /volumes")
    client.ask("GET /volumes/{name}", "made")
    client.ask("POST /commit", query="?container=made&repo=committed", body={})
    assert client.daemon.request("POST", "/containers/made/kill")[0] == 204
    client.ask("POST /containers/{id}/wait", "made")
    client.ask("POST /containers/prune")


def look_at_images(client: Client) -> None:
    client.ask("GET /images/json", query="?shared-size=1")
    client.ask("GET /images/{name}/json", "committed")
    client.ask("GET /images/{name}/history", "busybox")
    client.ask("GET /system/df")
    client.ask("DELETE /images/{name}", "committed")
    for kind in ("images", "networks", "volumes"):
        client.ask(f"POST /{kind}/prune")
    client.ask("POST /build/prune")
    assert client.daemon.request("DELETE", "/volumes/made")[0] == 204
    for path in ("/info", "/version", "/plugins"):
        client.ask(f"GET {path}")


def look_at_a_swarm(client: Client) -> None:
    client.ask("POST /swarm/init", body={"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})
    references = {}
    for kind, word in (("secrets", "Secret"), ("configs", "Config")):
        made = client.ask(f"POST /{kind}/create", body={"Name": "s", "Data": "eA==", "Labels": {"a": "b"}})
        client.ask(f"GET /{kind}/{{id}}", made["ID"])
        client.ask(f"GET /{kind}")
        file = {"Name": kind, "UID": "0", "GID": "0", "Mode": 0o400}
        references[f"{word}s"] = [{"File": file, f"{word}ID": made["ID"], f"{word}Name": "s"}]
    SERVICE["TaskTemplate"]["ContainerSpec"] |= references
    client.ask("POST /networks/create", body={"Name": "over", "Driver": "overlay"})
    SERVICE["TaskTemplate"]["Networks"] = [{"Target": "over", "Aliases": ["web"]}]
    service = client.ask("POST /services/create", body=SERVICE)["ID"]
    plain = {"ContainerSpec": {"Image": "busybox:latest", "Command": ["true"]}}
    for mode in ("Global", "GlobalJob", "ReplicatedJob"):
        spec = {"Name": mode.lower(), "TaskTemplate": plain, "Mode": {mode: {}}}
        client.ask("POST /services/create", body=spec)
    wait_for(lambda: any("ContainerStatus" in one["Status"] for one in client.ask("GET /tasks")))
    changed = SERVICE | {"TaskTemplate": SERVICE["TaskTemplate"] | {"ForceUpdate": 2}}
    version = client.ask("GET /services/{id}", service)["Version"]["Index"]
    client.ask("POST /services/{id}/update", service, query=f"?version={version}", body=changed)
    wait_for(lambda: "UpdateStatus" in client.ask("GET /services/{id}", service))
    client.ask("GET /services", query="?status=1")
    client.ask("GET /tasks/{id}", client.ask("GET /tasks")[0]["ID"])
    client.ask("GET /nodes/{id}", client.ask("GET /nodes")[0]["ID"])
    for path in ("/swarm", "/swarm/unlockkey", "/info"):
        client.ask(f"GET {path}")
    assert client.daemon.request("POST", "/swarm/leave?force=1")[0] == 200
    wait_for(lambda: not client.ask("GET /containers/json", query="?all=1"), timeout_s=30)


def test_every_field_of_an_answer_is_there_and_of_its_type(daemon: Daemon, busybox: str) -> None:
    client = Client(daemon)
    look_at_containers(client)
    look_at_images(client)
    look_at_a_swarm(client)
    seen = client.seen
    assert {
        one for one in seen.wrong if not one.endswith("= None") or one.partition(" = ")[0] not in MAY_BE_NULL
    } == set()
    assert seen.strange - set(NOT_DESCRIBED) == set()
    reasons = [pattern for patterns in ABSENT.values() for pattern in patterns]
    assert {one for one in seen.absent() if not any(fnmatchcase(one, pattern) for pattern in reasons)} == set()
    assert {key for key, facts in ROUTES.items() if facts["answer"]} - client.asked == set(NO_JSON)
