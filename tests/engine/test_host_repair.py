"""The repair of hybrid control groups and the kernel probes, on this machine's kernel."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bennu.host import FindingVerdict, examine, kernel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

# Mounts vanish with the namespace in which this runs.
MOUNT_IT = """
import sys
from pathlib import Path
from bennu.host.cgroups import Layout, CgroupMode, mount_leftover
failures = mount_leftover(Layout(CgroupMode.HYBRID, frozenset(), frozenset(sys.argv[2:])), Path(sys.argv[1]))
print(failures, (Path(sys.argv[1]) / sys.argv[2] / "cgroup.procs").exists())
"""


def unmounted_controller() -> str:
    """A version 1 controller that no hierarchy holds, so that mounting it disturbs nobody."""
    for line in Path("/proc/cgroups").read_text().splitlines()[1:]:
        name, hierarchy, _, enabled = line.split()
        if hierarchy == "0" and enabled == "1" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return name
    pytest.skip("every controller of this machine is in use already")


def mount_in_private(root: Path, *controllers: str) -> str:
    words = ["unshare", "--mount", sys.executable, "-c", MOUNT_IT, str(root), *controllers]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_a_leftover_controller_is_mounted_as_version_1(tmp_path: Path) -> None:
    assert mount_in_private(tmp_path, unmounted_controller()) == "{} True"


def test_a_controller_that_cannot_be_mounted_is_reported_not_raised(tmp_path: Path) -> None:
    assert mount_in_private(tmp_path, "nonsense").startswith("{'nonsense': ")


def test_probes_leave_nothing_behind(tmp_path: Path) -> None:
    findings = asyncio.run(kernel.check_kernel(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not Path("/sys/class/net/probe0").exists()
    assert list(tmp_path.iterdir()) == []
    assert {finding.name for finding in findings} >= {"overlayfs", "veth", "bridge", "nftables"}


def test_a_data_root_that_cannot_hold_layers_is_found_out() -> None:
    finding = asyncio.run(kernel.check_overlay(Path("/proc/nowhere")))
    assert finding.verdict is FindingVerdict.FAIL


def test_every_finding_that_is_not_fine_says_why() -> None:
    for finding in asyncio.run(examine(Path("/var/lib/bennu"))):
        assert finding.text
