"""Runs buildah, which does a build's steps: its storage, its settings, and the world that it is shut in.

A build runs in a world of its own (`build_world.py`): of this host it sees programs to read, buildah's storage and
its own work, and the network that it was given. It leaves this world for nobody, and none of it outlives us.
"""

import asyncio
import contextlib
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bennu.errors import Unavailable
from bennu.images.build_place import BuildPlace
from bennu.images.overlay import remove_tree
from bennu.process import run

WORLD: Final = Path(__file__).with_name("build_world.py")
GUARD: Final = Path(__file__).with_name("guard_step.py")
# An OCI runtime that confines what it is asked to make: a shell's script, for it is run five times a step.
RUNTIME: Final = """\
#!/bin/sh
case $1 in create) {0} -I -S /run/guard_step.py {1} || exit 1 ;; esac
exec {2} "$@"
"""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROXIES: Final = frozenset(
    name
    for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (word, word.upper())
)
MISSING: Final = "buildah is not installed: apt-get install buildah"
# Only what we lent it is in its storage: whom to trust was decided when that was pulled.
TRUST: Final = '{"default":[{"type":"insecureAcceptAnything"}]}'
# What a host's administrator sets for containers of another engine is not meant for ours.
SETTINGS: Final = (
    '[containers]\ndefault_ulimits = []\nhost_containers_internal_ip = "none"\n[engine]\ncgroup_manager = "cgroupfs"\n'
)
REGISTRIES: Final = 'unqualified-search-registries = []\nshort-name-mode = "disabled"\n'

log = logging.getLogger(__name__)


class Buildah:
    """`run_root` is for what a reboot may take: its count of mounts."""

    def __init__(self, root: Path, run_root: Path) -> None:
        self.root = root
        self.run_root = run_root

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    def write_settings(self) -> None:
        """Write buildah's configuration files. Blocking. Raises: Unavailable when there is no buildah."""
        if shutil.which("buildah") is None:
            raise Unavailable(MISSING)
        for folder in (self.root, self.storage, self.run_root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        storage = {"driver": "overlay", "graphroot": str(self.storage), "runroot": str(self.run_root)}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in storage.items())
        texts = {
            "storage.conf": f'[storage]\n{lines}[storage.options.overlay]\nskip_mount_home = "true"\n',
            "registries.conf": REGISTRIES,
            "containers.conf": SETTINGS,
            "policy.json": TRUST,
        }
        for name, text in texts.items():
            (self.root / name).write_text(text)

    def environment(self, tmp: Path) -> dict[str, str]:
        """Make buildah's environment: of ours only the proxies, which ADD uses as dockerd's does; `tmp` is TMPDIR."""
        return {
            **{name: value for name, value in os.environ.items() if name in PROXIES},
            "PATH": os.environ.get("PATH", PATH),
            "HOME": "/root",
            "CONTAINERS_CONF": str(self.root / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.root / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.root / "registries.conf"),
            "TMPDIR": str(tmp),
        }

    async def call(self, tmp: Path, *arguments: str) -> None:
        """Run a short command on the storage; a failure is only logged."""
        done = await run(["buildah", *arguments], timeout_s=120, env=self.environment(tmp))
        if done.exit_code != 0:
            log.warning("buildah %s: %s", arguments[0], done.stderr.decode(errors="replace").strip())

    async def made_before(self, tmp: Path, instant_ns: int) -> list[str]:
        """List the ids of the steps that were made before an instant, each before those that it was made from."""
        done = await run(["buildah", "images", "--all", "--json"], timeout_s=120, env=self.environment(tmp))
        if done.exit_code != 0:
            log.warning("buildah images: %s", done.stderr.decode(errors="replace").strip())
            return []
        steps = json.loads(done.stdout or b"[]") or []
        old = [step for step in steps if step["created"] * 10**9 < instant_ns]
        return [step["id"] for step in sorted(old, key=lambda step: -step["created"])]

    async def clear(self, tmp: Path) -> None:
        """Remove what builds that were cut off left in the storage. To be called while none runs."""
        await self.call(tmp, "rm", "--all")
        # The mounts went with the worlds they were in; what is remembered of them would only be wrong.
        await asyncio.to_thread(remove_tree, self.run_root)
        if await asyncio.to_thread(self._has_containers):
            log.warning("buildah was killed while it made a container; the build cache is given up with it")
            await asyncio.to_thread(remove_tree, self.storage)
        await asyncio.to_thread(self.write_settings)

    def _has_containers(self) -> bool:
        """Tell whether storage holds containers; one whose making was cut off buildah itself would not find."""
        try:
            return bool(json.loads((self.storage / "overlay-containers/containers.json").read_bytes()))
        except (OSError, ValueError):
            return False

    def used_bytes(self) -> int:
        """Measure the storage. Blocking."""
        total = 0
        for folder, _, files in os.walk(self.root):
            for name in files:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118
        return total

    # --- a build's world ------------------------------------------------------------------------------------------

    def furnish(self, work: Path, place: BuildPlace) -> list[str | Path]:
        """Write the world's files into `work`; answer the command line that starts a command in it. Blocking.

        The command finds `work`, `work/tmp` for its own use, and in `work/runtime` the program that runs steps.
        """
        for name in ("root", "tmp"):
            (work / name).mkdir()
        files = {"hosts": place.hosts, "resolv.conf": place.resolv_conf}
        for name, text in files.items():
            (work / name).write_text(text)
        rules = {**place.confinement, **files, "cgroupsPath": place.group, "address": place.address}
        (work / "rules.json").write_text(json.dumps(rules))
        runtime = work / "runtime"
        runtime.write_text(
            RUNTIME.format(*map(shlex.quote, (_interpreter(), str(work / "rules.json"), _oci_runtime())))
        )
        runtime.chmod(0o755)
        world: dict[str, Any] = {"root": str(work / "root"), "network": place.network, "shown": self._shown(work)}
        return [sys.executable, "-I", "-S", WORLD, json.dumps(world), "--"]

    def _shown(self, work: Path) -> Sequence[tuple[str, str, bool]]:
        """List the places of this host in the world: (where, as what, whether they may be written)."""
        places = [(path, path, True) for path in (self.storage, self.run_root, work)]
        places += [(self.root / name, self.root / name, False) for name in ("storage.conf", "registries.conf")]
        places += [(self.root / "containers.conf", self.root / "containers.conf", False)]
        places += [(self.root / "policy.json", Path("/etc/containers/policy.json"), False)]
        places += [(work / name, Path("/etc") / name, False) for name in ("hosts", "resolv.conf")]
        places += [(GUARD, Path("/run/guard_step.py"), False)]
        interpreter = Path(sys.base_prefix)
        if not interpreter.is_relative_to("/usr"):
            places += [(interpreter, interpreter, False)]
        return [(str(source), str(target), writable) for source, target, writable in places]


def _interpreter() -> str:
    return str(Path(sys.executable).resolve())


def _oci_runtime() -> str:
    return shutil.which("crun") or shutil.which("runc") or "crun"
