"""SIGHUP: the configuration file is read again, and what may change while bennud runs is changed.

Which settings these are, and what the event tells of them, is dockerd's (moby `daemon/reload.go`). A file with a
mistake in it changes nothing.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bennu.cluster import Cluster
from bennu.daemon.config_file import parse_file
from bennu.daemon.flags import Settings
from bennu.daemon.log_output import set_level
from bennu.daemon.options import DEFAULT_CONFIG, Options, check_options
from bennu.daemon.proxies import PROXIES, mask_credentials
from bennu.engine.defaults import is_cgroup_v2
from bennu.engine.engine import Engine
from bennu.errors import BennuError
from bennu.model import HostConfig
from bennu.plugins import AUTHORIZATION

KEPT: Final = frozenset(  # what is not in the file stays as it is
    {
        "add-runtime",
        "authorization-plugin",
        "debug",
        "default-cgroupns-mode",
        "default-ipc-mode",
        "default-shm-size",
        "insecure-registry",
        "label",
        "registry-mirror",
        "shutdown-timeout",
    }
)
RESET: Final = frozenset(  # what is not in the file becomes the default
    {"feature", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"}
)
log = logging.getLogger("bennud")


@dataclass
class Reloader:
    """Reads anew what `options` were read from, one signal at a time."""

    options: Options
    engine: Engine
    cluster: Cluster

    def reload_soon(self) -> None:
        self.engine.services.tasks.create_task(self.reload(), name="reload the configuration")

    async def reload(self) -> None:
        """Read the file and follow it; a mistake is logged and changes nothing."""
        path = self.options.config_file
        log.info("Got signal to reload configuration: config-file=%s", path or DEFAULT_CONFIG)
        try:
            changed, left = await asyncio.to_thread(read_again, self.options)
            for name in changed.engine.authorization_plugins:
                await self.engine.services.plugins.find(name, AUTHORIZATION)
        except BennuError as error:
            log.error("Error reloading configuration: %s", error)
            return
        self.options = changed
        self.engine.apply(changed.engine)
        self.cluster.nodes.host = changed.node
        set_level(changed.log_level)
        told = {"name": socket.gethostname(), **reload_attributes(changed)}
        await self.engine.services.journal.publish("daemon", "reload", self.engine.services.engine_id, told)
        if left:
            log.warning("these settings are followed from the next start on: %s", ", ".join(left))
        log.info("Reloaded configuration: config=%s", json.dumps(sanitized(changed.settings)))


def read_again(options: Options) -> tuple[Options, list[str]]:
    """Answer the options after a look at their file, and which changes have to wait. Blocks. Raises: BennuError."""
    path = options.config_file or DEFAULT_CONFIG
    found = parse_file(path, options.flags) if options.config_file or path.exists() else {}
    settings = {name: value for name, value in options.settings.items() if name not in RESET - options.flags.keys()}
    settings |= {name: value for name, value in found.items() if name in KEPT | RESET}
    waiting = (found.keys() | options.settings.keys() - options.flags.keys()) - KEPT - RESET
    left = sorted(name for name in waiting if found.get(name) != options.settings.get(name))
    return check_options(settings, options.flags), left


def reload_attributes(options: Options) -> dict[str, str]:
    """Write what the event of a reload tells."""
    settings, engine = options.settings, options.engine

    def listed(name: str) -> str:
        return json.dumps(settings.get(name) or [], separators=(",", ":"))

    features = " ".join(f"{key}:{'true' if on else 'false'}" for key, on in sorted(options.features.items()))
    return {
        "debug": "true" if engine.debug else "false",
        "default-cgroupns-mode": engine.containers.cgroupns_of(HostConfig(), cgroup_v2=is_cgroup_v2()),
        "default-ipc-mode": engine.containers.ipc_mode,
        "default-runtime": options.oci_runtime,
        "default-shm-size": str(engine.containers.shm_size),
        "features": f"map[{features}]",
        "insecure-registries": listed("insecure-registry"),
        "labels": listed("label"),
        "live-restore": "true",
        "max-concurrent-downloads": str(engine.registries.downloads),
        "max-concurrent-uploads": str(engine.registries.uploads),
        "max-download-attempts": str(engine.registries.attempts),
        "registry-mirrors": listed("registry-mirror"),
        "runtimes": " ".join(f"{name}:{path}" for name, path in engine.added_runtimes.items()),
        "shutdown-timeout": str(engine.shutdown_timeout_s),
    }


def sanitized(settings: Settings) -> Mapping[str, Any]:
    """Write the settings for the log, without passwords."""
    return {name: mask_credentials(str(value)) if name in PROXIES else value for name, value in settings.items()}
