"""Docker's own shapes: what clients send, what inspect echoes and what the store keeps.

They are used inside as they are, because echoing them to the letter *is* the contract: one conversion less, one
drift less. Field names on the wire are Docker's (pascal case); unknown fields from clients are ignored. Durations
are integer nanoseconds. Defaults are those of dockerd 28 for a field that is absent.
"""

from typing import Any

import msgspec


class Shape(msgspec.Struct, rename="pascal", kw_only=True):
    """Base of every wire shape."""


# --- configuration of a container -------------------------------------------------------------------------------


class Healthcheck(Shape, omit_defaults=True):
    """`Test` forms: [] inherit, ["NONE"], ["CMD", …], ["CMD-SHELL", script]. Durations in ns; 0 = inherit/default."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Shape):
    """`Config`: what is the same wherever the container runs."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | msgspec.UnsetType | None = msgspec.UNSET
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: Healthcheck | msgspec.UnsetType | None = msgspec.UNSET
    args_escaped: bool | msgspec.UnsetType = msgspec.UNSET
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool | msgspec.UnsetType = msgspec.UNSET
    mac_address: str | msgspec.UnsetType = msgspec.UNSET
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | msgspec.UnsetType = msgspec.UNSET
    stop_timeout: int | msgspec.UnsetType | None = msgspec.UNSET
    shell: list[str] | msgspec.UnsetType | None = msgspec.UNSET


class RestartPolicyShape(Shape):
    name: str = "no"
    maximum_retry_count: int = 0


class LogConfig(Shape):
    type: str = ""
    config: dict[str, str] | None = None


class PortBinding(Shape):
    host_ip: str = ""
    host_port: str = ""


class Device(Shape):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class Ulimit(Shape):
    name: str = ""
    hard: int = 0
    soft: int = 0


class DeviceRequest(Shape):
    """Devices that a driver chooses: `--gpus`, or CDI names."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = msgspec.field(name="DeviceIDs", default=None)
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class BindOptions(Shape, omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriverConfig(Shape, omit_defaults=True):
    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Shape, omit_defaults=True):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    subpath: str = ""
    driver_config: VolumeDriverConfig | None = None


class ImageOptions(Shape, omit_defaults=True):
    subpath: str = ""


class TmpfsOptions(Shape, omit_defaults=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class Mount(Shape, omit_defaults=True):
    """An entry of `HostConfig.Mounts` (what `--mount` sends)."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(Shape):
    """`HostConfig`: how the container meets this host."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicyShape = msgspec.field(default_factory=RestartPolicyShape)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    annotations: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET
    tmpfs: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET
    runtime: str | msgspec.UnsetType = msgspec.UNSET
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[Any] | None = None
    blkio_device_read_bps: list[Any] | None = None
    blkio_device_write_bps: list[Any] | None = None
    blkio_device_read_iops: list[Any] | None = msgspec.field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: list[Any] | None = msgspec.field(name="BlkioDeviceWriteIOps", default=None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[Device] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory_tcp: int | msgspec.UnsetType = msgspec.field(name="KernelMemoryTCP", default=msgspec.UNSET)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    init: bool | msgspec.UnsetType | None = msgspec.UNSET
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = msgspec.field(name="IOMaximumBandwidth", default=0)
    mounts: list[Mount] | msgspec.UnsetType | None = msgspec.UNSET
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


# --- networks ---------------------------------------------------------------------------------------------------


class EndpointIPAMConfig(Shape, omit_defaults=True):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: list[str] | None = msgspec.field(name="LinkLocalIPs", default=None)


class EndpointSettings(Shape):
    """One network of a container: what was asked (upper half) and what is (lower half, empty when not running)."""

    ipam_config: EndpointIPAMConfig | None = msgspec.field(name="IPAMConfig", default=None)
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = msgspec.field(name="NetworkID", default="")
    endpoint_id: str = msgspec.field(name="EndpointID", default="")
    gateway: str = ""
    ip_address: str = msgspec.field(name="IPAddress", default="")
    ip_prefix_len: int = msgspec.field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = msgspec.field(name="IPv6Gateway", default="")
    global_ipv6_address: str = msgspec.field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = msgspec.field(name="GlobalIPv6PrefixLen", default=0)
    dns_names: list[str] | None = msgspec.field(name="DNSNames", default=None)


class NetworkingConfig(Shape):
    endpoints_config: dict[str, EndpointSettings | None] | None = None


class PublishedPort(Shape):
    """One published port as it is in force; `proto` is tcp or udp, `host_ip` an address ("0.0.0.0", "::", …)."""

    container_port: int
    proto: str
    host_ip: str
    host_port: int


# --- what a container is made of on disk ------------------------------------------------------------------------


class MountPoint(Shape):
    """A resolved mount as inspect shows it (`Mounts`); tmpfs and volumes included."""

    type: str  # bind | volume | tmpfs | image
    name: str = ""  # of a volume, or of an image as the client named it
    source: str = ""  # a path of this host; the id of an image
    destination: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(name="RW", default=True)
    propagation: str = ""
    spec: Mount | msgspec.UnsetType = msgspec.UNSET  # what the client asked for, if more than the rest; not shown


class ImageConfig(Shape):
    """The `config` object inside an image's configuration blob (Docker schema 2 or OCI)."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None
    args_escaped: bool = False
    hostname: str = ""
    domainname: str = ""
