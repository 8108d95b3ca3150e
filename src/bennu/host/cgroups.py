"""Which control groups this machine has, and the one thing that bennud repairs by itself.

Three kinds of machines are known: version 2 alone; version 1 alone; and *hybrid*, where version 1 hierarchies stand
beside a version 2 one. A hybrid machine may leave controllers on the version 2 side that nobody mounted; crun then
refuses every container ("drop all controllers from cgroupv2"). Mounting them as version 1, as Debian's package
cgroupfs-mount does, cures it. Where the kernel will not have that, runc takes over: it does not mind. A hierarchy that
only another mount namespace has mounted is mounted here as well: crun would make plain folders in its place, which
nothing takes away.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from bennu.host.finding import Finding, fail, ok, warn
from bennu.kernel.libc import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
WANTED: Final = {
    "memory": "memory limits and OOM facts",
    "pids": "the limit on processes",
    "cpu": "cpu limits",
    "cpuset": "--cpuset-cpus",
}


class CgroupMode(StrEnum):
    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Layout:
    """`v1` and `v2` name controllers by the side they can be used on."""

    mode: CgroupMode
    v1: frozenset[str]
    v2: frozenset[str]
    nested: bool = False  # version 2 and not the machine's root group: inside another container
    unseen: frozenset[str] = frozenset()  # version 1 hierarchies that are mounted elsewhere only

    @property
    def refused(self) -> frozenset[str]:
        """What crun refuses over: controllers of a hybrid machine that are on no version 1 mount."""
        return self.v2 if self.mode is CgroupMode.HYBRID else frozenset()

    @property
    def leftover(self) -> frozenset[str]:
        """What is to be mounted as version 1 before the first container."""
        return self.refused | self.unseen


def read_layout(root: Path = CGROUP_ROOT, proc: Path = Path("/proc/self")) -> Layout:
    """See what is mounted at and below `root`. Raises: OSError."""
    v1: set[str] = set()
    v2_at: Path | None = None
    for line in (proc / "mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split(" ")
        if not Path(where).is_relative_to(root):
            continue
        if kind == "cgroup2" and (v2_at is None or Path(where) == root):
            v2_at = Path(where)
        elif kind == "cgroup":
            v1 |= {word for word in options.split(",") if (root / word).exists()}
    v2 = frozenset((v2_at / "cgroup.controllers").read_text().split()) if v2_at else frozenset()
    if v2_at == root:
        return Layout(CgroupMode.V2, frozenset(), v2, nested=(root / "cgroup.type").exists())
    if not v1:
        return Layout(CgroupMode.NONE, frozenset(), v2)
    return Layout(CgroupMode.HYBRID if v2_at else CgroupMode.V1, frozenset(v1), v2, unseen=_unseen(proc / "cgroup", v1))


def _unseen(groups: Path, v1: set[str]) -> frozenset[str]:
    """List the version 1 hierarchies that exist, named as mount(8) takes them, less those on `v1`."""
    names = [line.split(":", 2)[1] for line in groups.read_text().splitlines()]
    return frozenset(name for name in names if name and "=" not in name and not v1 & set(name.split(",")))


def judge(layout: Layout) -> list[Finding]:
    """Judge what the layout means for containers. Pure."""
    name = "cgroups"
    if layout.mode is CgroupMode.NONE:
        cure = f"mount -t cgroup2 cgroup2 {CGROUP_ROOT}"
        return [fail(name, f"no control groups are mounted at {CGROUP_ROOT}", cure)]
    findings = []
    if layout.leftover:
        names = ", ".join(sorted(layout.leftover))
        cure = "; ".join(
            f"mkdir -p {CGROUP_ROOT}/{one} && mount -t cgroup -o {one} cgroup {CGROUP_ROOT}/{one}"
            for one in sorted(layout.leftover)
        )
        findings.append(warn(name, f"{names} is not mounted as v1 here; bennud does that", cure))
    else:
        findings.append(
            ok(
                name,
                {CgroupMode.V2: "v2", CgroupMode.V1: "v1", CgroupMode.HYBRID: "v1 beside v2 (hybrid)"}[layout.mode],
            )
        )
    usable = layout.v2 if layout.mode is CgroupMode.V2 else layout.v1 | layout.leftover
    lost = [f"{controller} ({meaning})" for controller, meaning in WANTED.items() if controller not in usable]
    if lost:
        cure = "boot with cgroup_enable=memory, or delegate the controllers to this group"
        findings.append(warn("controllers", f"missing: {', '.join(lost)}", cure))
    else:
        findings.append(ok("controllers", ", ".join(sorted(usable))))
    if layout.nested:
        text = "inside another container: limits work only if no process is left in the top group"
        cure = f"mkdir {CGROUP_ROOT}/init && xargs -n1 < {CGROUP_ROOT}/cgroup.procs > {CGROUP_ROOT}/init/cgroup.procs"
        findings.append(warn("nesting", text, cure))
    return findings


def mount_leftover(layout: Layout, root: Path = CGROUP_ROOT) -> dict[str, str]:
    """Mount each leftover controller as version 1. Returns the failures: controller → reason; {} is success."""
    failures = {}
    for controller in sorted(layout.leftover):
        where = root / controller
        try:
            where.mkdir(exist_ok=True)
            mount("cgroup", where, "cgroup", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC, options=controller)
        except OSError as error:
            failures[controller] = error.strerror or str(error)
    return failures
