"""What a service's specification means in the API version of its client (moby `api/server/router/swarm/helpers.go`)."""

from bennu.cluster.api_types import ContainerSpec, ServiceSpecWire


def drop_newer(spec: ServiceSpecWire, minor: int) -> None:
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
