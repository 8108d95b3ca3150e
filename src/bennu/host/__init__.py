"""Examination of the machine: can it carry containers, and what would cure it.

`examine` looks at everything and takes its time (`bennu doctor`). `prepare` is the part that bennud runs each time it
starts: quick checks, and the one repair that is ours to make. Nothing here knows about containers or the API.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.errors import Unavailable
from bennu.host import cgroups, firewall, forsaken, kernel, rights, tools
from bennu.host.finding import Finding, FindingVerdict, ok, warn
from bennu.host.firewall import Bridge

__all__ = ["DEFAULT_BRIDGE", "Bridge", "Finding", "FindingVerdict", "Prepared", "examine", "prepare"]

DEFAULT_BRIDGE: Final = "bennu0"
STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The runtime to use on this machine, and what its operator should read in the log."""

    oci_runtime: str
    findings: list[Finding]


async def examine(data_root: Path, *, bridges: Sequence[Bridge] = (Bridge(DEFAULT_BRIDGE),)) -> list[Finding]:
    """Examine all that can be known. What needs root is left out without it."""
    status = STATUS.read_text()
    findings = rights.check_rights(status, os.geteuid())
    is_root = os.geteuid() == 0
    findings += await kernel.check_kernel(data_root) if is_root else [kernel.check_pidfd(), kernel.check_namespaces()]
    findings += cgroups.judge(cgroups.read_layout())
    findings += await tools.check_tools()
    findings += [
        rights.check_seccomp(status),
        rights.check_security_modules(),
        rights.check_limits(rights.read_file_limit(data_root)),
        rights.check_disk(data_root),
        rights.check_lost(data_root),
        firewall.check_forwarding(),
    ]
    return findings + ([forsaken.check_forsaken(), *await firewall.check_firewall(bridges)] if is_root else [])


async def prepare(data_root: Path, oci_runtime: str, *, bridge: str = DEFAULT_BRIDGE) -> Prepared:
    """Make the host ready. Raises: Unavailable with every reason and its cure, when no container could run."""
    status = STATUS.read_text()
    findings = rights.check_rights(status, os.geteuid())
    findings += [tools.missing(tool) for tool in tools.TOOLS if shutil.which(tool.name) is None]
    findings += [rights.check_disk(data_root), rights.check_lost(data_root)]
    findings += [rights.check_seccomp(status), kernel.check_pidfd(), await kernel.check_helper(data_root)]
    layout = cgroups.read_layout()
    if layout.leftover and os.geteuid() == 0:
        oci_runtime, repaired = repair_hybrid(layout, oci_runtime)
        findings.append(repaired)
        layout = cgroups.read_layout()
    findings += [finding for finding in cgroups.judge(layout) if not layout.leftover or finding.name != "cgroups"]
    if os.geteuid() == 0 and shutil.which("nft"):
        findings += await firewall.check_firewall([Bridge(bridge)])
    if failures := [finding for finding in findings if finding.verdict is FindingVerdict.FAIL]:
        reasons = "; ".join(
            f"{one.name}: {one.text}" + (f" (cure: {one.cure})" if one.cure else "") for one in failures
        )
        raise Unavailable(f"this machine cannot run containers: {reasons}")
    return Prepared(oci_runtime, [finding for finding in findings if finding.verdict is FindingVerdict.WARN])


def repair_hybrid(layout: cgroups.Layout, oci_runtime: str) -> tuple[str, Finding]:
    """Mount what is left over; if the kernel will not, choose the runtime that does not mind."""
    names = ", ".join(sorted(layout.leftover))
    failures = cgroups.mount_leftover(layout)
    if not failures:
        return oci_runtime, ok("cgroups", f"mounted {names} as v1")
    reasons = ", ".join(f"{name}: {reason}" for name, reason in failures.items())
    text = f"{names} cannot be mounted as v1 ({reasons})"
    if Path(oci_runtime).name == "runc" or not layout.refused & failures.keys():
        return oci_runtime, warn("cgroups", text)
    if shutil.which("runc"):
        return "runc", warn("cgroups", f"{text}; runc is used instead of crun, which refuses such a host")
    cure = "apt-get install runc, or boot with systemd.unified_cgroup_hierarchy=1"
    return oci_runtime, Finding("cgroups", FindingVerdict.FAIL, f"{text}; crun refuses such a host", cure)
