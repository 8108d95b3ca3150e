"""What the options of bennud say of containers whose creators do not say it themselves. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bennu.model import HostConfig, LogConfig, Ulimit
from bennu.runtime.seccomp import Seccomp
from bennu.runtime.seccomp_profile import SeccompProfile

SHM_SIZE: Final = 64 << 20
LOG_DRIVER: Final = "json-file"
DEFAULT_GROUP: Final = "/bennu"  # the control group above all containers


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerDefaults:
    """Defaults of one engine.

    Those of the first group become part of a container when it is created (moby `adaptContainerSettings`), those of
    the second are looked up at each start.
    """

    shm_size: int = SHM_SIZE
    ipc_mode: str = "private"
    cgroupns_mode: str = ""  # "": private with control groups version 2, else the host's
    log_driver: str = LOG_DRIVER
    log_options: Mapping[str, str] = field(default_factory=dict)  # of containers with that driver

    cgroup_parent: str = DEFAULT_GROUP
    ulimits: tuple[Ulimit, ...] = ()
    init: bool = False
    no_new_privileges: bool = False
    seccomp: Seccomp | SeccompProfile | None = None  # None: ours

    def ulimits_with(self, own: list[Ulimit] | None) -> list[Ulimit]:
        """Join a container's own limits with those it says nothing of."""
        named = {limit.name for limit in own or ()}
        return [*(own or ()), *(limit for limit in self.ulimits if limit.name not in named)]

    def cgroupns_of(self, host: HostConfig, *, cgroup_v2: bool) -> str:
        """Decide a container's control group namespace; with version 1 a privileged one is in the host's."""
        if host.cgroupns_mode:
            return host.cgroupns_mode
        if host.privileged and not cgroup_v2:
            return "host"
        return self.cgroupns_mode or ("private" if cgroup_v2 else "host")

    def log_config_of(self, host: HostConfig) -> LogConfig:
        """Join a container's log options with those it says nothing of (moby `mergeAndVerifyLogConfig`)."""
        asked = host.log_config
        driver = asked.type or self.log_driver
        usual = self.log_options if driver == self.log_driver else {}
        return LogConfig(type=driver, config={**usual, **(asked.config or {})})
