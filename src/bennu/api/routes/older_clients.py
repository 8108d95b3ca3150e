"""What bodies mean in the API version of their client.

Fields that a version did not know are dropped, what it took for granted is filled in, and what moved since is moved: as
moby `api/server/router/container/container_routes.go` and, of services, `api/server/router/swarm/helpers.go`.
"""

from typing import Final

from bennu.cluster.api_types import ContainerSpec, ServiceSpecWire
from bennu.errors import InvalidParameter
from bennu.model import ContainerConfig, EndpointSettings, HostConfig, Mount, NetworkingConfig

VOLUME_DRIVER_WARNING: Final = (
    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
    "Use '--mount type=volume,volume-driver=...' instead"
)
MAC_ADDRESS_WARNING: Final = (
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
)
OPTIONS_OF: Final = (("volume", "VolumeOptions"), ("bind", "BindOptions"), ("tmpfs", "TmpfsOptions"))


def translate(
    config: ContainerConfig, host: HostConfig, networking: NetworkingConfig, minor: int, *, cgroup_v2: bool
) -> list[str]:
    """Change a request of API 1.`minor` in place to what it means; answer warnings. Raises: InvalidParameter."""
    endpoints = networking.endpoints_config = dict(networking.endpoints_config or {})
    if host.network_mode in ("", "default"):
        host.network_mode = "bridge"
        if "default" in endpoints:
            endpoints["bridge"] = endpoints.pop("default")
    if minor < 44 and len(endpoints) > 1:
        names = ", ".join(sorted(endpoints))
        raise InvalidParameter(f"Container cannot be created with multiple network endpoints: {names}")
    _drop_newer(config, host, endpoints, minor)
    if minor < 41 and not cgroup_v2:  # a client that knows nothing of such namespaces
        host.cgroupns_mode = host.cgroupns_mode or "host"
    for mount in host.mounts or ():
        _check_mount(mount, minor)
    return [*_volume_driver(host, minor), *_take_mac_address(config, host, endpoints, minor)]


def _drop_newer(
    config: ContainerConfig, host: HostConfig, endpoints: dict[str, EndpointSettings | None], minor: int
) -> None:
    if minor < 25:  # the client removes the container
        host.auto_remove = False
    if minor < 40:
        host.ipc_mode = host.ipc_mode or "shareable"
    if minor < 42:
        host.console_size = [0, 0]
    if minor < 43:
        host.annotations = None
    if minor < 44 and config.healthcheck:
        config.healthcheck.start_interval = 0
    if minor < 48:
        for endpoint in filter(None, endpoints.values()):
            endpoint.gw_priority = 0


def _check_mount(mount: Mount, minor: int) -> None:
    """Drop or refuse options of a mount that its client's version did not know, or that are another type's."""
    if minor < 40 and mount.bind_options:
        mount.bind_options.non_recursive = False
    if minor < 42:
        if mount.bind_options:
            mount.bind_options.create_mountpoint = False
        mount.volume_options = mount.volume_options if mount.type == "volume" else None
        mount.tmpfs_options = mount.tmpfs_options if mount.type == "tmpfs" else None
    given = (mount.volume_options, mount.bind_options, mount.tmpfs_options)
    for (kind, name), options in zip(OPTIONS_OF, given, strict=True):
        if minor >= 42 and options is not None and mount.type != kind:
            raise InvalidParameter(f'{name} must not be specified on mount type "{mount.type}"')
    if minor < 44 and mount.type == "bind" and mount.bind_options and mount.bind_options.read_only_force_recursive:
        raise InvalidParameter("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if minor < 45 and mount.volume_options and mount.volume_options.subpath:
        raise InvalidParameter("VolumeOptions.Subpath needs API v1.45 or newer")
    if minor < 48 and mount.type == "image":
        raise InvalidParameter('Mount type "Image" needs API v1.48 or newer')


def _volume_driver(host: HostConfig, minor: int) -> list[str]:
    if not host.volume_driver or minor < 48:
        return []
    for mount in host.mounts or ():
        driver = mount.volume_options.driver_config if mount.volume_options else None
        if mount.type == "volume" and not (driver and driver.name):
            return [VOLUME_DRIVER_WARNING]
    return []


def _take_mac_address(
    config: ContainerConfig, host: HostConfig, endpoints: dict[str, EndpointSettings | None], minor: int
) -> list[str]:
    """Move `Config.MacAddress`, as older clients send it, to the endpoint of the container's own network."""
    address = config.mac_address or ""
    has_own_network = host.network_mode not in ("host", "none") and not host.network_mode.startswith("container:")
    if minor < 44 and not address:
        for endpoint in filter(None, endpoints.values()):
            endpoint.mac_address = ""
    if not address:
        return []
    if minor < 44 and not has_own_network:
        raise InvalidParameter("conflicting options: mac-address and the network mode")
    if has_own_network:
        endpoint = _own_endpoint(host.network_mode, endpoints, minor)
        if minor >= 44 and endpoint.mac_address not in ("", address):
            raise InvalidParameter(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
        endpoint.mac_address = address
    return [MAC_ADDRESS_WARNING] if minor >= 44 else []


def _own_endpoint(mode: str, endpoints: dict[str, EndpointSettings | None], minor: int) -> EndpointSettings:
    """Find, or make, the endpoint of the network that the mode names. Raises: InvalidParameter when it is unclear."""
    if minor < 44 and endpoints:
        mode = next(iter(endpoints))  # the only one
    elif endpoints and mode not in endpoints:
        raise InvalidParameter(
            "unable to migrate container-wide MAC address to a specific network: "
            "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks"
        )
    found = endpoints[mode] = endpoints.get(mode) or EndpointSettings()
    return found


# --- services ----------------------------------------------------------------------------------------------------


def drop_newer_of_service(spec: ServiceSpecWire, minor: int) -> None:
    """Drop from a specification what API 1.`minor` did not have; works in place."""
    template = spec.task_template
    if template.container_spec is not None:
        _drop_newer_of_container(template.container_spec, minor)
    if minor < 40 and template.placement:
        template.placement.max_replicas = 0
    if minor < 41:
        if template.resources and template.resources.limits:
            template.resources.limits.pids = 0
        if spec.mode:
            spec.mode.replicated_job = spec.mode.global_job = None


def _drop_newer_of_container(spec: ContainerSpec, minor: int) -> None:
    if minor < 40:
        spec.sysctls = None
        for config in spec.configs or ():
            config.runtime = None
    if minor < 41:
        spec.capability_add = spec.capability_drop = None
        spec.ulimits = None
    if minor < 44 and spec.privileges:
        spec.privileges.seccomp = spec.privileges.app_armor = None
        spec.privileges.no_new_privileges = False
    if minor < 44 and spec.healthcheck:
        spec.healthcheck.start_interval = 0
    if minor < 46:
        spec.oom_score_adj = 0
        for mount in spec.mounts or ():
            if mount.tmpfs_options:
                mount.tmpfs_options.options = None
