"""What bennud's options say that may change while it runs, and what `/info` tells of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bennu.images.registries import Registries
from bennu.runtime.container_defaults import ContainerDefaults

CDI_FOLDERS: Final = ("/etc/cdi", "/var/run/cdi")  # the specification's own
SHUTDOWN_S: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """All of it as one value: a reload replaces it whole, so nobody ever sees half of one."""

    containers: ContainerDefaults = field(default_factory=ContainerDefaults)
    registries: Registries = field(default_factory=Registries)
    seccomp_profile: str = "builtin"  # its name, as `/info` tells it
    init_path: str = ""  # "": that of this host
    cdi_folders: tuple[str, ...] = CDI_FOLDERS  # empty: no CDI
    shutdown_timeout_s: int = SHUTDOWN_S  # -1: without end
    debug: bool = False
    experimental: bool = False
    labels: tuple[str, ...] = ()
    authorization_plugins: tuple[str, ...] = ()
    added_runtimes: Mapping[str, str] = field(default_factory=dict)  # name → path; known and not run
    address_pools: tuple[tuple[str, int], ...] = ()  # of networks that ask for no subnet: range, prefix
    proxies: Mapping[str, str] = field(default_factory=dict)  # http-proxy, https-proxy, no-proxy; no passwords
