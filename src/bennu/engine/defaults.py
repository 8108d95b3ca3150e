"""Defaults for the fields that a container's creator left out: from its image, and from Docker's defaults.

Both work in place on the client's configuration; the result is shown by inspect and used to run the container.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

from msgspec import UNSET, UnsetType

from bennu.engine.names import random_name
from bennu.model import ContainerConfig, Healthcheck, HostConfig, ImageConfig
from bennu.runtime.container_defaults import ContainerDefaults

__all__ = ["fill_host_defaults", "merge_image", "random_name"]

MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

Value = TypeVar("Value")


def merge_image(config: ContainerConfig, image: ImageConfig) -> None:
    """Fill the open fields of `config` from the image's configuration; values of the container win."""
    if not config.entrypoint:
        # An entrypoint of one's own drops the image's command; `[]` is "no entrypoint", null is "the image's".
        config.cmd = config.cmd or image.cmd
        if config.entrypoint is None:
            config.entrypoint = image.entrypoint
    if config.entrypoint == [""]:
        config.entrypoint = None
    config.user = config.user or image.user
    config.working_dir = config.working_dir or image.working_dir
    config.stop_signal = config.stop_signal or image.stop_signal or UNSET
    config.env = _merge_env(config.env, image.env)
    config.labels = {**(image.labels or {}), **(config.labels or {})}
    config.volumes = {**(image.volumes or {}), **(config.volumes or {})} or None
    config.exposed_ports = {**(image.exposed_ports or {}), **(config.exposed_ports or {})} or UNSET
    config.healthcheck = merge_healthcheck(config.healthcheck or None, image.healthcheck) or UNSET
    config.shell = config.shell or image.shell or UNSET
    config.on_build = None
    config.stop_timeout = UNSET if config.stop_timeout is None else config.stop_timeout
    config.mac_address = config.mac_address or UNSET
    config.network_disabled = config.network_disabled or UNSET
    config.args_escaped = config.args_escaped or UNSET


def merge_healthcheck(mine: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """Merge the image's health check into the container's.

    The image's is used as a whole when the container has none, else field by field where the container's are 0 or
    empty.
    """
    if mine is None or image is None:
        return mine or image
    return Healthcheck(
        test=mine.test or image.test,
        interval=mine.interval or image.interval,
        timeout=mine.timeout or image.timeout,
        start_period=mine.start_period or image.start_period,
        start_interval=mine.start_interval or image.start_interval,
        retries=mine.retries or image.retries,
    )


def _merge_env(mine: list[str] | None, image: list[str] | None) -> list[str] | None:
    if not image:
        return mine
    named = {entry.partition("=")[0] for entry in mine or []}
    return [*(mine or []), *(entry for entry in image if entry.partition("=")[0] not in named)]


def is_cgroup_v2() -> bool:
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def fill_host_defaults(
    host: HostConfig,
    *,
    cgroup_v2: bool | None = None,
    runtime: str = "crun",
    defaults: ContainerDefaults | None = None,
) -> None:
    """Fill empty fields with Docker 28's defaults, or this daemon's. `cgroup_v2` None: the version of this host."""
    usual = defaults or ContainerDefaults()
    v2 = is_cgroup_v2() if cgroup_v2 is None else cgroup_v2
    if host.network_mode in ("", "default"):
        host.network_mode = "bridge"
    host.restart_policy.name = host.restart_policy.name or "no"
    host.ipc_mode = host.ipc_mode or usual.ipc_mode
    host.cgroupns_mode = usual.cgroupns_of(host, cgroup_v2=v2)
    host.shm_size = host.shm_size or usual.shm_size
    host.runtime = host.runtime or runtime
    if host.memory > 0 and host.memory_swap == 0:
        host.memory_swap = 2 * host.memory
    host.oom_kill_disable = None if v2 else bool(host.oom_kill_disable)
    host.pids_limit = host.pids_limit if (host.pids_limit or 0) > 0 else None
    host.memory_swappiness = None if host.memory_swappiness == -1 else host.memory_swappiness
    host.console_size = [*host.console_size, 0, 0][:2]
    _fill_security(host)
    _drop_empty(host)


def _fill_security(host: HostConfig) -> None:
    if host.privileged:
        host.masked_paths = host.readonly_paths = None
        if not any(option.startswith("label") for option in host.security_opt or []):
            host.security_opt = [*(host.security_opt or []), "label=disable"]
        return
    if host.masked_paths is None:
        host.masked_paths = [*MASKED_PATHS, *_thermal_paths()]
    if host.readonly_paths is None:
        host.readonly_paths = list(READONLY_PATHS)


def _thermal_paths() -> Iterable[str]:
    return sorted(str(path) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle"))


def _drop_empty(host: HostConfig) -> None:
    """Unset the empty fields that Docker leaves out of inspect."""
    host.annotations = _or_unset(host.annotations)
    host.storage_opt = _or_unset(host.storage_opt)
    host.tmpfs = _or_unset(host.tmpfs)
    host.sysctls = _or_unset(host.sysctls)
    host.mounts = _or_unset(host.mounts)
    host.init = UNSET if host.init is None else host.init


def _or_unset(value: Value | UnsetType | None) -> Value | UnsetType:
    return value or UNSET
