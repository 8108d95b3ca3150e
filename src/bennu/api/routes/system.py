"""`_ping`, `version`, `info`, `auth`, `system/df`: what the engine tells of itself and its host."""

import asyncio
import os
import platform
import re
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from bennu import __version__
from bennu.api.http.query import Filters, api_minor
from bennu.api.http.responses import json_response
from bennu.api.http.versions import API_VERSION, MIN_API_VERSION
from bennu.api.routes.swarm import info_json
from bennu.api.routes.volumes import volume_json
from bennu.api.shapes.image_list import layer_uses, list_images
from bennu.api.shapes.inspect import STORAGE_DRIVER
from bennu.api.shapes.instants import rfc3339
from bennu.api.shapes.list import list_entry
from bennu.api.shapes.service import generic_json
from bennu.build.usage import UsageRecord
from bennu.cluster import Cluster
from bennu.confined.client import measure_tree
from bennu.engine.container import Container
from bennu.engine.defaults import is_cgroup_v2
from bennu.engine.engine import Engine
from bennu.engine.links import names_by_link
from bennu.engine.settings import EngineSettings
from bennu.engine.unsupported import runtime_names
from bennu.errors import InvalidParameter
from bennu.images.platform import host_architecture
from bennu.images.reference import HUB
from bennu.images.registries import Registries
from bennu.lifecycle.status import State
from bennu.model import HostConfig
from bennu.plugins import VOLUMES
from bennu.runtime.cdi import DRIVER as CDI
from bennu.runtime.cdi import read_cdi_devices
from bennu.store.aside import read_aside
from bennu.volumes import Volume

NO_CACHE: Final = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
PING: Final = NO_CACHE | {"Builder-Version": "2"}
BUILTIN: Final = "builtin"
REGISTRY: Final = "https://index.docker.io/v1/"
DISK_KINDS: Final = frozenset({"container", "image", "volume", "build-cache"})
Json = dict[str, Any]


def routes(engine: Engine, cluster: Cluster) -> list[web.RouteDef]:
    api = SystemRoutes(engine, cluster)
    return [
        web.route("GET", "/_ping", api.ping),
        web.route("HEAD", "/_ping", api.ping),
        web.route("GET", "/version", api.version),
        web.route("GET", "/info", api.info),
        web.route("GET", "/system/df", api.disk_usage),
    ]


