"""Reads what a control group used, in the shape of Docker's `stats`: cpu, memory, pids, block I/O.

Reading is plain file access; the files of both versions become the same numbers.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.runtime.cgroups import Cgroups

_NS_PER_TICK: Final = 10**9 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stats:
    """One reading. `cpu`, `memory`, `pids` and `blkio` are Docker's `cpu_stats`, `memory_stats`, `pids_stats`, …"""

    cpu: dict[str, Any]
    memory: dict[str, Any]
    pids: dict[str, Any]
    blkio: dict[str, Any]


def read_stats(cgroups: Cgroups, group: str) -> Stats:
    """Read what can be read; of a group that is gone, nothing."""
    files = _Files(cgroups, group)
    if cgroups.unified:
        return Stats(_cpu_v2(files), _memory_v2(files), _pids(files), _blkio_v2(files))
    return Stats(_cpu_v1(files), _memory_v1(files), _pids(files), _blkio_v1(files))


def _is_no_limit(limit: int) -> bool:
    return limit <= 0 or limit >= 2**62


@dataclass(frozen=True, slots=True)
class _Files:
    """Reads the files of one group; what cannot be read is empty or 0."""

    cgroups: Cgroups
    group: str

    def text(self, controller: str, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.cgroups.folder(controller, self.group) / name).read_text()
        return ""

    def number(self, controller: str, name: str) -> int:
        """Read a number; `max`, which is no limit, is -1."""
        text = self.text(controller, name).strip()
        return -1 if text == "max" else int(text or 0)

    def fields(self, controller: str, name: str) -> dict[str, int]:
        """Read a file of `name number` lines."""
        pairs = (line.split() for line in self.text(controller, name).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


# --- cpu ----------------------------------------------------------------------------------------------------------


def _cpu(usage: Mapping[str, Any], throttling: Mapping[str, int]) -> dict[str, Any]:
    return {
        "cpu_usage": dict(usage),
        "system_cpu_usage": read_system_cpu_ns(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": dict(throttling),
    }


def read_system_cpu_ns() -> int:
    """Read the time that all cpus have spent since boot, as dockerd counts it: without guest time."""
    first = Path("/proc/stat").read_text().partition("\n")[0].split()
    return sum(int(ticks) for ticks in first[1:8]) * _NS_PER_TICK


def _cpu_v1(files: _Files) -> dict[str, Any]:
    stat = files.fields("cpuacct", "cpuacct.stat")
    quota = files.fields("cpu", "cpu.stat")
    usage = {
        "total_usage": files.number("cpuacct", "cpuacct.usage"),
        "percpu_usage": [int(word) for word in files.text("cpuacct", "cpuacct.usage_percpu").split()],
        "usage_in_kernelmode": stat.get("system", 0) * _NS_PER_TICK,
        "usage_in_usermode": stat.get("user", 0) * _NS_PER_TICK,
    }
    throttling = {
        "periods": quota.get("nr_periods", 0),
        "throttled_periods": quota.get("nr_throttled", 0),
        "throttled_time": quota.get("throttled_time", 0),
    }
    return _cpu(usage, throttling)


def _cpu_v2(files: _Files) -> dict[str, Any]:
    stat = files.fields("cpu", "cpu.stat")
    usage = {
        "total_usage": stat.get("usage_usec", 0) * 1000,
        "usage_in_kernelmode": stat.get("system_usec", 0) * 1000,
        "usage_in_usermode": stat.get("user_usec", 0) * 1000,
    }
    throttling = {
        "periods": stat.get("nr_periods", 0),
        "throttled_periods": stat.get("nr_throttled", 0),
        "throttled_time": stat.get("throttled_usec", 0) * 1000,
    }
    return _cpu(usage, throttling)


# --- memory, pids, disks ------------------------------------------------------------------------------------------


def _memory_v1(files: _Files) -> dict[str, Any]:
    return {
        "usage": files.number("memory", "memory.usage_in_bytes"),
        "max_usage": files.number("memory", "memory.max_usage_in_bytes"),
        "stats": files.fields("memory", "memory.stat"),
        "failcnt": files.number("memory", "memory.failcnt"),
        "limit": _memory_limit(files.number("memory", "memory.limit_in_bytes")),
    }


def _memory_v2(files: _Files) -> dict[str, Any]:
    return {
        "usage": files.number("memory", "memory.current"),
        "stats": files.fields("memory", "memory.stat"),
        "limit": _memory_limit(files.number("memory", "memory.max")),
    }


def _memory_limit(limit: int) -> int:
    """Answer the limit; without one, the host's memory is the limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total if _is_no_limit(limit) else min(limit, total)


def _pids(files: _Files) -> dict[str, Any]:
    found = {"current": files.number("pids", "pids.current")}
    limit = files.number("pids", "pids.max")
    # Docker's number for "no limit" is the largest unsigned one.
    return found | {"limit": limit if limit > 0 else 2**64 - 1}


def _blkio(service_bytes: list[dict[str, Any]] | None, serviced: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {
        "io_service_bytes_recursive": service_bytes,
        "io_serviced_recursive": serviced,
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    }


def _blkio_v1(files: _Files) -> dict[str, Any]:
    found = []
    for name in ("service_bytes", "serviced"):
        text = files.text("blkio", f"blkio.throttle.io_{name}_recursive")
        rows = (line.split() for line in text.splitlines())
        found.append([_disk(row[0], row[1], int(row[2])) for row in rows if len(row) == 3])
    return _blkio(found[0], found[1])


def _blkio_v2(files: _Files) -> dict[str, Any]:
    service_bytes: list[dict[str, Any]] = []
    serviced: list[dict[str, Any]] = []
    for line in files.text("io", "io.stat").splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        for operation, amount, count in (("read", "rbytes", "rios"), ("write", "wbytes", "wios")):
            service_bytes.append(_disk(device, operation, int(values.get(amount, 0))))
            serviced.append(_disk(device, operation, int(values.get(count, 0))))
    return _blkio(service_bytes, serviced)


def _disk(device: str, operation: str, value: int) -> dict[str, Any]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": value}
