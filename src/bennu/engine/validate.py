"""The validation of a container's create request, in dockerd 28's words.

Called after the image's configuration was merged in. Mounts and networks are judged by their parsers.
A field that this engine cannot honour is refused by `unsupported.py`, never ignored.
"""

import ipaddress
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET

from bennu.engine.unsupported import refuse_unsupported
from bennu.errors import BennuError, InvalidParameter
from bennu.go.bool import FALSE, TRUE
from bennu.lifecycle.signals import parse_signal
from bennu.model import ContainerConfig, EndpointSettings, Healthcheck, HostConfig, RestartPolicyShape
from bennu.network import parse_link
from bennu.network.nat.port_bindings import exposed_names, parse_port_bindings
from bennu.runtime import parse_security_options

NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z", re.ASCII)
SWITCHES: Final = ("no-new-privileges", "writable-cgroups")  # options of SecurityOpt that are yes or no
MAC_ADDRESS: Final = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}\Z", re.ASCII)
MIN_MEMORY: Final = 6 * 1024 * 1024
MILLISECOND: Final = 10**6
MAX_HOSTNAME: Final = 64
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
CAPABILITY_NAMES: Final = (
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH "
    "FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN "
    "NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT "
    "SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM ALL"
)
CAPABILITIES: Final = frozenset(CAPABILITY_NAMES.split())


