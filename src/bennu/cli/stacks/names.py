"""What compose files of version 3 may say, and what of it a stack honours."""

from collections.abc import Mapping
from typing import Final

SECTIONS: Final = ("services", "networks", "volumes", "secrets", "configs")
_UNSUPPORTED: Final = (
    "build cgroupns_mode cgroup_parent devices domainname external_links ipc links mac_address network_mode pid "
    "privileged security_opt shm_size userns_mode"
)
UNSUPPORTED: Final = frozenset(_UNSUPPORTED.split())
DEPRECATED: Final[Mapping[str, str]] = {
    "container_name": "Setting the container name is not supported.",
    "expose": "Exposing ports is unnecessary - services on the same network can access each other's containers on "
    "any port.",
}
_LIMITS: Final = "Set resource limits using deploy.resources"
FORBIDDEN: Final[Mapping[str, str]] = {
    "extends": "Support for `extends` is not implemented yet.",
    "volume_driver": "Instead of setting the volume driver on the service, define a volume using the top-level "
    "`volumes` option and specify the driver there.",
    "volumes_from": "To share a volume between services, define it using the top-level `volumes` option and reference "
    "it from each service that shares it using the service-level `volumes` option.",
    "cpu_quota": _LIMITS,
    "cpu_shares": _LIMITS,
    "cpuset": _LIMITS,
    "mem_limit": _LIMITS,
    "memswap_limit": _LIMITS,
}
_UPDATE: Final = "parallelism delay failure_action monitor max_failure_ratio order"
_FILE: Final = "name file external labels template_driver"
# By path: the names known there. A path that is not listed holds what it likes.
KNOWN: Final[Mapping[str, frozenset[str]]] = {
    path: frozenset(names.split())
    for path, names in {
        "services": " ".join(
            (
                _UNSUPPORTED,
                *DEPRECATED,
                "cap_add cap_drop command configs credential_spec depends_on deploy dns dns_search entrypoint env_file",
                "environment extra_hosts healthcheck hostname image init isolation labels logging networks",
                "oom_score_adj ports read_only restart secrets stdin_open stop_grace_period stop_signal sysctls tmpfs",
                "tty ulimits user volumes working_dir",
            )
        ),
        "services.deploy": "mode replicas labels update_config rollback_config resources restart_policy placement "
        "endpoint_mode",
        "services.deploy.update_config": _UPDATE,
        "services.deploy.rollback_config": _UPDATE,
        "services.deploy.resources": "limits reservations",
        "services.deploy.resources.limits": "cpus memory pids",
        "services.deploy.resources.reservations": "cpus memory generic_resources",
        "services.deploy.restart_policy": "condition delay max_attempts window",
        "services.deploy.placement": "constraints preferences max_replicas_per_node",
        "services.healthcheck": "test interval timeout retries start_period start_interval disable",
        "services.logging": "driver options",
        "services.credential_spec": "config file registry",
        "networks": "name driver driver_opts ipam external internal attachable labels",
        "networks.ipam": "driver config",
        "volumes": "name driver driver_opts external labels",
        "secrets": f"{_FILE} driver driver_opts",
        "configs": _FILE,
    }.items()
}