class SystemRoutes:
    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster

    async def ping(self, request: web.Request) -> web.Response:
        headers = PING | {"Swarm": "active/manager" if self._cluster.is_active else "inactive"}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": "0"}, content_type="text/plain", charset="utf-8")
        return web.Response(text="OK", headers=headers, content_type="text/plain", charset="utf-8")

    async def version(self, request: web.Request) -> web.Response:
        common = {
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": host_architecture(),
            "KernelVersion": platform.release(),
            "BuildTime": "",
        }
        is_experimental = self._engine.services.settings.experimental
        told = {"Experimental": "true" if is_experimental else "false"}
        engine = {"Name": "Engine", "Version": __version__, "Details": common | told}
        python = {"Name": "python", "Version": platform.python_version(), "Details": {}}
        return json_response(
            {
                "Platform": {"Name": "Bennu"},
                "Components": [engine, python],
                "Version": __version__,
                **common,
                **({"Experimental": True} if is_experimental else {}),
            }
        )

    async def info(self, request: web.Request) -> web.Response:
        warnings = [str(one) for one in await read_aside(self._engine.services.store)]
        if self._engine.services.settings.seccomp_profile != BUILTIN:
            warnings.append("daemon is not using the default seccomp profile")
        told = {"Warnings": [f"WARNING: {text}" for text in warnings] or None}
        facts = await asyncio.to_thread(lambda: host_facts() | self._settings())
        return json_response(info_as_of(self._containers() | self._engine_facts() | facts | told, api_minor(request)))

    def _containers(self) -> Json:
        states = Counter(container.record.state for container in self._engine.list())
        return {
            "Containers": states.total(),
            "ContainersRunning": states[State.RUNNING],
            "ContainersPaused": states[State.PAUSED],
            "ContainersStopped": states.total() - states[State.RUNNING] - states[State.PAUSED],
            "Images": len(self._engine.services.images.list()),
        }

    def _settings(self) -> Json:
        """Tell what bennud's options say."""
        settings = self._engine.services.settings
        pools = [{"Base": base, "Size": size} for base, size in settings.address_pools]
        return {
            "ID": self._engine.services.engine_id,
            "Debug": settings.debug,
            "Labels": list(settings.labels),
            "ExperimentalBuild": settings.experimental,
            "HttpProxy": settings.proxies.get("http-proxy", ""),
            "HttpsProxy": settings.proxies.get("https-proxy", ""),
            "NoProxy": settings.proxies.get("no-proxy", ""),
            "RegistryConfig": registry_config(settings.registries),
            "SecurityOptions": security_options(settings),
            "CDISpecDirs": list(settings.cdi_folders),
            "DiscoveredDevices": [{"Source": CDI, "ID": name} for name in read_cdi_devices(settings.cdi_folders)],
            "FirewallBackend": {"Driver": "nftables"},
        } | ({"DefaultAddressPools": pools} if pools else {})

    def _engine_facts(self) -> Json:
        services = self._engine.services
        runtime = services.runtime.oci_name
        return {
            "NGoroutines": threading.active_count() + len(asyncio.all_tasks()),  # what runs at once
            "NEventsListener": services.journal.followers,
            "Driver": STORAGE_DRIVER,
            "DriverStatus": [["Backing Filesystem", filesystem_of(services.data_root)], ["Supports d_type", "true"]],
            "Plugins": {
                "Volume": ["local", *services.plugins.known_names(VOLUMES)],
                "Network": ["bridge", "host", "null"],
                "Authorization": list(services.settings.authorization_plugins) or None,
                "Log": ["json-file", "local", "none"],
            },
            "LoggingDriver": services.settings.containers.log_driver,
            "DockerRootDir": str(services.data_root),
            "Runtimes": {name: {"path": runtime} for name in runtime_names(runtime)},
            "DefaultRuntime": runtime,
            "Swarm": info_json(self._cluster),
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "tini",
            "ServerVersion": __version__,
            "GenericResources": generic_json(self._cluster.nodes.host.generic),
            "IndexServerAddress": REGISTRY,
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": ""},
            "InitCommit": {"ID": ""},
        }

    async def disk_usage(self, request: web.Request) -> web.Response:
        """Tell what takes disk space; `type=container` and the like choose."""
        minor = api_minor(request)
        kinds = set(request.query.getall("type", ()) if minor >= 42 else ()) or DISK_KINDS
        for unknown in kinds - DISK_KINDS:
            raise InvalidParameter(f"unknown object type: {unknown}")
        services = self._engine.services
        document: Json = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None, "BuildCache": None}
        if "image" in kinds:
            used = Counter(container.record.image_id for container in self._engine.list())
            document["LayersSize"] = sum(layer_uses(services.images)[1].values())
            document["Images"] = list_images(
                services.images, Filters({}), everything=False, minor=minor, containers=used, with_shared=True
            )
        if "container" in kinds:
            links = names_by_link(container.record for container in self._engine.list())
            document["Containers"] = [
                list_entry(self._engine, container, minor, await self._sizes(container), links)
                for container in self._engine.list()
            ]
        if "volume" in kinds:
            document["Volumes"] = [await self._volume(volume) for volume in services.volumes.list()]
        if "build-cache" in kinds:
            document["BuildCache"] = [cache_json(one) for one in await self._engine.builder.usage()]
        return json_response(document)

    async def _sizes(self, container: Container) -> tuple[int, int]:
        services = self._engine.services
        own = await measure_tree(services.folder(container.id) / "diff")
        image = services.images.get(container.record.image_id)
        return own, own + (image.size if image else 0)

    async def _volume(self, volume: Volume) -> Json:
        users = sum(
            any((point.type, point.name) == ("volume", volume.name) for point in container.record.mounts)
            for container in self._engine.list()
        )
        size = await self._engine.services.volumes.measure(volume)
        return volume_json(volume) | {"UsageData": {"RefCount": users, "Size": size}}


