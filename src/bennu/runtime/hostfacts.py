"""Reads once what this host can give to containers: limits that cannot be raised, capabilities, kernel features."""

import contextlib
import platform
import re
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bennu.go.arch import architecture
from bennu.runtime.capabilities import names_of_mask
from bennu.runtime.cgroups import Cgroups


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What this host can give. The defaults, a host that can do everything, are for pure tests."""

    architecture: str = "amd64"  # Go's name
    kernel: tuple[int, int] = (6, 1)
    cgroup_v2: bool = True
    capabilities: frozenset[str] = frozenset()  # what a process of ours can hand on
    can_raise_limits: bool = True  # CAP_SYS_RESOURCE
    hard_limits: Mapping[str, int] = field(default_factory=dict)  # OCI name → the highest we may give; -1 = any
    given_files: tuple[int, int] | None = None  # open files, soft and hard, of who asks for no limit; None: as ours
    oom_score_adj: int = 0  # our own, the lowest we may give without CAP_SYS_RESOURCE
    swap_limit: bool = True
    blkio_weight: bool = True
    apparmor: bool = False
    init_binary: str = ""  # "": none is installed


def read_host_facts(cgroups: Cgroups) -> HostFacts:
    """Read a few dozen small files. Blocks for about a millisecond."""
    available = names_of_mask(_status_mask("CapBnd") & _status_mask("CapPrm"))
    return HostFacts(
        architecture=architecture(platform.machine()),
        kernel=kernel_version(platform.release()),
        cgroup_v2=cgroups.unified,
        capabilities=available,
        can_raise_limits="CAP_SYS_RESOURCE" in available,
        hard_limits=_read_hard_limits(may_raise="CAP_SYS_RESOURCE" in available),
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        swap_limit=_has_swap_limit(cgroups),
        blkio_weight=_has_blkio_weight(cgroups),
        apparmor=_has_apparmor(),
        init_binary=shutil.which("tini-static") or shutil.which("docker-init") or shutil.which("tini") or "",
    )


def kernel_version(release: str) -> tuple[int, int]:
    """Read a kernel's release: `6.1.0-18-amd64` → (6, 1)."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _status_mask(name: str) -> int:
    match = re.search(rf"^{name}:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match[1], 16) if match else 0


def _read_hard_limits(*, may_raise: bool) -> dict[str, int]:
    """Read the limits that we cannot exceed: the kernel's own, and ours where we may not raise them."""
    if may_raise:
        return {"RLIMIT_NOFILE": int(Path("/proc/sys/fs/nr_open").read_text())}
    return {
        name: resource.getrlimit(getattr(resource, name))[1] for name in vars(resource) if name.startswith("RLIMIT_")
    }


def _has_swap_limit(cgroups: Cgroups) -> bool:
    if cgroups.unified:
        # The top group has no limits of its own; any other shows whether swap is accounted.
        return any(cgroups.root.glob("*/memory.swap.max")) or not any(cgroups.root.glob("*/memory.max"))
    with contextlib.suppress(FileNotFoundError):
        return (cgroups.folder("memory", "/") / "memory.memsw.limit_in_bytes").exists()
    return False


def _has_blkio_weight(cgroups: Cgroups) -> bool:
    if cgroups.unified:
        return True
    with contextlib.suppress(FileNotFoundError):
        folder = cgroups.folder("blkio", "/")
        return (folder / "blkio.weight").exists() or (folder / "blkio.bfq.weight").exists()
    return False


def _has_apparmor() -> bool:
    with contextlib.suppress(OSError):
        return Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    return False
