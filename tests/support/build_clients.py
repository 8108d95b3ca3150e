"""Docker clients that speak BuildKit's protocol: those unpacked by `./dev setup`, else the one that is installed."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.cli import Cli

PLUGINS = "usr/libexec/docker/cli-plugins"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class BuildClient:
    """A docker command with its plugins."""

    name: str
    program: str
    plugins: Path | None  # None: where the command finds them by itself

    def has(self, plugin: str) -> bool:
        return self.plugins is None or (self.plugins / f"docker-{plugin}").exists()

    def at(self, host: str, home: Path) -> Cli:
        """Make the command for one daemon, with a configuration of its own in `home`."""
        config = home / f"docker-{self.name}"
        config.mkdir(parents=True, exist_ok=True)
        if self.plugins is not None and not (config / "cli-plugins").exists():
            (config / "cli-plugins").symlink_to(self.plugins)
        environment = {"DOCKER_HOST": host, "DOCKER_CONFIG": str(config), "HOME": str(home), "PATH": os.environ["PATH"]}
        return Cli(
            self.program,
            environment | {"BUILDKIT_PROGRESS": "plain", "BUILDX_BAKE_ENTITLEMENTS_FS": "0"},
            timeout_s=120,
        )


def find_build_clients() -> list[BuildClient]:
    cache = Path(os.environ.get("BENNU_CACHE", ROOT / ".cache"))
    found = []
    for root in sorted((cache / "clients").glob("*/usr/bin/docker")):
        plugins = root.parents[2] / PLUGINS
        if (plugins / "docker-buildx").exists():
            found.append(BuildClient(root.parents[2].name, str(root), plugins))
    docker = shutil.which("docker")
    if not found and docker is not None and _has_buildx(docker):
        found.append(BuildClient("installed", docker, None))
    return found


def _has_buildx(docker: str) -> bool:
    return subprocess.run([docker, "buildx", "version"], capture_output=True, check=False).returncode == 0
