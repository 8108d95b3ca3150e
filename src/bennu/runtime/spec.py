"""Writes the OCI configuration of a container (runtime-spec `config.md`), as moby `daemon/oci_linux.go` does. Pure.

`build_spec` decides everything; reading (users, devices, this host) has been done before, by the functions of
`users`, `devices` and `hostfacts`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from bennu.beneath import clean
from bennu.model import ContainerConfig, HostConfig, MountPoint
from bennu.runtime.capabilities import decide_capabilities, parse_capabilities
from bennu.runtime.container_defaults import ContainerDefaults
from bennu.runtime.devices import DeviceNode, device_entries, device_rules
from bennu.runtime.hostfacts import HostFacts
from bennu.runtime.mounts import (
    INIT_PATH,
    bind_entry,
    client_mounts,
    default_mounts,
    joined_shm,
    merge_mounts,
    parents_first,
    private_shm,
    root_propagation,
)
from bennu.runtime.resources import build_resources, build_rlimits, decide_oom_score_adj
from bennu.runtime.seccomp import decide_filter
from bennu.runtime.security import Security, parse_security_options
from bennu.runtime.users import User

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOME_ANNOTATION: Final = "bennu.home"  # its HOME is not the client's but its user's, so execs have their own user's
MASKED_PATHS: Final = (
    *("/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRequest:
    """Everything an OCI configuration is made of.

    Namespaces: None = one of its own, "" = the host's, else the path of another's (`/proc/PID/ns/…`, a netns file).
    """

    container_id: str
    config: ContainerConfig  # merged with the image's
    host_config: HostConfig
    host: HostFacts
    args: Sequence[str]  # entrypoint and command
    rootfs: str
    mounts: Sequence[MountPoint] = ()  # resolved: volumes have their path on this host
    user: User = field(default_factory=User)
    devices: Sequence[DeviceNode] = ()  # of a privileged container: all of this host
    netns: str | None = None
    pid_ns: str | None = None
    ipc_ns: str | None = None
    uts_ns: str | None = None
    shm_path: str = ""  # its /dev/shm lies here (`Runtime.make_shm`), its own or that of another; "" = private
    hostname: str = ""
    hostname_path: str = ""  # files of the engine, mounted over those of the image; "" = leave the image's
    hosts_path: str = ""
    resolv_path: str = ""
    extra_env: Sequence[str] = ()  # of links; before the container's own
    cgroup_path: str = ""  # "" = decided by `container_group`
    defaults: ContainerDefaults = field(default_factory=ContainerDefaults)


def build_spec(request: SpecRequest) -> dict[str, Any]:
    """Write the whole `config.json`. Raises: BennuError, RuntimeFailure in dockerd's words for what cannot be."""
    config, host = request.config, request.host_config
    security = parse_security_options(host.security_opt or (), no_new_privileges=request.defaults.no_new_privileges)
    mounts = _mounts(request, security)
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": _process(request, security),
        "root": {"path": request.rootfs, "readonly": host.readonly_rootfs},
        "mounts": mounts,
        "linux": _linux(request, security),
    }
    if propagation := root_propagation(mounts):
        spec["linux"]["rootfsPropagation"] = propagation
    if request.uts_ns is None:
        spec["hostname"] = _hostname(request)
    annotations = dict(host.annotations) if isinstance(host.annotations, dict) else {}
    if not has_variable(config.env or (), "HOME"):
        annotations[HOME_ANNOTATION] = "passwd"
    if annotations:
        spec["annotations"] = annotations
    return spec


def _hostname(request: SpecRequest) -> str:
    return request.hostname or request.config.hostname or request.container_id[:12]


def container_group(container_id: str, host: HostConfig, parent: str) -> str:
    """Answer the path of its control group; `parent`: of those that name none."""
    return clean(f"{host.cgroup_parent or parent}/{container_id}")


# --- process ------------------------------------------------------------------------------------------------------


