"""Files of control groups, as kernels wrote them, and what is read from them."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from bennu.errors import InvalidParameter
from bennu.runtime.cgroups import Cgroups
from bennu.runtime.stats import read_stats

GROUP = "/bennu/c1"


@pytest.fixture
def v2(tmp_path: Path) -> Cgroups:
    """A group with files as version 2 has them, written by hand: this was not read off a kernel."""
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    folder = tmp_path / "bennu/c1"
    (folder / "exec-1").mkdir(parents=True)
    for name, text in {
        "cgroup.procs": "812\n845\n",
        "exec-1/cgroup.procs": "900\n",
        "cgroup.events": "populated 1\nfrozen 1\n",
        "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 7\nnr_throttled 2\n"
        "throttled_usec 30\nnr_bursts 0\nburst_usec 0\n",
        "memory.current": "20480\n",
        "memory.max": "33554432\n",
        "memory.peak": "30000000\n",
        "memory.stat": "anon 4096\nfile 8192\ninactive_file 1024\n",
        "memory.events": "low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 0\n",
        "pids.current": "3\n",
        "pids.max": "max\n",
        "io.stat": "8:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n253:0 \n",
    }.items():
        (folder / name).write_text(text)
    return Cgroups(tmp_path)


def test_version_2_is_read(v2: Cgroups) -> None:
    assert v2.unified
    assert v2.pids(GROUP) == [812, 845, 900]
    assert v2.oom_kills(GROUP) == 3
    assert v2.memory_marks(GROUP) == (33554432, 30000000)
    assert v2.is_frozen(GROUP)


def test_statistics_of_version_2(v2: Cgroups) -> None:
    stats = read_stats(v2, GROUP)
    assert stats.cpu["cpu_usage"] == {
        "total_usage": 1_500_000,
        "usage_in_kernelmode": 500_000,
        "usage_in_usermode": 1_000_000,
    }
    assert stats.cpu["throttling_data"] == {"periods": 7, "throttled_periods": 2, "throttled_time": 30_000}
    assert stats.cpu["online_cpus"] == os.cpu_count()
    assert stats.memory["usage"] == 20480
    assert stats.memory["limit"] == 33554432
    assert stats.memory["stats"]["inactive_file"] == 1024
    assert stats.pids == {"current": 3, "limit": 2**64 - 1}
    assert stats.blkio["io_service_bytes_recursive"][:2] == [
        {"major": 8, "minor": 0, "op": "read", "value": 4096},
        {"major": 8, "minor": 0, "op": "write", "value": 512},
    ]
    assert stats.blkio["io_serviced_recursive"][1]["value"] == 2


def test_a_group_without_limits(v2: Cgroups) -> None:
    (v2.root / "bennu/c1/memory.max").write_text("max\n")
    assert v2.memory_marks(GROUP)[0] == 0
    assert read_stats(v2, GROUP).memory["limit"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_freezing_and_lifting_in_version_2(v2: Cgroups) -> None:
    folder = v2.root / "bennu/c1"
    v2.freeze(GROUP, frozen=True)
    assert (folder / "cgroup.freeze").read_text() == "1"
    v2.lift(GROUP, ["cpu", "memory", "pids"])
    assert [(folder / name).read_text() for name in ("cpu.max", "memory.max", "memory.swap.max", "pids.max")] == [
        "max"
    ] * 4


def test_what_is_no_control_group_is_neither_emptied_by_signals_nor_removed(v2: Cgroups) -> None:
    folder = v2.root / "bennu/plain"
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            (folder / "cgroup.procs").write_text(f"{bystander.pid}\n")
            for signum in (signal.SIGTERM, signal.SIGKILL):
                v2.kill("/bennu/plain", signum)
            assert v2.remove("/bennu/plain")
            with pytest.raises(subprocess.TimeoutExpired):
                bystander.wait(0.2)
            assert {path.name for path in folder.iterdir()} == {"cgroup.procs"}
        finally:
            bystander.kill()


def test_no_path_of_a_group_leads_out_of_the_hierarchy(v2: Cgroups) -> None:
    for path in ("../../etc", "/../bennu/../../etc", "bennu/../../etc/."):
        assert v2.folder("memory", path) == v2.root / "etc"
    with pytest.raises(InvalidParameter):
        v2.folder("memory", "/bennu\0")


def test_a_group_that_is_gone(v2: Cgroups) -> None:
    assert v2.pids("/bennu/gone") == []
    assert v2.oom_kills("/bennu/gone") == 0
    assert v2.memory_marks("/bennu/gone") == (0, 0)
    assert not v2.is_frozen("/bennu/gone")
    assert read_stats(v2, "/bennu/gone").memory["usage"] == 0
    assert v2.remove("/bennu/gone")