def validate_name(name: str) -> str:
    """Return the name without its leading slash. Raises: InvalidParameter."""
    bare = name.removeprefix("/")
    if not NAME.match(bare):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def discard_unsupported(host: HostConfig, *, swap_limit: bool, blkio_weight: bool) -> list[str]:
    """Drop settings that this host's kernel lacks and dockerd goes without; answer a warning for each."""
    warnings: list[str] = []
    if host.memory > 0 and host.memory_swap != -1 and not swap_limit:
        host.memory_swap = -1
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
    if host.blkio_weight and not blkio_weight:
        host.blkio_weight = 0
        warnings.append("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
    if host.kernel_memory_tcp:
        host.kernel_memory_tcp = UNSET
        warnings.append(
            "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
    return warnings


def validate_create(
    config: ContainerConfig,
    host: HostConfig,
    *,
    ncpu: int | None = None,
    oci_runtime: str = "crun",
    added_runtimes: Mapping[str, str] | None = None,
) -> list[str]:
    """Check a create request and answer warnings for the client.

    Cleans `config.working_dir`. `ncpu` None: of this host. Raises: InvalidParameter, BennuError, NotImplementedHere.
    """
    _refuse_nul(config)
    _refuse_nul(host)
    _check_config(config)
    check_restart_policy(host.restart_policy, auto_remove=host.auto_remove)
    check_resources(host, ncpu or os.cpu_count() or 1)
    _check_modes(host)
    _check_network_conflicts(config, host)
    _check_capabilities("CapAdd", host.cap_add)
    _check_capabilities("CapDrop", host.cap_drop)
    for option in host.security_opt or []:
        _check_security_option(option)
    _check_names(config, host)
    for target in host.tmpfs or {}:
        _check_tmpfs_target(target)
    exposed = exposed_names(config.exposed_ports or None)
    parse_port_bindings(exposed, host.port_bindings, host.publish_all_ports)
    refuse_unsupported(config, host, oci_runtime, added_runtimes or {})
    return _warnings(host)


def _refuse_nul(asked: ContainerConfig | HostConfig) -> None:
    """Refuse a NUL in any text, because the kernel ends a path, word or name there. Raises: InvalidParameter."""
    for name, value in msgspec.to_builtins(asked).items():
        if any("\0" in text for text in _texts(value)):
            raise InvalidParameter(f"invalid configuration: a NUL byte in {name}")


def _texts(value: Any) -> Iterator[str]:
    """Iterate over all text in a value, at any depth."""
    match value:
        case str():
            yield value
        case dict():
            for pair in value.items():
                yield from _texts(pair)
        case list() | tuple():
            for item in value:
                yield from _texts(item)


# --- Config -----------------------------------------------------------------------------------------------------


def _check_config(config: ContainerConfig) -> None:
    if not config.cmd and not config.entrypoint:
        raise InvalidParameter("no command specified")
    if len(config.hostname.encode()) > MAX_HOSTNAME:
        raise InvalidParameter(f'hostname "{config.hostname}" is too long (maximum {MAX_HOSTNAME} bytes)')
    if config.working_dir:
        if not config.working_dir.startswith("/"):
            raise InvalidParameter(
                f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
            )
        config.working_dir = "/" + posixpath.normpath(config.working_dir).lstrip("/")
    for entry in config.env or []:
        if not entry.partition("=")[0]:
            raise InvalidParameter(f"invalid environment variable: {entry}")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if config.healthcheck:
        check_healthcheck(config.healthcheck)


def check_healthcheck(check: Healthcheck) -> None:
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if value != 0 and value < MILLISECOND:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")
    if check.test == ["CMD"]:
        raise InvalidParameter('Test in Healthcheck has no command: "CMD" needs at least one argument')


# --- restart policy ---------------------------------------------------------------------------------------------


def check_restart_policy(policy: RestartPolicyShape, *, auto_remove: bool = False) -> None:
    """Check the restart policy. Raises: InvalidParameter."""
    wrong = "invalid restart policy: "
    count = policy.maximum_retry_count
    if policy.name in ("no", "always", "unless-stopped"):
        if count:
            negative = " and cannot be negative" if count < 0 else ""
            raise InvalidParameter(f"{wrong}maximum retry count can only be used with 'on-failure'{negative}")
    elif policy.name == "on-failure":
        if count < 0:
            raise InvalidParameter(f"{wrong}maximum retry count cannot be negative")
    elif policy.name:
        raise InvalidParameter(
            f"{wrong}unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


# --- resources --------------------------------------------------------------------------------------------------


def check_resources(host: HostConfig, ncpu: int) -> None:
    """Check the resource limits. Raises: InvalidParameter."""
    _check_memory(host)
    _check_cpu(host, ncpu)
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    for ulimit in host.ulimits or []:
        if ulimit.soft > ulimit.hard >= 0:
            raise InvalidParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {ulimit.soft} > {ulimit.hard}"
            )


def _check_memory(host: HostConfig) -> None:
    if host.memory and host.memory < MIN_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    swappiness = host.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < host.memory_reservation < MIN_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(host: HostConfig, ncpu: int) -> None:
    if host.nano_cpus:
        for name, value in (("CPU Period", host.cpu_period), ("CPU Quota", host.cpu_quota)):
            if value:
                raise InvalidParameter(f"Conflicting options: Nano CPUs and {name} cannot both be set")
        if not 0 < host.nano_cpus <= ncpu * 10**9:
            raise InvalidParameter(f"range of CPUs is from 0.01 to {ncpu}.00, as there are only {ncpu} CPUs available")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpuset_cpus:
        _check_numbers(host.cpuset_cpus, "cpuset cpus", "CPUs", ncpu)
    if host.cpuset_mems:
        _check_numbers(host.cpuset_mems, "cpuset mems", "memory nodes", memory_nodes())


def _check_numbers(asked: str, field: str, what: str, count: int) -> None:
    """Check a set of numbers: all are below `count`. Raises: InvalidParameter."""
    wanted = parse_cpuset(asked)
    if wanted is None:
        raise InvalidParameter(f"Invalid value {asked} for {field}: invalid format: {asked}")
    if max(wanted, default=0) >= count:
        available = "0" if count == 1 else f"0-{count - 1}"
        raise InvalidParameter(f"Requested {what} are not available - requested {asked}, available: {available}")


def memory_nodes() -> int:
    """Count this host's memory nodes."""
    return len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1


def parse_cpuset(text: str) -> set[int] | None:
    """Parse `0-2,4` into numbers; None when it is malformed or names a CPU beyond 8191."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip(), re.ASCII)
        if not match:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last > 8191:
            return None
        numbers.update(range(first, last + 1))
    return numbers


# --- modes, security, hosts -------------------------------------------------------------------------------------


def _check_modes(host: HostConfig) -> None:
    if host.network_mode.partition(":")[0] == "container" and not host.network_mode.partition(":")[2]:
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    joins = re.compile(r"container:.+\Z", re.DOTALL)
    if host.pid_mode not in ("", "host") and not joins.match(host.pid_mode):
        raise InvalidParameter(f"invalid PID mode: {host.pid_mode}")
    if host.ipc_mode not in ("", "none", "private", "shareable", "host") and not joins.match(host.ipc_mode):
        raise InvalidParameter(f"invalid IPC mode: {host.ipc_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidParameter(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("", "host", "private"):
        raise InvalidParameter(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if "\n" in host.cgroup_parent:
        raise InvalidParameter(f"invalid cgroup parent: {host.cgroup_parent!r}")
    if host.userns_mode not in ("", "host"):
        raise InvalidParameter(f"invalid user namespace mode: {host.userns_mode}")
    if host.annotations and "" in host.annotations:
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")
    if host.io_maximum_bandwidth:
        raise InvalidParameter("invalid QoS settings: Linux does not support Maximum IO Bandwidth")
    if host.io_maximum_iops:
        raise InvalidParameter("invalid QoS settings: Linux does not support Maximum IO IOps")
    if host.isolation.lower() not in ("", "default"):
        raise InvalidParameter(f"Invalid isolation: \"{host.isolation}\" - linux only supports 'default'")


def _check_network_conflicts(config: ContainerConfig, host: HostConfig) -> None:
    joined = host.network_mode.startswith("container:")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    undefined = "can't be used with links. This would result in undefined behavior"
    if host.network_mode == "host" and host.links:
        raise InvalidParameter(f"conflicting options: host type networking {undefined}")
    if (joined or host.network_mode == "host") and config.mac_address:
        raise InvalidParameter("conflicting options: mac-address and the network mode")
    if not joined:
        return
    for wrong, what in (
        (config.hostname, "hostname and the network mode"),
        (host.links, f"container type network {undefined}"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
    ):
        if wrong:
            raise InvalidParameter(f"conflicting options: {what}")


def check_endpoint(settings: EndpointSettings) -> None:
    """Check a container's endpoint settings for any network. Raises: InvalidParameter."""
    if settings.mac_address:
        check_mac_address(settings.mac_address)
    _refuse_control("network alias", settings.aliases)
    _check_links(settings.links)


def check_mac_address(text: str) -> None:
    """Check that an interface can have the address: neither multicast nor all zeros. Raises: InvalidParameter."""
    if not MAC_ADDRESS.match(text):
        raise InvalidParameter(f"address {text}: invalid MAC address")
    octets = bytes.fromhex(re.sub("[:-]", "", text))
    if octets[0] & 1 or not any(octets):
        raise InvalidParameter(f"address {text}: invalid MAC address: no single interface can have it")


def _check_capabilities(field: str, names: list[str] | None) -> None:
    for name in names or []:
        bare = name.upper().removeprefix("CAP_")
        if bare not in CAPABILITIES:
            raise InvalidParameter(f'invalid {field}: unknown capability: "CAP_{bare}"')


def split_security_option(option: str) -> tuple[str, str]:
    """Split `key=value` or the older `key:value`; a bare `no-new-privileges` is true.

    Raises: BennuError (dockerd: 500).
    """
    if option in SWITCHES:
        return option, "true"
    if option == "disable":
        return "label", "disable"
    key, found, value = option.partition("=" if "=" in option else ":")
    if not found:
        raise BennuError(f'invalid --security-opt 1: "{option}"')
    if key not in ("label", "apparmor", "seccomp", *SWITCHES) or (key in SWITCHES and value not in TRUE | FALSE):
        raise BennuError(f'invalid --security-opt 2: "{option}"')
    return key, value


def _check_security_option(option: str) -> None:
    """Refuse a broken profile now instead of at each start. Raises: InvalidParameter, BennuError."""
    key, value = split_security_option(option)
    if key == "seccomp":
        parse_security_options([f"seccomp={value}"])


def _check_names(config: ContainerConfig, host: HostConfig) -> None:
    """Refuse texts that would begin a line of their own in the container's hosts file or resolv.conf."""
    for what, words in (
        ("hostname", [config.hostname, config.domainname]),
        ("extra host", host.extra_hosts),
        ("DNS server", host.dns),
        ("DNS search domain", host.dns_search),
        ("DNS option", host.dns_options),
    ):
        _refuse_control(what, words)
    _check_links(host.links)
    for entry in host.extra_hosts or ():
        _check_extra_host(entry)
    for server in host.dns or ():
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise InvalidParameter(f"bad nameserver address {server}") from None


def _refuse_control(what: str, words: Sequence[str] | None) -> None:
    for word in words or ():
        if CONTROL.search(word):
            raise InvalidParameter(f"invalid {what} {word!r}: it has a control character")


def _check_links(links: Sequence[str] | None) -> None:
    """Refuse what is no link, or has an alias that the hosts file would read as several names."""
    for link in links or ():
        _, alias = parse_link(link)
        if " " in alias:
            raise InvalidParameter(f"invalid alias {alias!r} of a link: it has a space")


def _check_extra_host(entry: str) -> None:
    name, found, address = entry.partition(":")
    if not found or not name:
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address == "host-gateway":
        return
    try:
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"') from None


def _check_tmpfs_target(target: str) -> None:
    if not target.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{target}' mount path must be absolute")
    if posixpath.normpath(target).strip("/") == "":
        raise InvalidParameter("invalid specification: destination can't be '/'")


def _warnings(host: HostConfig) -> list[str]:
    warnings: list[str] = []
    if host.oom_kill_disable and host.memory == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    return warnings