def _process(request: SpecRequest, security: Security) -> dict[str, Any]:
    config, host, user = request.config, request.host_config, request.user
    bounding = _capabilities(request)
    args = list(request.args)
    if _needs_init(request):
        args = [INIT_PATH, "--", *args]
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": args,
        "env": build_env(
            config.env or (),
            extra=request.extra_env,
            hostname=_hostname(request),
            tty=config.tty,
            home=user.home,
        ),
        "cwd": config.working_dir or "/",
        "capabilities": capability_sets(bounding, user.uid),
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": decide_oom_score_adj(host.oom_score_adj, request.host),
    }
    if rlimits := build_rlimits(request.defaults.ulimits_with(host.ulimits), request.host):
        process["rlimits"] = rlimits
    if config.tty and any(host.console_size):
        process["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    if security.apparmor and security.apparmor != "unconfined" and request.host.apparmor and not host.privileged:
        process["apparmorProfile"] = security.apparmor
    return process


def _needs_init(request: SpecRequest) -> bool:
    """Tell whether an init is wanted here: a PID namespace of another has one already."""
    own = request.host_config.init
    wanted = own if isinstance(own, bool) else request.defaults.init
    return wanted and request.pid_ns is None


def _capabilities(request: SpecRequest) -> list[str]:
    host, available = request.host_config, request.host.capabilities
    return decide_capabilities(
        parse_capabilities("CapAdd", host.cap_add or (), available),
        parse_capabilities("CapDrop", host.cap_drop or (), available),
        privileged=host.privileged,
        available=available,
    )


def capability_sets(bounding: Sequence[str], uid: int) -> dict[str, list[str]]:
    """Write the five sets; inheritable and ambient stay empty, and only root holds something at first."""
    held = list(bounding) if uid == 0 else []
    return {"bounding": list(bounding), "effective": held, "permitted": list(held)}


def build_env(own: Iterable[str], *, extra: Iterable[str] = (), hostname: str, tty: bool, home: str) -> list[str]:
    """Build the environment of a container's first process, in dockerd's order."""
    base = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if tty:
        base.append("TERM=xterm")
    env = replace_env([*base, *extra], own)
    if not has_variable(env, "HOME"):
        env.append(f"HOME={home}")
    return env


def has_variable(env: Iterable[str], name: str) -> bool:
    return any(entry.startswith(f"{name}=") for entry in env)


def replace_env(base: Iterable[str], changes: Iterable[str]) -> list[str]:
    """Set variables in place or at the end; a name without `=` removes the variable."""
    env = {entry.partition("=")[0]: entry for entry in base}
    for entry in changes:
        name, equals, _ = entry.partition("=")
        if equals:
            env[name] = entry
        else:
            env.pop(name, None)
    return list(env.values())


# --- mounts -------------------------------------------------------------------------------------------------------


def _mounts(request: SpecRequest, security: Security) -> list[dict[str, Any]]:
    host = request.host_config
    defaults = default_mounts(
        privileged=host.privileged,
        shm=_shm(request),
    )
    if security.writable_cgroups:
        for entry in defaults:
            if entry["type"] == "cgroup":
                entry["options"][0] = "rw"
    files = [
        bind_entry(source, target, read_only=host.readonly_rootfs)
        for source, target in (
            (request.resolv_path, "/etc/resolv.conf"),
            (request.hostname_path, "/etc/hostname"),
            (request.hosts_path, "/etc/hosts"),
        )
        if source
    ]
    clients = client_mounts(request.mounts, host, request.host.kernel)
    taken = {entry["destination"] for entry in clients}
    ours = [entry for entry in files if entry["destination"] not in taken]
    mounts = merge_mounts(defaults, parents_first([*ours, *clients]))
    if _needs_init(request):
        mounts.append(bind_entry(request.host.init_binary, INIT_PATH, read_only=True))
    return mounts


def _shm(request: SpecRequest) -> dict[str, Any] | None:
    if request.host_config.ipc_mode == "none":
        return None
    if request.shm_path:
        return joined_shm(request.shm_path)
    return joined_shm("/dev/shm") if request.ipc_ns == "" else private_shm(request.host_config.shm_size)


# --- linux --------------------------------------------------------------------------------------------------------


def _linux(request: SpecRequest, security: Security) -> dict[str, Any]:
    host, facts = request.host_config, request.host
    resources = build_resources(host, facts)
    resources["devices"] = device_rules(request.devices, host.device_cgroup_rules or (), privileged=host.privileged)
    linux: dict[str, Any] = {
        "cgroupsPath": request.cgroup_path
        or container_group(request.container_id, host, request.defaults.cgroup_parent),
        "namespaces": _namespaces(request),
        "resources": resources,
        "maskedPaths": _paths(host.masked_paths, MASKED_PATHS, privileged=host.privileged),
        "readonlyPaths": _paths(host.readonly_paths, READONLY_PATHS, privileged=host.privileged),
    }
    if request.devices:
        linux["devices"] = device_entries(request.devices)
    if sysctls := _sysctls(request):
        linux["sysctl"] = sysctls
    asked = security.seccomp
    seccomp = decide_filter(
        request.defaults.seccomp if asked is None and not host.privileged else asked,
        privileged=host.privileged,
        capabilities=_capabilities(request),
        architecture=facts.architecture,
        kernel=facts.kernel,
    )
    if seccomp is not None:
        linux["seccomp"] = seccomp
    return linux


def _paths(asked: Sequence[str] | None, default: Sequence[str], *, privileged: bool) -> list[str]:
    if asked is not None:
        return list(asked)
    return [] if privileged else list(default)


def _namespaces(request: SpecRequest) -> list[dict[str, str]]:
    mode = request.defaults.cgroupns_of(request.host_config, cgroup_v2=request.host.cgroup_v2)
    asked = {
        "network": request.netns,
        "uts": request.uts_ns,
        "pid": request.pid_ns,
        "ipc": request.ipc_ns,
        "cgroup": None if mode == "private" else "",
    }
    namespaces = [{"type": "mount"}]
    for kind, path in asked.items():
        if path != "":
            namespaces.append({"type": kind} if path is None else {"type": kind, "path": path})
    return namespaces


def _has_own_network(request: SpecRequest) -> bool:
    return request.netns != "" and not request.host_config.network_mode.startswith("container:")


def _sysctls(request: SpecRequest) -> dict[str, str]:
    sysctls: dict[str, str] = {}
    if _has_own_network(request):
        sysctls["net.ipv4.ip_unprivileged_port_start"] = "0"
        sysctls["net.ipv4.ping_group_range"] = "0 2147483647"
    if request.config.domainname and request.uts_ns is None:
        sysctls["kernel.domainname"] = request.config.domainname
    if request.host_config.sysctls is not msgspec.UNSET:
        sysctls.update(request.host_config.sysctls or {})
    return sysctls