def cache_json(record: UsageRecord) -> Json:
    return {
        "ID": record.id,
        "Parents": list(record.parents) or None,
        "Type": record.kind,
        "Description": record.description,
        "InUse": record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "CreatedAt": rfc3339(record.created_ns),
        "LastUsedAt": rfc3339(record.used_ns),
        "UsageCount": record.uses,
    }


def registry_config(registries: Registries) -> Json:
    """Write what the options say of registries."""
    hub = {"Name": HUB, "Mirrors": list(registries.mirrors), "Secure": True, "Official": True}
    insecure = {host: {"Name": host, "Mirrors": [], "Secure": False, "Official": False} for host in registries.hosts}
    return {
        "InsecureRegistryCIDRs": [str(network) for network in registries.networks],
        "IndexConfigs": insecure | {HUB: hub},
        "Mirrors": list(registries.mirrors),
    }


def security_options(settings: EngineSettings) -> list[str]:
    options = [f"name=seccomp,profile={settings.seccomp_profile}"]
    if settings.containers.cgroupns_of(HostConfig(), cgroup_v2=is_cgroup_v2()) == "private":
        options.append("name=cgroupns")
    if settings.containers.no_new_privileges:
        options.append("name=no-new-privileges")
    return options


def info_as_of(facts: Json, minor: int) -> Json:
    """Write `/info` for API 1.`minor`: with what older clients still look for, without what they do not know.

    As moby `api/server/router/system/system_routes.go`.
    """
    shown = dict(facts)
    if minor < 25:
        shown["SecurityOptions"] = [
            option.partition(",")[0].removeprefix("name=") for option in facts["SecurityOptions"]
        ]
    if minor < 47:
        nothing = dict.fromkeys(("AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames"))
        shown["RegistryConfig"] = nothing | facts["RegistryConfig"]
    if minor < 49:
        shown.pop("FirewallBackend", None)
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            shown[name] = facts[name] | {"Expected": facts[name]["ID"]}
    if minor < 50:
        shown.pop("DiscoveredDevices", None)
        shown |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    return shown


# --- the host ---------------------------------------------------------------------------------------------------


def host_facts() -> Json:
    """Read what `/info` tells of this host. Blocks shortly: it reads /proc and /etc."""
    v2 = is_cgroup_v2()
    release = os_release()
    return {
        "NCPU": os.cpu_count() or 1,
        "MemTotal": memory_bytes(),
        "Name": socket.gethostname(),
        "OSType": "linux",
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "Architecture": platform.machine(),
        "KernelVersion": platform.release(),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if v2 else "1",
        "MemoryLimit": has_controller("memory"),
        "SwapLimit": has_swap_limit(v2),
        "CpuCfsPeriod": has_controller("cpu"),
        "CpuCfsQuota": has_controller("cpu"),
        "CPUShares": has_controller("cpu"),
        "CPUSet": has_controller("cpuset"),
        "PidsLimit": has_controller("pids"),
        "OomKillDisable": not v2,
        "IPv4Forwarding": read_text("/proc/sys/net/ipv4/ip_forward") == "1",
        "SystemTime": rfc3339(time.time_ns()),
        "NFd": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    }


def read_text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def memory_bytes() -> int:
    found = re.search(r"^MemTotal:\s+([0-9]+) kB", read_text("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def has_controller(name: str) -> bool:
    """Tell whether a control group controller can be used, in either hierarchy."""
    if name in read_text("/sys/fs/cgroup/cgroup.controllers").split():
        return True
    return any(line.split()[0] == name and line.split()[-1] == "1" for line in _cgroup_lines())


def _cgroup_lines() -> list[str]:
    return [line for line in read_text("/proc/cgroups").splitlines() if not line.startswith("#")]


def has_swap_limit(v2: bool) -> bool:
    return v2 or Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()


def os_release() -> dict[str, str]:
    lines = (read_text("/etc/os-release") or read_text("/usr/lib/os-release")).splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key: value.strip("\"'") for key, _, value in pairs}


def filesystem_of(path: Path) -> str:
    """Answer the type of the file system that holds `path`."""
    best, kind = "", "unknown"
    for line in read_text("/proc/self/mounts").splitlines():
        _, point, name, *_ = line.split(" ")
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= len(best):
            best, kind = point, name
    return kind
